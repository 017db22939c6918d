"""What a box looks like inside: which folders of the host it holds, and bubblewrap's flags. Pure.

The box has the host's `/usr`, the node's interpreter and virtual environment at their own paths
(so that `python -m ruff` and notebooks work), a few files of `/etc`, a `/tmp` of its own, and the
folders of the task. `/work` belongs to the task: an interpreter that lies below it on the host is
moved to `/opt/angelos`.

    >>> inside_path("/work/venv", "/work/venv/bin/python")
    '/opt/angelos/venv/bin/python'
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from angelos.core.errors import InvalidInput

WORK = "/work"
TMP = "/tmp"  # noqa: S108 - inside the box
SHIM = "/run/angelos/shim.py"
_MOVED = "/opt/angelos"
_ETC = ("ld.so.cache", "localtime", "alternatives", "mime.types", "fonts")
_DATA = Path(__file__).parent / "data" / "etc"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_SHM_BYTES = 1024 * 1024
UID = 1000
BASE_ENV = {
    "HOME": TMP,
    "TMPDIR": TMP,
    "USER": "box",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True, slots=True)
class Bind:
    """A file or folder of the host and where it is inside, always read-only."""

    source: str
    inside: str


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and everything that it needs from the host."""

    executable: str
    """Inside."""
    binds: tuple[Bind, ...]


def this_interpreter() -> Interpreter:
    """Return the interpreter and virtual environment that run this very program."""
    return interpreter(sys.executable, (sys.prefix, sys.base_prefix, sys.base_exec_prefix))


def interpreter(executable: str, prefixes: Sequence[str]) -> Interpreter:
    """Return what an interpreter needs: its prefixes, and where its chain of links leads."""
    roots = list(prefixes)
    hop = executable
    while True:
        if not any(_below(hop, root) for root in (*roots, *_SYSTEM)):
            roots.append(str(Path(hop).parent.parent))
        if not Path(hop).is_symlink():
            break
        hop = os.path.normpath(Path(hop).parent / Path(hop).readlink())
    roots += [os.path.realpath(root) for root in roots]
    if "/" in roots:
        raise InvalidInput(
            f"{executable} is installed in the root folder, which no box may see.",
            hint="Run the node in a virtual environment of its own.",
        )
    outer = sorted({r for r in roots if not any(_below(r, s) for s in _SYSTEM)})
    kept = [r for r in outer if not any(r != o and _below(r, o) for o in outer)]
    binds = tuple(Bind(root, inside_path(root, root)) for root in kept)
    home = next((root for root in kept if _below(executable, root)), executable)
    return Interpreter(inside_path(home, executable), binds)


def inside_path(root: str, path: str) -> str:
    """Return where `path`, which lies below `root`, is inside the box."""
    if not _below(root, WORK):
        return path
    return f"{_MOVED}/{Path(root).name}{path[len(root) :]}"


def system_binds() -> tuple[Bind, ...]:
    """Return what every box has of the host, and the files that take the place of `/etc`'s."""
    found = [Bind(n, n) for n in _SYSTEM if Path(n).is_dir() and not Path(n).is_symlink()]
    found += [Bind(f"/etc/{n}", f"/etc/{n}") for n in _ETC if Path("/etc", n).exists()]
    found += [Bind(str(file), f"/etc/{file.name}") for file in sorted(_DATA.iterdir())]
    found.append(Bind(str(Path(__file__).with_name("shim.py")), SHIM))
    return tuple(found)


def system_links() -> tuple[tuple[str, str], ...]:
    """Return (target, path) of the links at the root of a merged-/usr system."""
    return tuple((str(Path(n).readlink()), n) for n in _SYSTEM if Path(n).is_symlink())


def task_binds(read_only: Mapping[str, str]) -> tuple[Bind, ...]:
    """Return the task's folders; only `/work` and what is below it may be the task's."""
    for inside, source in read_only.items():
        if not (_below(inside, WORK) and os.path.normpath(inside) == inside):
            raise InvalidInput(f"A task's folder must be {WORK} or below it, not {inside}.")
        if not Path(source).is_absolute():
            raise InvalidInput(f"The folder for {inside} must be an absolute path, not {source}.")
    return tuple(Bind(source, inside) for inside, source in sorted(read_only.items()))


def flags(
    binds: Sequence[Bind], links: Sequence[tuple[str, str]], disk_mb: int, seccomp_fd: int
) -> list[str]:
    """Return bubblewrap's flags for a box, to be passed by `--args`.

    The root and `/dev` are tmpfs of half the machine's memory and so are made read-only last;
    `/tmp` and `/dev/shm` have a size. A tmpfs comes before binds below it.
    """
    out = [
        "--unshare-user", "--unshare-all", "--disable-userns", "--assert-userns-disabled",
        "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv",
        "--uid", str(UID), "--gid", str(UID), "--hostname", "box",
        "--proc", "/proc", "--dev", "/dev",
        "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev",  # noqa: S108
        "--size", str(disk_mb * 1024 * 1024), "--tmpfs", TMP,
    ]  # fmt: skip
    for target, path in links:
        out += ["--symlink", target, path]
    for bind in binds:
        out += ["--ro-bind", bind.source, bind.inside]
    for name, value in BASE_ENV.items():
        out += ["--setenv", name, value]
    return [*out, "--chdir", TMP, "--seccomp", str(seccomp_fd), "--remount-ro", "/"]


def exposed(path: Path, binds: Sequence[Bind]) -> str:
    """Return the folder that every box may read and that `path` lies in; empty if none does."""
    real = os.path.realpath(path)
    return next((b.source for b in binds if _below(real, os.path.realpath(b.source))), "")


def visible(binds: Sequence[Bind]) -> tuple[str, ...]:
    """Return the files and folders that exist inside, for messages and for Landlock."""
    folders = {bind.inside for bind in binds if bind.inside != SHIM}
    return tuple(sorted({*folders, TMP, "/dev", "/proc"}))


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
