"""A backup of a whole system in one file, taken while it works.

    info = await back_up(settings, Path("angelos.backup"))

PostgreSQL and Valkey are copied as they are at one moment, during which writes to Valkey wait (some
ten milliseconds): what is restored is the system as a power failure at that moment would have left
it, which it is made for. Files are copied after that moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from angelos import __version__
from angelos.adapters.host.archive import (
    ARCHIVE_FORMAT,
    ArchiveHeader,
    ArchiveWriter,
    BackupManifest,
    new_archive,
)
from angelos.adapters.host.datadir import FORMAT, DataDir
from angelos.adapters.identity.keys import load_or_create
from angelos.adapters.stores.pg_tools import dump, exported_snapshot
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.rdb import is_saving, paused_writes, snapshot
from angelos.adapters.stores.streams import Client, connect
from angelos.core.errors import InvalidInput, NotFound, Unavailable
from angelos.governance.log.store import AuditStore
from angelos.wiring.settings import Settings
from angelos.wiring.stores import OpenStores, open_stores

FORMATS = (ARCHIVE_FORMAT, FORMAT)
POSTGRES_FILE, VALKEY_FILE, DATA_FOLDER = "postgres.dump", "valkey.rdb", "data"
LEFT_OUT = frozenset(
    [
        *("lock", "system.json", "server.json", "processes.json"),
        *("postgres", "valkey", "logs"),
        *("jupyter/runtime", "jupyter/cookie_secret", "jupyter/file_ids.db"),
        *("keys/signer", "keys/hub.pem", "keys/backup.key"),
    ]
)
"""What belongs to this one directory: its identity, processes and ports, the stores' files, the
keys that sign the audit log, cookies and backups (so nobody who reads a backup can make one). A
restored system makes its own. Of its nodes only the empty folders are kept, by which it knows that
they are its own: they enrol again."""
_JOURNAL = "{journal}"
_TRIES = 5
_PAUSE_S = 1.0


class BackupInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A backup that was made."""

    file: str
    bytes: int
    at: float
    """The moment that it shows, in Unix seconds."""
    files: int
    entries: int
    """Of the journal."""
    paused_ms: float
    """How long writes waited."""
    sha256: str
    """Of the file."""
    key: str
    """The public key that verifies its signature, in hex; the same for all backups of a system."""


class _StoreMarks(msgspec.Struct, frozen=True, kw_only=True):
    """What the stores had at the moment."""

    at: float
    keys: int
    entries: int
    newest: str
    paused_s: float


async def back_up(settings: Settings, target: Path) -> BackupInfo:
    """Write a backup of the system on the data directory, which may run or not.

    Raises:
        NotFound: There is no system.
        InvalidInput: The file exists, or lies within the data directory.
        Unavailable: A store cannot be read.
    """
    data = settings.data
    target = _checked(data, target)
    if not data.keys.is_dir():
        raise NotFound(f"{data.root} holds no system.", hint="Name one with --data-dir.")
    data.check_format()
    parts = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        async with _stores(settings) as stores:
            return await _Backup(data, stores, parts).write(target)
    finally:
        await asyncio.to_thread(shutil.rmtree, parts, ignore_errors=True)


def _checked(data: DataDir, target: Path) -> Path:
    """Return the absolute path of a file that may be made."""
    target = target.absolute()
    if target.exists() or target.is_symlink():
        raise InvalidInput(f"{target} exists; nothing was changed.", hint="Name a new file.")
    if not target.parent.is_dir():
        raise InvalidInput(f"{target.parent} is no folder.")
    if target.parent.resolve().is_relative_to(data.root.resolve()):
        raise InvalidInput(
            f"{target} lies within the data directory, and would be lost with it.",
            hint="Name a file elsewhere, best on another disk.",
        )
    return target


@asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[OpenStores]:
    """Yield the addresses of the running system's stores; start those of one that is down."""
    try:
        system = settings.data.system()
    except Unavailable:
        async with open_stores(settings) as stores:
            if stores is None:
                raise Unavailable("The system is just starting or stopping; try again.") from None
            yield stores
    else:
        yield OpenStores(system.postgres, system.valkey)


class _Backup:
    """One backup under way; `parts` is a folder for what the stores give."""

    def __init__(self, data: DataDir, stores: OpenStores, parts: Path) -> None:
        self._data = data
        self._stores = stores
        self._dump = parts / POSTGRES_FILE
        self._rdb = parts / VALKEY_FILE

    async def write(self, target: Path) -> BackupInfo:
        client = connect(self._stores.valkey)
        try:
            checkpoint = await self._last_checkpoint()
            marks = await self._copy_stores(client)
            database = int(client.connection_pool.connection_kwargs.get("db") or 0)
        finally:
            await client.aclose()
        key = load_or_create(self._data.backup_key)
        header = ArchiveHeader(version=__version__, data_format=FORMAT, at=marks.at)
        with new_archive(target, header) as archive:
            await asyncio.to_thread(self._add_files, archive)
            manifest = BackupManifest(
                files=tuple(archive.files),
                keys=marks.keys,
                database=database,
                entries=marks.entries,
                newest=marks.newest,
                checkpoint=checkpoint,
            )
            archive.sign(manifest, key)
        return BackupInfo(
            file=str(target),
            bytes=_size(target),
            at=marks.at,
            files=len(archive.files),
            entries=marks.entries,
            paused_ms=round(marks.paused_s * 1000, 1),
            sha256=await asyncio.to_thread(_sha256, target),
            key=key.public.raw.hex(),
        )

    async def _last_checkpoint(self) -> str:
        async with Database(self._stores.postgres, max_connections=1) as database:
            last = await AuditStore(database).last()
        return last.note if last is not None else ""

    async def _copy_stores(self, client: Client) -> _StoreMarks:
        """Copy both stores as they are at one moment."""
        for _ in range(_TRIES):
            if await is_saving(client):
                await asyncio.sleep(_PAUSE_S)
                continue
            marks = await self._try_copy(client)
            if marks is not None:
                return marks
            await asyncio.sleep(_PAUSE_S)
        raise Unavailable(
            f"The stores could not be copied at one moment in {_TRIES} tries.",
            hint="The machine is very busy, or Valkey writes a copy of itself; try again later.",
        )

    async def _try_copy(self, client: Client) -> _StoreMarks | None:
        """Return what the stores had, None if the moment was over before both were fixed."""
        begun = time.monotonic()
        async with (
            paused_writes(client) as moment,
            exported_snapshot(self._stores.postgres) as exported,
        ):
            at = time.time()
            keys = await _lasting_keys(client)
            entries, newest = await journal_extent(client)
            async with snapshot(client) as copy:
                if not moment.holds:
                    return None
                await moment.end()
                paused = time.monotonic() - begun
                self._rdb.unlink(missing_ok=True)
                await copy.save(self._rdb)
            (self._data.valkey / "dump.rdb").unlink(missing_ok=True)  # the embedded one's copy
            await dump(self._stores.postgres, exported, self._dump)
        return _StoreMarks(at=at, keys=keys, entries=entries, newest=newest, paused_s=paused)

    def _add_files(self, archive: ArchiveWriter) -> None:
        folders = _folders(self._data.nodes)
        own = {f"nodes/{node.name}/{part.name}" for node in folders for part in node.iterdir()}
        archive.add_tree(DATA_FOLDER, self._data.root, LEFT_OUT | own)
        archive.add_file(POSTGRES_FILE, self._dump)
        archive.add_file(VALKEY_FILE, self._rdb)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not path.is_symlink()]


async def _lasting_keys(client: Client) -> int:
    """Return how many keys do not expire in the client's database."""
    database = client.connection_pool.connection_kwargs.get("db") or 0
    text: bytes = await client.reader.call("INFO", "keyspace")
    return lasting_keys(text.decode(), int(database))


async def journal_extent(client: Client) -> tuple[int, str]:
    """Return how many entries the journal has, and the newest offset that it gave."""
    if not await client.reader.call("EXISTS", _JOURNAL):
        return 0, "0-0"
    words = await client.reader.call("XINFO", "STREAM", _JOURNAL)
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return int(fields[b"length"]), fields[b"last-generated-id"].decode()


def lasting_keys(info: str, database: int) -> int:
    r"""Return how many keys do not expire, from `INFO keyspace`.

    >>> lasting_keys("# Keyspace\r\ndb0:keys=12,expires=3,avg_ttl=0", 0)
    9
    """
    for line in info.splitlines():
        name, _, fields = line.partition(":")
        if name == f"db{database}":
            numbers = dict(field.split("=", 1) for field in fields.split(","))
            return int(numbers["keys"]) - int(numbers["expires"])
    return 0
