"""What a box looks like inside: the host's folders that it shows, and bubblewrap's flags.

The box has the host's `/usr`, the node's interpreter and virtual environment at their own paths
(so that `python -m ruff` and notebooks work), a few files of `/etc`, a `/tmp` of its own, and the
task's folders. `/work` belongs to the task: an interpreter that lies below `/work` on the host is
moved to `/opt/angelos`.

    >>> inside_path("/work/venv", "/work/venv/bin/python")
    '/opt/angelos/venv/bin/python'
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from angelos.core.errors import InvalidInput
from angelos.core.messages import Limits
from angelos.core.sessions import SessionSpec
from angelos.core.task_files import INPUTS

WORK = "/work"
TMP = "/tmp"  # noqa: S108 - inside the box
OUT = "/out"
SHM = "/dev/shm"  # noqa: S108
RUN = "/run/angelos"
PACKAGES = f"{RUN}/packages"
SHIM, DISPLAY = f"{RUN}/shim.py", f"{RUN}/display.py"
_MOVED = "/opt/angelos"
_ETC = ("ld.so.cache", "localtime", "alternatives", "mime.types", "fonts", "mono")
_DATA = Path(__file__).parent / "data" / "etc"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
_MIB = 1024 * 1024
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
    """A file or folder of the host and its path inside."""

    source: str
    inside: str
    write: bool = False
    """Whether the box may change it."""
    mapped: bool = False
    """Root's files are the box's own inside: as root, it is mounted with the ids exchanged."""


@dataclass(frozen=True, slots=True)
class BoxShape:
    """What has to be settled before a box is started: its folders and their sizes."""

    own: tuple[Bind, ...] = ()
    """Binds of this box alone."""
    disk_mb: int = Limits().disk_mb
    shm_mb: int = Limits().memory_mb
    """What /dev/shm may hold and still be within the memory limit."""
    writable: str = ""
    """A folder of its own beside /tmp, which takes three quarters of the disk."""

    def serves(self, wanted: BoxShape) -> bool:
        """Return whether a box of this shape can be used where another shape is needed.

        More shared memory than needed does no harm: what lies there counts as memory.
        """
        return replace(self, shm_mb=wanted.shm_mb) == wanted and self.shm_mb >= wanted.shm_mb


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python and everything that it needs from the host."""

    executable: str
    """Its path inside."""
    binds: tuple[Bind, ...]


def this_interpreter(*, moved: bool = True) -> Interpreter:
    """Return the interpreter and virtual environment that run this program."""
    prefixes = (sys.prefix, sys.base_prefix, sys.base_exec_prefix)
    return interpreter(sys.executable, prefixes, moved=moved)


def interpreter(executable: str, prefixes: Sequence[str], *, moved: bool = True) -> Interpreter:
    """Return an interpreter with the folders it needs: its prefixes and those of its links.

    With `moved`, what lies below `/work` is somewhere else inside.

    The executable of a virtual environment may be a link to a link (pyenv, uv): every folder on
    the way has to exist inside.
    """
    roots = [*prefixes, *_link_roots(executable, prefixes)]
    roots += [os.path.realpath(root) for root in roots]
    if "/" in roots:
        raise InvalidInput(
            f"{executable} is installed in the root folder, which no box may see.",
            hint="Run the node in a virtual environment of its own.",
        )
    outermost = _outermost({r for r in roots if not _below_any(r, _SYSTEM)})
    if not moved:
        return Interpreter(executable, tuple(Bind(root, root) for root in outermost))
    binds = tuple(Bind(root, inside_path(root, root)) for root in outermost)
    home = next((root for root in outermost if _below(executable, root)), executable)
    return Interpreter(inside_path(home, executable), binds)


def _link_roots(executable: str, prefixes: Sequence[str]) -> list[str]:
    """Return the prefix of each link on the way to the real executable, if not bound yet."""
    roots: list[str] = []
    hop = executable
    while True:
        if not _below_any(hop, (*prefixes, *roots, *_SYSTEM)):
            roots.append(str(Path(hop).parent.parent))
        if not Path(hop).is_symlink():
            return roots
        hop = os.path.normpath(Path(hop).parent / Path(hop).readlink())


def _outermost(folders: Collection[str]) -> list[str]:
    """Return the folders that lie in no other of them, sorted."""
    return sorted(f for f in folders if not _below_any(f, [o for o in folders if o != f]))


def inside_path(root: str, path: str) -> str:
    """Return the path inside the box of `path`, which lies below `root`."""
    if not _below(root, WORK):
        return path
    return f"{_MOVED}/{Path(root).name}{path[len(root) :]}"


def system_binds() -> tuple[Bind, ...]:
    """Return the binds of every box, with our own files in place of some of `/etc`."""
    binds = [Bind(n, n) for n in _SYSTEM if Path(n).is_dir() and not Path(n).is_symlink()]
    binds += [Bind(f"/etc/{n}", f"/etc/{n}") for n in _ETC if Path("/etc", n).exists()]
    binds += [Bind(str(file), f"/etc/{file.name}") for file in sorted(_DATA.iterdir())]
    here = Path(__file__)
    binds.append(Bind(str(here.with_name("shim.py")), SHIM))
    binds.append(Bind(str(here.with_name("display.py")), DISPLAY))
    return tuple(binds)


def system_links() -> tuple[tuple[str, str], ...]:
    """Return (target, path) of the links in the root folder of a system with a merged /usr."""
    return tuple((str(Path(n).readlink()), n) for n in _SYSTEM if Path(n).is_symlink())


def shape_of(spec: SessionSpec) -> BoxShape:
    """Return the shape of the box that a session needs.

    Raises:
        InvalidInput: A folder is not at `/work`, `/in`, `/run/angelos` or below, where a bind could
            cover a part of the system that the box relies on, or is no plain absolute path.
    """
    run = spec.run
    binds = [Bind(source, inside) for inside, source in run.read_only.items()]
    binds += [Bind(source, inside, write=True) for inside, source in spec.shared.items()]
    for bind in binds:
        if not _may_hold(bind.inside, (WORK, INPUTS, RUN)):
            places = f"{WORK}, {INPUTS}, {RUN}"
            raise InvalidInput(f"A folder must be at {places} or below, not {bind.inside}.")
        if not Path(bind.source).is_absolute():
            raise InvalidInput(f"The folder for {bind.inside} must be absolute, not {bind.source}.")
    if len({bind.inside for bind in binds}) < len(binds):
        raise InvalidInput("A folder is given twice.")
    if spec.writable and not _may_hold(spec.writable, (WORK, OUT)):
        raise InvalidInput(f"The writable folder must be {OUT}, {WORK} or below one.")
    for bind in binds:
        if spec.writable and (
            _below(spec.writable, bind.inside) or _below(bind.inside, spec.writable)
        ):
            raise InvalidInput(f"The writable folder {spec.writable} overlaps {bind.inside}.")
    own = tuple(sorted(binds, key=lambda bind: bind.inside))
    return BoxShape(own, run.limits.disk_mb, run.limits.memory_mb, spec.writable)


def _may_hold(inside: str, places: Sequence[str]) -> bool:
    plain = os.path.normpath(inside) == inside and "\0" not in inside
    return plain and any(_below(inside, place) for place in places)


def flags(
    binds: Sequence[Bind], links: Sequence[tuple[str, str]], shape: BoxShape, seccomp_fd: int
) -> list[str]:
    """Return bubblewrap's flags for a box, to be passed by `--args`.

    The order of the flags is the order of the mounts: a tmpfs comes before the binds below it, and
    whatever has to be written first is made read-only last.
    """
    # --disable-userns: in a user namespace of its own, code would have every capability there, and
    # could use kernel interfaces that otherwise only root may use (user_namespaces(7)).
    namespaces = ["--unshare-user", "--unshare-all", "--disable-userns", "--assert-userns-disabled"]
    # --new-session: no controlling terminal into which input could be injected (TIOCSTI).
    process = ["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv"]
    identity = ["--uid", str(UID), "--gid", str(UID), "--hostname", "box"]
    # Every tmpfs has half the machine's memory unless it is given a size. The root and /dev are
    # tmpfs too and take no size, so they are made read-only. --tmp-overlay would ignore --size.
    devices = ["--proc", "/proc", "--dev", "/dev"]
    # One MiB more than the memory limit: whoever fills it has used more memory than allowed, so the
    # run ends as `oom` whether or not the sampler looks before the program stops by itself.
    shm = ["--size", str((shape.shm_mb + 1) * _MIB), "--tmpfs", SHM, "--remount-ro", "/dev"]
    disk = shape.disk_mb * _MIB
    tmp = ["--size", str(disk // 4 if shape.writable else disk), "--tmpfs", TMP]
    out = [*namespaces, *process, *identity, *devices, *shm, *tmp]
    for target, path in links:
        out += ["--symlink", target, path]
    for bind in binds:
        out += ["--bind" if bind.write else "--ro-bind", bind.source, bind.inside]
    if shape.writable:
        out += ["--size", str(disk - disk // 4), "--tmpfs", shape.writable]
    for name, value in BASE_ENV.items():
        out += ["--setenv", name, value]
    return [*out, "--chdir", TMP, "--seccomp", str(seccomp_fd), "--remount-ro", "/"]


def exposed(path: Path, binds: Sequence[Bind]) -> str:
    """Return the folder that contains `path` and that every box may read, or an empty string."""
    real = os.path.realpath(path)
    return next((b.source for b in binds if _below(real, os.path.realpath(b.source))), "")


def visible(binds: Sequence[Bind], writable: str = "") -> tuple[str, ...]:
    """Return the files and folders that exist inside, for Landlock and for the verdict."""
    folders = {bind.inside for bind in binds if bind.inside != SHIM}
    own = {writable} if writable else set[str]()
    return tuple(sorted({*folders, *own, TMP, "/dev", "/proc"}))


def _below_any(path: str, folders: Iterable[str]) -> bool:
    return any(_below(path, folder) for folder in folders)


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
