"""Deletes what nothing reaches: commits, objects, blobs, updates below snapshots, empty streams.

    report = await collection.collect("study", keep_s=14 * 86_400, dry_run=False)

Everything is marked first, beside everybody's work. Then, under a lock that whoever adds something
holds shared, what came meanwhile is marked too, and what is still unmarked goes in one transaction:
a kill leaves all of it or nothing. An object that others are stored as a difference to stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.marking import Marks
from angelos.angelgit.storage.sql import NamedQueries
from angelos.angelgit.storage.store import COLLECTION_LOCK, Store, Stores
from angelos.core.errors import Busy
from angelos.core.history import CollectionReport
from angelos.core.ids import START
from angelos.core.ports import Clock

_PAGE = 5_000
_RETRY_S = 10.0


class _Garbage(msgspec.Struct):
    """What nothing reaches, with its bytes as stored."""

    commits: set[str]
    objects: dict[bytes, int]
    blobs: dict[bytes, int]


class GarbageCollection:
    """Collects repositories, one at a time."""

    def __init__(self, stores: Stores, live: LiveReplicas, clock: Clock) -> None:
        self._stores = stores
        self._live = live
        self._clock = clock
        self._busy = asyncio.Lock()

    async def collect(self, repo: str, keep_s: float, *, dry_run: bool) -> CollectionReport:
        """Delete what nothing reaches and is older than `keep_s`, or count it.

        Args:
            repo: whose commits may go. Objects and blobs are shared by all repositories.
            keep_s: seconds; what is younger stays.
            dry_run: only count.

        Raises:
            Busy: another collection runs.
            Fenced: another server owns the repository.
            NotFound: there is no such repository.
        """
        if self._busy.locked():
            raise Busy("Another collection runs.", retry_after_s=_RETRY_S)
        async with self._busy:
            marks = Marks(repo, int((self._clock.time() - keep_s) * 1000))
            async with self._stores.begin() as store:
                await store.head(repo, "main")
                await marks.update(store)
                garbage = await _garbage(store, marks, keep_s)
            if not dry_run:
                garbage = await self._delete(repo, marks, keep_s)
            entries, streams = await self._clean_log(repo, dry_run=dry_run)
        return CollectionReport(
            repo=repo,
            dry_run=dry_run,
            commits=len(garbage.commits),
            objects=len(garbage.objects),
            object_bytes=sum(garbage.objects.values()),
            blobs=len(garbage.blobs),
            blob_bytes=sum(garbage.blobs.values()),
            updates=entries,
            streams=streams,
        )

    async def _delete(self, repo: str, marks: Marks, keep_s: float) -> _Garbage:
        async with self._stores.begin() as store:
            sql = NamedQueries(store.connection)
            await sql.one("gc_lock", lock=COLLECTION_LOCK)
            await self._stores.fence(store, repo)
            await marks.update(store)
            garbage = await _garbage(store, marks, keep_s)
            revisions = [bytes.fromhex(revision) for revision in garbage.commits]
            await sql.run("gc_drop_candidates", revisions=revisions)
            await sql.run("gc_drop_git_commits", repo=repo, revisions=revisions)
            await sql.run("gc_drop_commits", repo=repo, revisions=revisions)
            await sql.run("gc_drop_objects", hashes=list(garbage.objects))
            await sql.run("gc_drop_git_ids", hashes=[*garbage.objects, *garbage.blobs])
            await sql.run("gc_drop_blobs", hashes=list(garbage.blobs), keep_s=keep_s)
            await sql.run("gc_drop_remains", repo=repo)
        self._stores.forget_objects()
        return garbage

    # -- the log -----------------------------------------------------------------------------

    async def _clean_log(self, repo: str, *, dry_run: bool) -> tuple[int, int]:
        """Remove updates that snapshots contain, and streams without any; return their numbers."""
        lengths = await self._live.log.lengths(repo)
        updates = streams = 0
        for document, length in lengths.items():
            kept = await self._entries_left(repo, document)
            updates += length - kept
            streams += not kept
            if not dry_run:
                await self._clean_stream(repo, document)
            await asyncio.sleep(0)
        return updates, streams

    async def _entries_left(self, repo: str, document: str) -> int:
        """Return how many entries the snapshot of a document lacks."""
        row = self._live.index.rows.get(document)
        if row is None or not row.alive:
            return 0
        return await self._live.log.count_after(repo, document, row.upto)

    async def _clean_stream(self, repo: str, document: str) -> None:
        async with self._live.lock([document]):
            row = self._live.index.rows.get(document)
            if row is None or not row.alive:
                await self._live.log.drop(repo, document, entries=True)
                return
            await self._live.log.trim(repo, document, row.upto)
            if await self._live.log.count_after(repo, document, START):
                return
            # A new stream may begin at a lower position, where the clock was set back.
            async with self._stores.change(repo) as store:
                await NamedQueries(store.connection).run("gc_rewind", id=document, upto=START)
            self._live.rewind(repo, document)
            await self._live.log.drop(repo, document, entries=False)


async def _garbage(store: Store, marks: Marks, keep_s: float) -> _Garbage:
    """Return what is not marked."""
    sql = NamedQueries(store.connection)
    kept = await asyncio.to_thread(_kept, marks.hashes, await sql.all("gc_bases"))
    objects: dict[bytes, int] = {}
    after = b""
    while page := await sql.all("gc_objects", after=after, limit=_PAGE):
        objects |= {digest: size for digest, size in page if digest not in kept}
        after = page[-1][0]
    rows = await sql.all("gc_blobs", keep_s=keep_s)
    blobs = {digest: size for digest, size in rows if digest not in kept}
    return _Garbage(marks.doomed, objects, blobs)


def _kept(marked: Iterable[str], rows: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    kept = {bytes.fromhex(digest) for digest in marked}
    return kept | _bases({row[0]: row[1] for row in rows}, kept)


def _bases(base_of: dict[bytes, bytes], kept: Iterable[bytes]) -> set[bytes]:
    """Return the objects with which the kept ones are compressed.

    >>> sorted(_bases({b"c": b"b", b"b": b"a", b"x": b"y"}, [b"c"]))
    [b'a', b'b']
    """
    bases: set[bytes] = set()
    for digest in kept:
        base = base_of.get(digest)
        while base is not None and base not in bases:
            bases.add(base)
            base = base_of.get(base)
    return bases
