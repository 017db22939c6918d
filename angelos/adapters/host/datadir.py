"""The data directory: where each part keeps its files, and how a running system is found.

    format          the number of this layout; another number is refused
    lock            held (flock) by whoever runs the system
    system.json     how to reach it: addresses and token (0600)
    server.json     the hub's addresses, written by the server process (0600)
    processes.json  what was started, so that orphans can be ended by pid and start tick
    postgres/ valkey/ keys/ policy/ nodes/<name>/ logs/ jupyter/ workspace/ git/ models/

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
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

import msgspec

from angelos.adapters.host.children import start_ticks
from angelos.core.errors import Conflict, InvalidInput, Unavailable

T = TypeVar("T")
FORMAT = 5
"""Changes when this version can no longer read what an earlier one has written."""
_FILES = (
    *("angelos.toml", "format", "forgotten", "lock"),
    *("system.json", "server.json", "processes.json"),
)
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


class LockFile(msgspec.Struct, frozen=True, kw_only=True):
    """`lock`: whose directory this is. In a copy of a directory it is a file of another inode."""

    id: str = ""
    inode: int = 0
    device: int = 0
    boot: str = ""
    pid: int = 0
    """Of the system that runs here; 0 when none does."""

    def is_of(self, status: os.stat_result, boot: str) -> bool:
        """Return whether this was written into the very file that `status` describes.

        A file system may have another device number after the next boot.
        """
        same_device = self.device == status.st_dev or self.boot != boot
        return bool(self.id) and self.inode == status.st_ino and same_device


class Ownership(NamedTuple):
    """The id of a locked data directory."""

    id: str
    copied: bool
    """The directory was copied from another, whose records it has: processes, ports."""


class SystemFile(msgspec.Struct, frozen=True, kw_only=True):
    """`system.json`: a system that is starting (`url` is empty) or runs."""

    pid: int
    start_ticks: int
    lock: int = 0
    """The inode of the directory's lock: a copy of this file describes another system."""
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
    lock: int = 0
    """As in `SystemFile`."""
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
    """Paths and small files of one data directory; nothing is created until `create`.

    Args:
        root: the directory.
        runtime_base: where the user's sockets belong (`XDG_RUNTIME_DIR`), if anywhere.
    """

    def __init__(self, root: Path | str, runtime_base: str = "") -> None:
        self.root = absolute(root)
        self._runtime_base = runtime_base
        self.postgres = self.root / "postgres"
        self.valkey = self.root / "valkey"
        self.keys = self.root / "keys"
        self.log_vkeys = self.keys / "log.vkeys"
        self.backup_key = self.keys / "backup.key"
        """The audit log's verifier keys, a line for each life of the signer."""
        self.witnesses = self.root / "witnesses"
        """Who is asked to cosign the audit log: a line of URL and verifier key for each."""
        self.policy = self.root / "policy"
        self.nodes = self.root / "nodes"
        self.logs = self.root / "logs"
        self.jupyter = self.root / "jupyter"
        self.workspace = self.root / "workspace"
        self.git = self.root / "git"
        """Git objects that are ready to be served; all of it can be made again."""
        self.models = self.root / "models"
        """Artefacts of role models, each named by its content's hash."""
        self.forgotten = self.root / "forgotten"
        """Ids of memories that were forgotten: no backup may bring them back."""

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
            self.git,
            self.models,
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
        """The directory for sockets: where nothing tidies up, else in the temporary directory."""
        digest = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:12]
        name = f"angelos-{os.getuid()}-{digest}"
        for base in (self._runtime_base, f"/run/user/{os.getuid()}"):
            if base and _is_private(Path(base)) and _fits(Path(base) / name):
                return Path(base) / name
        base = Path(tempfile.gettempdir())
        if not _fits(base / name):
            base = Path("/tmp")  # noqa: S108 - `create_runtime` checks that it is private
        return base / name

    def create_runtime(self) -> Path:
        """Create the directory for sockets; raise `Conflict` when it is not private."""
        path = self.runtime
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            if not _is_private(path):
                raise Conflict(
                    f"{path} exists and is not a private directory of this user.",
                    hint="Remove it, or set TMPDIR to a short directory of your own.",
                ) from None
        return path

    @contextmanager
    def locked(self) -> Iterator[Ownership]:
        """Lock the directory for one system; raise `Conflict` naming the holder's process.

        The lock is the kernel's (flock): it ends with its process, `kill -9` included. A copy of
        another directory gets an id of its own, and forgets the original's processes and ports.
        """
        path = self.root / "lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock = _read_lock(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = str(lock.pid or "unknown")
                raise Conflict(
                    f"A system already runs on {self.root} (pid {holder}).",
                    hint="Use it, stop it with Ctrl-C, or name another with --data-dir.",
                    pid=holder,
                ) from None
            status, boot = os.fstat(fd), _boot_id()
            original = lock.is_of(status, boot)
            copied = bool(lock.id) and not original
            lock = LockFile(
                id=lock.id if original else uuid.uuid4().hex,
                inode=status.st_ino,
                device=status.st_dev,
                boot=boot,
                pid=os.getpid(),
            )
            if copied:
                for name in ("processes.json", "server.json", "system.json"):
                    (self.root / name).unlink(missing_ok=True)
            _write_lock(fd, lock)
            yield Ownership(lock.id, copied)
            _write_lock(fd, msgspec.structs.replace(lock, pid=0))
        finally:
            os.close(fd)

    def identity(self) -> str:
        """Return the id of the directory, which a system has locked."""
        fd = os.open(self.root / "lock", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _read_lock(fd).id
        finally:
            os.close(fd)

    def _is_ours(self, record: SystemFile | ServerFile) -> bool:
        return record.lock == self._lock_inode()

    def _lock_inode(self) -> int:
        try:
            return (self.root / "lock").stat().st_ino
        except OSError:
            return 0

    def system(self) -> SystemFile:
        """Return how to reach the running system; raise `Unavailable` when none runs."""
        system = self._read("system.json", SystemFile)
        if system is None or not system.alive or not self._is_ours(system):
            raise Unavailable(
                f"No system runs on {self.root}.",
                hint="Start one with `angelos up`, or name its directory with --data-dir.",
            )
        return system

    def server(self) -> ServerFile | None:
        """Return where the server process listens, if it runs."""
        server = self._read("server.json", ServerFile)
        return server if server is not None and server.alive and self._is_ours(server) else None

    def last_server(self) -> ServerFile | None:
        """Return where the last server process listened: it takes the same ports again if free."""
        server = self._read("server.json", ServerFile)
        return server if server is not None and self._is_ours(server) else None

    def write_system(self, system: SystemFile) -> None:
        """Write `system.json`."""
        system = msgspec.structs.replace(system, lock=self._lock_inode())
        write_private(self.root / "system.json", msgspec.json.encode(system))

    def write_server(self, server: ServerFile) -> None:
        """Write `server.json`."""
        server = msgspec.structs.replace(server, lock=self._lock_inode())
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


def _read_lock(fd: int) -> LockFile:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=LockFile)
    except msgspec.DecodeError:  # new, or from a start that was killed
        return LockFile()


def _write_lock(fd: int, lock: LockFile) -> None:
    body = msgspec.json.encode(lock)
    os.pwrite(fd, body.ljust(512) + b"\n", 0)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _is_private(path: Path) -> bool:
    """Return whether this is a directory, no link, that only this user may use."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and not status.st_mode & 0o077
    )


def _fits(folder: Path) -> bool:
    """Return whether the path of a socket in this folder is short enough."""
    return len(os.fsencode(folder)) + _SOCKET_NAME_BYTES <= _SOCKET_PATH_BYTES


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
