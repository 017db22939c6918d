"""Looks for the tools of a language on this machine; nothing is started.

found = find(definition, Path("~/.local/share/angelos/runtimes").expanduser())
match found:
case Toolchain(): ...
case Missing(reason=reason): ...     # a sentence that names where it was looked for
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import msgspec

from angelos.node.runtimes.models import RuntimeDefinition, Toolchain, ToolchainDefinition

TOOLS = "/run/angelos/tools"
_SYSTEM = ("/usr/", "/bin/", "/lib/")
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """A language that this machine cannot run."""

    language: str
    reason: str
    hint: str


def find(
    definition: RuntimeDefinition, folder: Path, home: Path | None = None
) -> Toolchain | Missing:
    """Return the first toolchain of a language whose tools are all here.

    Args:
        definition: The language.
        folder: Where `angelos runtime install` puts what it brings.
        home: The home of the user, in place of this one.
    """
    lacking: list[str] = []
    for toolchain in definition.toolchain:
        paths = {
            name: _tool(places, folder, home or Path.home())
            for name, places in toolchain.tools.items()
        }
        missing = sorted(name for name, path in paths.items() if path is None)
        if not missing:
            complete = {name: path for name, path in paths.items() if path is not None}
            return _toolchain(definition, toolchain, complete, folder)
        lacking += [f"{name} of {toolchain.name}" for name in missing]
    return Missing(
        language=definition.language,
        reason=f"There is no {', no '.join(lacking)} on this machine.",
        hint=f"`angelos runtime install {definition.language}` on the node's machine brings it.",
    )


def _tool(places: tuple[str, ...], folder: Path, home: Path) -> Path | None:
    for place in places:
        if "/" not in place:
            path = shutil.which(place, path=_PATH)
            candidates = [Path(path)] if path else []
        else:
            pattern = place.replace("{runtimes}", str(folder)).replace("{home}", str(home))
            candidates = sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)
        for candidate in candidates:
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return candidate
    return None


def _toolchain(
    definition: RuntimeDefinition,
    toolchain: ToolchainDefinition,
    paths: dict[str, Path],
    folder: Path,
) -> Toolchain:
    read_only: dict[str, str] = {}
    inside: dict[str, str] = {}
    for name, path in paths.items():
        if str(path).startswith(_SYSTEM):
            inside[name] = str(path)
            continue
        prefix = path.parent.parent  # what has bin/ has lib/ beside it
        place = next((at for at, source in read_only.items() if source == str(prefix)), "")
        place = place or f"{TOOLS}/{len(read_only)}"
        read_only[place] = str(prefix)
        inside[name] = f"{place}/{path.relative_to(prefix)}"
    marks = [f"{name} {path} {_mark(path)}" for name, path in sorted(paths.items())]
    text = "\n".join([*marks, repr(toolchain)])
    seeded = folder / f"{definition.language}-cache"
    return Toolchain(
        definition=toolchain,
        tools=inside,
        read_only=read_only,
        sources={name: str(path) for name, path in paths.items()},
        identity=hashlib.sha256(text.encode()).hexdigest(),
        seeded=str(seeded) if seeded.is_dir() else "",
    )


def _mark(path: Path) -> str:
    info = path.stat()
    return f"{path.resolve()} {info.st_size} {info.st_mtime_ns}"
