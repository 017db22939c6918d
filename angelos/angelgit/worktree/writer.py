r"""Writes the live documents of `dev` into their working files, and overwrites nobody's text.

Every write of a file goes through `WorktreeWriter.write`: a room saves, a proposal was merged
while nobody had the document open, a repository is created, the system starts or stops. What
others wrote into the file meanwhile is an edit of its own (decided in `reconcile.py`).

    on disk --look--> decide --take--> log (durable) --> open room, fact `document.edited`
                         |----write--> the file
                         '----aside--> `name.disk-<time>.ext`, then the file

What a file holds by our doing is kept in Postgres, before the file is touched and after, so that
a kill at any moment is told from an edit of somebody else's. An edit that was being taken in
when we were killed is taken in at the next look; taking it in twice is once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.documents import documents
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import WriteRecord, sha256
from angelos.angelgit.storage.store import DocumentRow, Store
from angelos.angelgit.threads import in_thread
from angelos.angelgit.worktree.activity import DocumentActivity
from angelos.angelgit.worktree.files import SETTLE_S, WorkingFiles
from angelos.angelgit.worktree.reconcile import DiskFile, FileDecision, decide
from angelos.core.errors import AngelError, InvalidInput, NotFound
from angelos.core.ports import Clock, LiveDocuments

log = logging.getLogger(__name__)
_TRIES = 5
"""So often a file that changes under our hands is looked at before we come back later."""


class WorktreeWriter:
    """Writes working files; an async context manager, which owns those that have to wait."""

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        files: WorkingFiles,
        rooms: LiveDocuments | None,
        edited: DocumentActivity,
        clock: Clock,
    ) -> None:
        """Take the parts; `rooms` are the documents open in the running server."""
        self._database = database
        self._live = live
        self._files = files
        self._rooms = rooms
        self._activity = edited
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}
        self.waiting: set[tuple[str, str]] = set()
        """Files that somebody is writing; they are looked at again."""
        self._more = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._again(), name="working files")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def write(self, repo: str, path: str) -> str | None:
        """Make a working file and its document the same; return the SHA-256 of the file.

        None if somebody is writing the file; it is looked at again in a moment. Raises
        `NotFound`, `OSError` and what the stores raise.
        """
        document = self._live.document(repo, path)
        async with self._locks.setdefault(document, asyncio.Lock()):
            self.waiting.discard((repo, path))
            for _ in range(_TRIES):
                done = await self._step(repo, path, document)
                if done is not None:
                    return done
                if (repo, path) in self.waiting:
                    return None
        self._wait(repo, path)
        return None

    async def try_write(self, repo: str, path: str) -> None:
        """Print; a file that cannot be written is not worth failing a merge."""
        try:
            await self.write(repo, path)
        except (OSError, AngelError) as error:
            log.warning("the working file %s/%s was not written: %s", repo, path, error)

    async def write_all(
        self, repo: str, rows: Sequence[DocumentRow], texts: dict[str, bytes]
    ) -> None:
        """Print documents; `texts` has, by document, what those without newer edits hold."""
        async with self._database.transaction() as conn:
            known = await Store(conn).write_records([row.id for row in rows])
        fresh: list[DocumentRow] = []
        for row in rows:
            text, before = texts.get(row.id), known.get(row.id)
            disk = await self._look(repo, row.path)
            if text is None or disk is None:
                await self.try_write(repo, row.path)
            elif before is None and disk.kind == "absent":
                fresh.append(row)
            elif before != (WriteRecord(text), None) or disk.content != text or disk.kind != "file":
                await self.try_write(repo, row.path)
        await self._write_new(repo, fresh, texts)

    async def _write_new(
        self, repo: str, rows: Sequence[DocumentRow], texts: dict[str, bytes]
    ) -> None:
        """Write many files that were never there."""
        async with self._database.transaction() as conn:
            await Store(conn).begin_writes([(row.id, texts[row.id], None) for row in rows])
        written: list[str] = []
        for row in rows:
            try:
                put = await asyncio.to_thread(
                    self._files.put, repo, row.path, texts[row.id], row.mode, DiskFile("absent")
                )
            except (OSError, AngelError) as error:
                log.warning("the working file %s/%s was not written: %s", repo, row.path, error)
                continue
            if put:
                written.append(row.id)
            else:
                await self.try_write(repo, row.path)
        async with self._database.transaction() as conn:
            await Store(conn).end_writes(written)

    async def remove(self, repo: str, path: str, document: str, content: str) -> None:
        """Remove the working file of a document that is gone, unless somebody has changed it.

        `content` is the SHA-256 of the document's last text.
        """
        async with self._locks.setdefault(document, asyncio.Lock()):
            async with self._database.transaction() as conn:
                store = Store(conn)
                known, _ = (await store.write_records([document])).get(
                    document, (WriteRecord(), None)
                )
                last = await store.blob(content)
            ours = {body for body in (known.body, known.next, last) if body is not None}
            if not await asyncio.to_thread(self._files.remove, repo, path, ours):
                log.warning("%s/%s is gone; its file was changed on disk and stays", repo, path)
                self._activity.note(f"{repo}:{path}", "deleted", stays=path)
            async with self._database.transaction() as conn:
                await Store(conn).forget_file(document)

    async def tidy(self, repo: str, rows: Sequence[DocumentRow]) -> None:
        """Remove the files of documents that are gone, where we had printed them."""
        async with self._database.transaction() as conn:
            printed = await Store(conn).write_records([row.id for row in rows])
        for row in rows:
            if row.id not in printed:
                continue
            try:
                await self.remove(repo, row.path, row.id, row.sha256)
            except (OSError, AngelError) as error:
                log.warning("the working file %s/%s stays: %s", repo, row.path, error)

    # -- one look ----------------------------------------------------------------------------

    async def _step(self, repo: str, path: str, document: str) -> str | None:
        """Look at a file once and do what there is to do; None: look again."""
        known = await self._finish(repo, path, document)
        disk = await asyncio.to_thread(self._files.look, repo, path)
        taken: bytes | None = None
        async with self._live.hold_path(repo, path) as held:
            if held != document:
                raise NotFound(f"{path!r} was made anew in dev of {repo!r}.")
            replica = await self._live.replica(repo, document, path)
            text, state = replica.text(), replica.state()
            size = len(text) + len(disk.content)
            verdict = await in_thread(size, decide, path, disk, known, text)
            if verdict.do == "take":
                try:
                    taken = await in_thread(size, documents.change, path, state, verdict.text)
                except InvalidInput as error:
                    verdict = FileDecision("aside", why=error.detail)
                else:
                    await self._begin(document, disk.content, taken)
                    await self._absorb(repo, path, document, taken)
        if taken is not None:
            await self._end(document)
            await self._tell(repo, path, taken)
            return None
        if verdict.do == "wait":
            self._wait(repo, path)
            return None
        if verdict.do == "nothing":
            if known != WriteRecord(disk.content):
                await self._begin(document, disk.content)
                await self._end(document)
            return sha256(disk.content)
        return await self._put(repo, path, document, text.encode(), disk, verdict)

    async def _put(
        self,
        repo: str,
        path: str,
        document: str,
        content: bytes,
        disk: DiskFile,
        verdict: FileDecision,
    ) -> str | None:
        mode = self._live.rows[document].mode
        await self._begin(document, content)
        if verdict.do == "aside":
            mark = f"disk-{datetime.fromtimestamp(self._clock.time(), UTC):%Y%m%dT%H%M%SZ}"
            kept = await asyncio.to_thread(self._files.put_aside, repo, path, content, mode, mark)
            log.warning("%s/%s: %s; kept as %s", repo, path, verdict.why, kept)
            self._activity.note(f"{repo}:{path}", "aside", kept=kept, reason=verdict.why)
        elif not await asyncio.to_thread(self._files.put, repo, path, content, mode, disk):
            await self._begin(document, None)
            return None
        elif verdict.why:
            log.warning("%s/%s: %s; it was written again", repo, path, verdict.why)
            self._activity.note(f"{repo}:{path}", "written again", reason=verdict.why)
        await self._end(document)
        return sha256(content)

    async def _finish(self, repo: str, path: str, document: str) -> WriteRecord:
        """Return what we did to a file; finish taking in what we were killed over."""
        async with self._database.transaction() as conn:
            known, taken = (await Store(conn).write_records([document])).get(
                document, (WriteRecord(), None)
            )
        if taken is None:
            return known
        async with self._live.hold([document]):
            await self._absorb(repo, path, document, taken)
        await self._end(document)
        await self._tell(repo, path, taken)
        return WriteRecord(known.next)

    async def _absorb(self, repo: str, path: str, document: str, update: bytes) -> None:
        """Log an edit that came from disk; the document's lock is held."""
        if await self._live.append(repo, {document: (path, update)}, cause="disk"):
            self._live.dirty[repo].add(document)

    async def _tell(self, repo: str, path: str, update: bytes) -> None:
        """Show an edit to those who have the document open, and announce it."""
        log.info("%s/%s was changed on disk; it was taken in", repo, path)
        self._activity.note(f"{repo}:{path}", "taken in", bytes=len(update))
        if self._rooms is not None:
            try:
                await self._rooms.apply(repo, path, update)
            except Exception:
                log.exception("the open room of %s/%s did not take an update", repo, path)

    async def _begin(self, document: str, body: bytes | None, taken: bytes | None = None) -> None:
        async with self._database.transaction() as conn:
            await Store(conn).begin_writes([(document, body, taken)])

    async def _end(self, document: str) -> None:
        async with self._database.transaction() as conn:
            await Store(conn).end_writes([document])

    async def _look(self, repo: str, path: str) -> DiskFile | None:
        try:
            return await asyncio.to_thread(self._files.look, repo, path)
        except (OSError, AngelError):
            return None  # the print itself says why

    # -- files that have to wait -------------------------------------------------------------

    def _wait(self, repo: str, path: str) -> None:
        self.waiting.add((repo, path))
        self._more.set()

    async def _again(self) -> None:
        while True:
            await self._more.wait()
            await asyncio.sleep(SETTLE_S)
            self._more.clear()
            waiting, self.waiting = self.waiting, set()
            for repo, path in sorted(waiting):
                if self._live.has(repo, path):
                    await self.try_write(repo, path)
