"""The data directory: where each part keeps its files, and how a running system is found.

    format          the number of this layout; another number is refused
    lock            held (flock) by whoever runs the system
    system.json     how to reach it: addresses and token (0600)
    server.json     the hub's addresses, written by the server process (0600)
    processes.json  what was started, so that orphans can be ended by pid and start tick
    postgres/ valkey/ keys/ policy/ nodes/<name>/ logs/ jupyter/ workspace/

Everything is 0700/0600: it holds keys. Sockets live in a short directory of their own, because
a Unix socket's path may have 107 bytes only.

    >>> DataDir("/srv/angelos").node("exec1")
    PosixPath('/srv/angelos/nodes/exec1')
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TypeVar

import msgspec

from angelos.adapters.host.children import start_ticks
from angelos.core.errors import Conflict, InvalidInput, Unavailable

T = TypeVar("T")
FORMAT = 3
"""Changes when this version can no longer read what an earlier one has written."""
_FILES = ("format", "lock", "system.json", "server.json", "processes.json")
_SOCKET_NAME_BYTES = 40
_SOCKET_PATH_BYTES = 107


class Process(msgspec.Struct, frozen=True):
    """One process as `processes.json` records it; id and start time name it for ever."""

    name: str
    pid: int
    start_ticks: int


def is_running(pid: int, ticks: int) -> bool:
    """Return whether the recorded process still runs."""
    return start_ticks(pid) == ticks


class SystemFile(msgspec.Struct, frozen=True, kw_only=True):
    """`system.json`: a system that is starting (`url` is empty) or runs."""

    pid: int
    start_ticks: int
    started_at: float
    postgres: str
    valkey: str
    url: str = ""
    token: str = ""
    hub_url: str = ""
    enrol_url: str = ""

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the file still runs."""
        return is_running(self.pid, self.start_ticks)


class ServerFile(msgspec.Struct, frozen=True, kw_only=True):
    """`server.json`: where the server process listens for nodes and agents."""

    pid: int
    start_ticks: int
    hub_url: str
    enrol_url: str

    @property
    def alive(self) -> bool:
        """Whether the process that wrote the file still runs."""
        return is_running(self.pid, self.start_ticks)


def absolute(path: Path | str) -> Path:
    """Return a path with its `~` filled in; raise `InvalidInput` when nobody has that home."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError as error:
        raise InvalidInput(
            f"Whose home is {path}? The system does not know.",
            hint="Name the data directory with --data-dir or ANGELOS_DATA_DIR.",
        ) from error


class DataDir:
    """Paths and small files of one data directory; nothing is created until `create`."""

    def __init__(self, root: Path | str) -> None:
        self.root = absolute(root)
        self.postgres = self.root / "postgres"
        self.valkey = self.root / "valkey"
        self.keys = self.root / "keys"
        self.policy = self.root / "policy"
        self.nodes = self.root / "nodes"
        self.logs = self.root / "logs"
        self.jupyter = self.root / "jupyter"
        self.workspace = self.root / "workspace"

    def node(self, name: str) -> Path:
        """Return the directory of a node that `angelos up` runs."""
        return self.nodes / name

    def create(self) -> None:
        """Create what is missing; raise `InvalidInput` when the directory cannot be used.

        Its mode becomes 0700, so a directory that holds something else is refused. So is
        another user's directory: they could plant links where we are about to write. So is one
        of another format, which is left as it is.
        """
        folders = (
            self.postgres,
            self.valkey,
            self.keys,
            self.policy,
            self.nodes,
            self.logs,
            self.jupyter,
            self.workspace,
        )
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.root.stat().st_uid != os.geteuid():
                raise self._unusable("it belongs to another user")
            names = {*_FILES, *(folder.name for folder in folders)}
            foreign = sorted({path.name for path in self.root.iterdir()} - names)
            if foreign and not (self.root / "lock").exists():
                raise self._unusable(f"it is not empty (it holds {foreign[0]})")
            self.check_format()
            self.root.chmod(0o700)
            if not (self.root / "format").exists():
                write_private(self.root / "format", f"{FORMAT}\n".encode())
            for path in folders:
                path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error

    def check_format(self) -> None:
        """Raise `InvalidInput` if another version has written here; a new directory has no mark."""
        try:
            mark = (self.root / "format").read_text(encoding="utf-8").strip() or "unknown"
        except FileNotFoundError:
            # The first format had no mark, but a lock or something in its stores.
            stores = (self.postgres, self.valkey, self.keys)
            used = (self.root / "lock").exists() or any(
                folder.is_dir() and any(folder.iterdir()) for folder in stores
            )
            mark = "1" if used else str(FORMAT)
        except UnicodeDecodeError:
            mark = "unknown"
        if mark != str(FORMAT):
            raise InvalidInput(
                f"The data directory {self.root} has format {mark[:20]}, which this version of "
                f"AngelOS (format {FORMAT}) does not read; nothing was changed.",
                hint="Name another with --data-dir or ANGELOS_DATA_DIR.",
            )

    def _unusable(self, reason: str) -> InvalidInput:
        return InvalidInput(
            f"The data directory {self.root} cannot be used: {reason}. Nothing was changed.",
            hint="Name another with --data-dir or ANGELOS_DATA_DIR.",
        )

    @property
    def runtime(self) -> Path:
        """The directory for sockets; the same for each process of the system."""
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
        base = Path(tempfile.gettempdir())
        if len(os.fsencode(base)) + len(name) + _SOCKET_NAME_BYTES > _SOCKET_PATH_BYTES:
            base = Path("/tmp")  # noqa: S108 - `create_runtime` checks that it is private
        return base / f"angelos-{os.getuid()}-{name}"

    def create_runtime(self) -> Path:
        """Create the directory for sockets; raise `Conflict` when it is not private."""
        path = self.runtime
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            status = path.lstat()
            if (
                not stat.S_ISDIR(status.st_mode)
                or status.st_uid != os.getuid()
                or status.st_mode & 0o077
            ):
                raise Conflict(
                    f"{path} exists and is not a private directory of this user.",
                    hint="Remove it, or set TMPDIR to a short directory of your own.",
                ) from None
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the directory for one system; raise `Conflict` naming the holder's process.

        The lock is the kernel's (flock): it ends with its process, `kill -9` included.
        """
        path = self.root / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                raise Conflict(
                    f"A system already runs on {self.root} (pid {holder}).",
                    hint="Use it, stop it with Ctrl-C, or name another with --data-dir.",
                    pid=holder,
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            yield
            os.ftruncate(fd, 0)
        finally:
            os.close(fd)

    def system(self) -> SystemFile:
        """Return how to reach the running system; raise `Unavailable` when none runs."""
        system = self._read("system.json", SystemFile)
        if system is None or not system.alive:
            raise Unavailable(
                f"No system runs on {self.root}.",
                hint="Start one with `angelos up`, or name its directory with --data-dir.",
            )
        return system

    def server(self) -> ServerFile | None:
        """Return where the server process listens, if it runs."""
        server = self._read("server.json", ServerFile)
        return server if server is not None and server.alive else None

    def last_server(self) -> ServerFile | None:
        """Return where the last server process listened: it takes the same ports again if free."""
        return self._read("server.json", ServerFile)

    def write_system(self, system: SystemFile) -> None:
        """Write `system.json`."""
        write_private(self.root / "system.json", msgspec.json.encode(system))

    def write_server(self, server: ServerFile) -> None:
        """Write `server.json`."""
        write_private(self.root / "server.json", msgspec.json.encode(server))

    def clear_system(self) -> None:
        """Remove `system.json`."""
        (self.root / "system.json").unlink(missing_ok=True)

    def processes(self) -> list[Process]:
        """Return what the last system recorded, in the order in which it was started."""
        return self._read("processes.json", list[Process]) or []

    def write_processes(self, processes: Sequence[Process]) -> None:
        """Record what was started."""
        write_private(self.root / "processes.json", msgspec.json.encode(processes))

    def _read(self, name: str, as_type: type[T]) -> T | None:
        path = self.root / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=as_type)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InvalidInput(
                f"{self.root} cannot be read: {error.strerror}.",
                hint="Name another data directory with --data-dir or ANGELOS_DATA_DIR.",
            ) from error
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"{path} is damaged: {error}.", hint="Remove it; the next start writes it anew."
            ) from error


def write_private(path: Path, body: bytes) -> None:
    """Replace a file by one of mode 0600; a reader sees the old or the new one, never a part."""
    with private_file(path) as file:
        file.write(body)


@contextmanager
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file of mode 0600 that replaces `path` unless the body raises."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:  # mkstemp made it 0600
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
