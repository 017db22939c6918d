"""A system from its backup, in a new directory, verified before it appears there.

    info = await restore(Path("angelos.backup"), Path("restored"), Origin(keys=[key]))

Nothing of a file is run or loaded before it is clear who made it. Everything is built in a folder
beside the target, which it becomes by one rename when all is right. The stores become embedded
ones. The restored system has an identity and ports of its own, and signs its audit log with keys of
its own, so it may run beside the original.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from angelos.adapters.host.archive import ArchiveHeader, BackupManifest, Extracted, extract
from angelos.adapters.host.datadir import DataDir, absolute
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.identity.keys import SEED_BYTES
from angelos.adapters.stores import pg_tools
from angelos.adapters.stores.pipeline import StoreError
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import Client, connect
from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.angelgit.storage.integrity import check_contents
from angelos.core.errors import Forbidden, InvalidInput, Tampered, Unavailable
from angelos.core.facts import Fact, SystemRestored
from angelos.core.ids import PrincipalId
from angelos.core.signing import SigningKey
from angelos.governance.log.checkpoint import KeyEpoch
from angelos.governance.log.notes import parse_vkey_lines
from angelos.governance.log.pages import export
from angelos.governance.log.store import AuditStore
from angelos.governance.log.verify import Report, Trust, verify
from angelos.memory.tombstones import TombstoneFile
from angelos.wiring.backup import (
    DATA_FOLDER,
    FORMATS,
    LEFT_OUT,
    POSTGRES_FILE,
    VALKEY_FILE,
    journal_extent,
    lasting_keys,
)
from angelos.wiring.stores import planes_for

RESTORER = PrincipalId("system/restore")
_EXPORT_PAGE = 500
_META = "{journal}:meta"
_DIGEST = re.compile(r"[0-9a-f]{64}")


class RestoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A system that was restored and verified."""

    data_dir: str
    version: str
    """Of the AngelOS that made the backup."""
    at: float
    """The moment that it shows, in Unix seconds."""
    files: int
    entries: int
    """Of the journal."""
    contents: int
    """Objects, blobs and commits whose hash was checked."""
    audit_entries: int
    audit_root: str


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator knows of a backup: one of these that holds is enough.

    >>> Origin.parse(["A" * 64], "", anyone=False).keys == {"a" * 64}
    True
    """

    keys: frozenset[str] = frozenset()
    """In hex, public keys of systems whose backups are trusted."""
    sha256: str = ""
    """Of the file."""
    anyone: bool = False
    """Whoever made it is trusted."""

    @classmethod
    def parse(cls, keys: Iterable[str], sha256: str, *, anyone: bool) -> Origin:
        """Return an origin from what was typed.

        Raises:
            InvalidInput: A key or hash has another form than 64 hex digits.
        """
        keys, sha256 = frozenset(key.strip().lower() for key in keys), sha256.strip().lower()
        for text in (*keys, *([sha256] if sha256 else [])):
            if not _DIGEST.fullmatch(text):
                raise InvalidInput(
                    f"{text[:80]!r} is not 64 hex digits.",
                    hint="`angelos backup` prints the key and the SHA-256 of each file.",
                )
        return cls(keys=keys, sha256=sha256, anyone=anyone)

    def check(self, backup: Path, extracted: Extracted) -> None:
        """Refuse a backup of another origin.

        Raises:
            Forbidden: Nothing that is known says that it may be trusted.
        """
        if self.sha256 and self.sha256 != extracted.sha256:
            raise Forbidden(
                f"{backup} has the SHA-256 {extracted.sha256}, not the one that you named. "
                "Nothing was restored."
            )
        if self.sha256 or self.anyone or extracted.key in self.keys:
            return
        raise Forbidden(
            f"{backup} is signed by {extracted.key}, which is no key that you named or that this "
            "machine has. Nothing was restored.",
            hint="Restoring runs what the file says. Name the key with --key or the file's hash "
            "with --sha256, as `angelos backup` printed them; --trust if you know its maker.",
        )


def backup_keys(data: DataDir) -> frozenset[str]:
    """Return the public key of backups of a system whose directory is still there."""
    try:
        seed = data.backup_key.read_bytes()
    except OSError:
        return frozenset()
    return frozenset([SigningKey(seed).public.raw.hex()] if len(seed) == SEED_BYTES else [])


def carry_forgotten(target: Path, sources: Iterable[Path]) -> int:
    """Add the ids of forgotten memories to those of a restored directory, and return how many.

    Args:
        target: The file of the directory; it need not exist.
        sources: Files like it, of the system that made the backup; one that is not there is empty.
    """
    file = TombstoneFile(target)
    present = set(file.read())
    ids = [each for path in sources for each in TombstoneFile(path).read() if each not in present]
    if ids:
        file.append(dict.fromkeys(ids))
    return len(set(ids))


async def restore(
    backup: Path, folder: Path, origin: Origin, forgotten: Iterable[Path] = ()
) -> RestoreInfo:
    """Restore a backup into a new directory.

    Args:
        backup: The file.
        folder: The directory, which must not exist or be empty.
        origin: Whose backups are trusted.
        forgotten: Files of ids of memories that were forgotten since; they do not come back.

    Raises:
        InvalidInput: The file is no whole backup of this format, or the directory is used.
        Forbidden: It is of another origin.
        Tampered: Something in it has another hash than it should have; nothing is restored.
    """
    target = absolute(folder)
    _check_paths(backup, target)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    runtime = Path(tempfile.mkdtemp(prefix="angelos-"))
    try:
        info = await _Restoration(staging, runtime).run(backup, target, origin)
        carry_forgotten(DataDir(staging / DATA_FOLDER).forgotten, forgotten)
        if target.exists():
            target.rmdir()
        (staging / DATA_FOLDER).rename(target)
        return info
    finally:
        for path in (staging, runtime):
            await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)


def _check_paths(backup: Path, target: Path) -> None:
    if not backup.is_file():
        raise InvalidInput(f"{backup} is no file.")
    if not target.parent.is_dir():
        raise InvalidInput(f"{target.parent} is no folder.")
    if target.is_symlink() or (
        target.exists() and not (target.is_dir() and not any(target.iterdir()))
    ):
        raise InvalidInput(
            f"{target} exists and is not an empty directory; nothing was changed.",
            hint="Name a new one; move what is there away first.",
        )


def _check_links(backup: Path, data: DataDir) -> None:
    """Refuse an archive that would have us write keys or stores in another place."""
    ours = (data.postgres, data.valkey, data.keys, data.policy, data.nodes, data.logs, data.jupyter)
    ours = (*ours, data.forgotten)
    below = data.keys.rglob("*") if data.keys.is_dir() else ()
    for path in (*ours, *below):
        if path.is_symlink():
            raise InvalidInput(
                f"{backup} is damaged: it has a link at {path.relative_to(data.root)}. "
                "Nothing was restored."
            )


class _Restoration:
    """One restoration in a folder of its own."""

    def __init__(self, staging: Path, runtime: Path) -> None:
        self._staging = staging
        self._runtime = runtime
        self._data = DataDir(staging / DATA_FOLDER)

    async def run(self, backup: Path, target: Path, origin: Origin) -> RestoreInfo:
        extracted = await asyncio.to_thread(extract, backup, self._staging, FORMATS, LEFT_OUT)
        origin.check(backup, extracted)
        header, manifest = extracted.header, extracted.manifest
        _check_links(backup, self._data)
        data = self._data
        data.create()
        _place_rdb(self._staging / VALKEY_FILE, data.valkey)
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            postgres = await enter(EmbeddedPostgres(data.postgres, self._runtime))
            valkey = await enter(EmbeddedValkey(data.valkey, self._runtime))
            await pg_tools.restore(postgres.url, self._staging / POSTGRES_FILE)
            database = await enter(Database(postgres.url, max_connections=2))
            await database.migrate(await planes_for(database))
            report = await self._check_audit(database, manifest)
            contents = await check_contents(database)
            client = connect(valkey.url)
            stack.push_async_callback(client.aclose)
            await _settle_valkey(client, manifest)
            await _record(client, header, report)
        await asyncio.to_thread(os.sync)
        return RestoreInfo(
            data_dir=str(target),
            version=header.version,
            at=header.at,
            files=len(manifest.files),
            entries=manifest.entries,
            contents=contents,
            audit_entries=report.entries,
            audit_root=report.root,
        )

    async def _check_audit(self, database: Database, manifest: BackupManifest) -> Report:
        """Verify the whole audit log, and that it continues the checkpoint of the manifest."""
        store = AuditStore(database)
        last = await store.check()  # what came after the last checkpoint, too
        origin, size = await store.origin(), last.checkpoint.size if last else 0
        place = self._staging / "audit.jsonl"
        with place.open("wb") as file:
            async for piece in export(store, origin, size, _EXPORT_PAGE):
                file.write(piece)
        trust = Trust(epochs=self._epochs(), previous=manifest.checkpoint)
        report = await asyncio.to_thread(_verify, place, trust)
        if not report.ok:
            reason = "The audit log in the backup was changed. Nothing was restored."
            raise Tampered(reason, log="\n".join(report.lines()))
        return report

    def _epochs(self) -> list[KeyEpoch]:
        try:
            return parse_vkey_lines(self._data.log_vkeys.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []


def _verify(place: Path, trust: Trust) -> Report:
    with place.open("rb") as lines:
        return verify(lines, trust)


def _place_rdb(rdb: Path, folder: Path) -> None:
    """Make an RDB file the base of an append-only file, as Valkey's own rewrite does."""
    aof = folder / "appendonlydir"
    aof.mkdir(mode=0o700)
    rdb.rename(aof / "appendonly.aof.1.base.rdb")
    manifest = aof / "appendonly.aof.manifest"
    manifest.write_text("file appendonly.aof.1.base.rdb seq 1 type b\n")
    manifest.chmod(0o600)


async def _settle_valkey(client: Client, manifest: BackupManifest) -> None:
    """Check what Valkey has loaded, and begin a new epoch of the journal.

    Raises:
        Tampered: Something is missing.
    """
    call = client.writer.call
    try:
        if manifest.database:
            await call("SWAPDB", 0, manifest.database)
        info: bytes = await call("INFO", "keyspace")
        for number in range(1, 16):
            if lasting_keys(info.decode(), number):  # others' data on a shared server
                await call("SELECT", number)
                await call("FLUSHDB")
        await call("SELECT", 0)
        keys = lasting_keys((await call("INFO", "keyspace")).decode(), 0)
    except StoreError as error:
        raise Unavailable(f"Valkey refuses: {error}") from error
    entries, newest = await journal_extent(client)
    if (keys, entries, newest) != (manifest.keys, manifest.entries, manifest.newest):
        raise Tampered(
            f"Valkey has {keys} keys and {entries} entries up to {newest}, not {manifest.keys} "
            f"and {manifest.entries} up to {manifest.newest}. Nothing was restored."
        )
    # Readers who saw more than the backup holds are told so instead of waiting.
    await call("HDEL", _META, "epoch")


async def _record(client: Client, header: ArchiveHeader, report: Report) -> None:
    payload = SystemRestored(
        version=header.version, backup_at=header.at, audit_size=report.size, audit_root=report.root
    )
    fact = Fact.of(payload, at=time.time(), actor=RESTORER, subject=RESTORER)
    await ValkeyJournal(client).append([fact])
