"""What a support bundle holds: gathered from the machine and the running system, without secrets.

It never opens keys, stores, Jupyter's own files or the workspace; what it reads goes through a
`Scrubber` that knows the secrets of this system by value.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import shutil
import sys
import tarfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from angelos import __version__
from angelos.cli.scrub import NAMES_OF_SECRETS, Scrubber

if TYPE_CHECKING:
    from angelos.adapters.host.datadir import DataDir
    from angelos.client import Angelos

LOG_BYTES = 1_000_000
"""The end of each log."""
_OURS = ("ANGELOS_", "OTEL_", "XDG_")
_KEY_BYTES = 16_384
_FOLDER = "angelos-support"
Questions = dict[str, Callable[["Angelos"], Awaitable[Any]]]
QUESTIONS: Questions = {
    "status": lambda angelos: angelos.status(),
    "load": lambda angelos: angelos.load(),
    "nodes": lambda angelos: angelos.nodes.list(),
    "peers": lambda angelos: angelos.hub.peers(),
}
"""What the running system is asked."""


def secrets_of(data: DataDir, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the secrets of a system that are known by value."""
    name = re.compile(NAMES_OF_SECRETS, re.IGNORECASE)
    for variable, value in environ.items():
        if name.search(variable):
            yield value
        yield from _passwords(value)
    for path in (
        data.root / "system.json",
        data.root / "server.json",
        data.jupyter / "sessions.json",
    ):
        for text in _strings(_json(path)):
            if name.search(text[0]):
                yield text[1]
            yield from _passwords(text[1])
    for folder in (data.keys, data.jupyter, *data.root.glob("nodes/*")):
        for path in folder.glob("*") if folder.is_dir() else ():
            if path.suffix in {".key", ".pem", ".token"} or "secret" in path.name:
                yield from _lines(path)


def _passwords(url: str) -> Iterator[str]:
    """Yield the password in a URL or a DSN of key words."""
    yield from re.findall(r"://[^\s/:@]*:([^\s/@]+)@", url)
    yield from re.findall(r"\bpassword\s*=\s*'?([^'\s&]+)", url)


def _lines(path: Path) -> Iterator[str]:
    """Yield a key's file as text, line by line, and as hex."""
    try:
        with path.open("rb") as file:
            raw = file.read(_KEY_BYTES)
    except OSError:
        return
    yield raw.hex()
    for line in raw.decode("utf-8", "ignore").splitlines():
        if line and not line.startswith("-----"):
            yield line.strip()


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _strings(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text in a value of JSON, with its name."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name)
    elif isinstance(value, str):
        yield name, value


def about(data: DataDir) -> dict[str, Any]:
    """Return what this is and runs on."""
    return {
        "angelos": __version__,
        "python": sys.version,
        "platform": platform.platform(),
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "uid": os.geteuid(),
        "cores": len(os.sched_getaffinity(0)),
        "data_dir": str(data.root),
    }


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that concern us; all others by their names alone would be too much."""
    return {name: value for name, value in sorted(environ.items()) if name.startswith(_OURS)}


def packages() -> dict[str, str]:
    """Return the installed distributions with their versions."""
    from importlib.metadata import distributions

    return {
        d.name: d.version for d in sorted(distributions(), key=lambda d: d.name or "") if d.name
    }


def processes(data: DataDir) -> list[dict[str, Any]]:
    """Return the recorded processes, with memory and processor time while they live."""
    from angelos.adapters.host.children import start_ticks
    from angelos.adapters.host.supervision import cpu_seconds

    rows: list[dict[str, Any]] = []
    for process in data.processes():
        alive = start_ticks(process.pid) == process.start_ticks
        row: dict[str, Any] = {"name": process.name, "pid": process.pid, "alive": alive}
        if alive:
            row |= {"cpu_s": cpu_seconds(process.pid), "resident_bytes": _resident(process.pid)}
        rows.append(row)
    return rows


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def disk(data: DataDir) -> dict[str, Any]:
    """Return how much each part of the data directory takes, and what is free."""
    sizes = {path.name: _size(path) for path in sorted(data.root.glob("*"))}
    try:
        free = shutil.disk_usage(data.root).free
    except OSError:
        free = 0
    return {"bytes": sizes, "free_bytes": free}


def _size(path: Path) -> int:
    """Return the bytes of a file or of all files below a folder."""
    files = [path] if not path.is_dir() else path.rglob("*")
    total = 0
    for file in files:
        try:
            total += file.lstat().st_size
        except OSError:  # it was removed meanwhile
            continue
    return total


def logs(data: DataDir) -> Iterator[tuple[str, bytes]]:
    """Yield the end of each log; links are not followed."""
    for path in sorted(data.logs.glob("*.log*")) if data.logs.is_dir() else ():
        if path.is_symlink() or not path.is_file():
            continue
        try:
            with path.open("rb") as file:
                start = max(0, path.stat().st_size - LOG_BYTES)
                file.seek(start)
                end = file.read(LOG_BYTES)
                # A line that is cut may begin within a secret, where nothing recognises it.
                yield path.name, end.partition(b"\n")[2] if start else end
        except OSError as error:
            yield path.name, str(error).encode()


class SupportArchive:
    """A tar archive under construction.

    Args:
        scrub: Takes secrets out of everything that is added.
    """

    def __init__(self, scrub: Scrubber) -> None:
        self._scrub = scrub
        self._buffer = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w:gz")  # noqa: SIM115 - closed by `finish`
        self.names: list[str] = []

    def add(self, name: str, content: Any) -> None:
        """Add a file: text and bytes as they are, anything else as JSON."""
        if isinstance(content, bytes):
            content = content.decode("utf-8", "replace")
        if not isinstance(content, str):
            content = msgspec.json.format(
                msgspec.json.encode(content, enc_hook=str), indent=1
            ).decode()
        body = self._scrub(content).encode()
        info = tarfile.TarInfo(f"{_FOLDER}/{name}")
        info.size, info.mode, info.mtime = len(body), 0o600, int(time.time())
        self._tar.addfile(info, io.BytesIO(body))
        self.names.append(name)

    def finish(self) -> bytes:
        """Return the archive."""
        self._tar.close()
        return self._buffer.getvalue()
