r"""Writes the live documents of `dev` into their working files, and overwrites nobody's text.

Every write of a file goes through `WorktreeWriter.write`: a room saves, a proposal was merged
while nobody had the document open, a repository is created, the system starts or stops. What
others wrote into the file meanwhile is an edit of its own (decided in `reconcile.py`).

    on disk --look--> decide --take-in----> log (durable) --> open room, fact `document.edited`
                         |----write------> the file
                         '----set-aside--> `name.disk-<time>.ext`, then the file

What AngelGit writes is recorded in PostgreSQL before the file is touched and after it. So after a
kill at any moment its own writes are distinguished from edits by others. An edit that was being
taken in at the kill is taken in at the next look; applying its update twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Self

from angelos.adapters.host.endless import endless
from angelos.adapters.stores.postgres import Connection, Database
from angelos.angelgit.documents import crdt
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import DISK, DocumentRow, WriteRecord, sha256
from angelos.angelgit.storage.working_files import WorkingFileRecords, WriteIntent
from angelos.angelgit.threads import in_thread
from angelos.angelgit.worktree.activity import DocumentActivity, FileOutcome
from angelos.angelgit.worktree.files import SETTLE_S, WorkingFiles
from angelos.angelgit.worktree.reconcile import (
    DiskFile,
    FileAction,
    FileDecision,
    FileKind,
    decide,
)
from angelos.core.errors import AngelError, InvalidInput, NotFound
from angelos.core.facts import DocumentEdited
from angelos.core.ids import DocumentId
from angelos.core.ports import Clock, LiveDocuments

log = logging.getLogger(__name__)
_TRIES = 5
"""How often a file that keeps changing is looked at before it has to wait."""


class WorktreeWriter:
    """Writes working files; an async context manager, which retries those that have to wait.

    Args:
        database: what was written is recorded there.
        live: the documents.
        files: the folder.
        rooms: that are open in the running server.
        activity: announces edits on disk.
        clock: names what is set aside.
        workspace: the folder's id among all servers'.
    """

    def __init__(
        self,
        database: Database,
        live: LiveReplicas,
        files: WorkingFiles,
        rooms: LiveDocuments | None,
        activity: DocumentActivity,
        clock: Clock,
        workspace: str,
    ) -> None:
        self._database = database
        self._live = live
        self._files = files
        self._rooms = rooms
        self._activity = activity
        self._clock = clock
        self._workspace = workspace
        self._locks: dict[str, asyncio.Lock] = {}
        self.waiting: set[tuple[str, str]] = set()
        """(Repository, path) of files that somebody is writing; they are looked at again."""
        self._retry_needed = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = endless("working files", self._retry)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def _records(self, conn: Connection) -> WorkingFileRecords:
        return WorkingFileRecords(conn, self._workspace)

    async def write(self, repo: str, path: str) -> str | None:
        """Make a working file and its document equal.

        Args:
            repo: the repository's name.
            path: the file's path in it.

        Returns:
            The SHA-256 of the file; None if somebody is writing it, and it has to wait.

        Raises:
            NotFound: `dev` has no such file.
            OSError: the file cannot be written.
            Refused: a link leads out of the workspace.
            Unavailable: a store does not answer.
        """
        document = self._live.index.document(repo, path)
        async with self._locks.setdefault(document, asyncio.Lock()):
            self.waiting.discard((repo, path))
            for _ in range(_TRIES):
                sha = await self._reconcile(repo, path, document)
                if sha is not None:
                    return sha
                if (repo, path) in self.waiting:
                    return None
        self._wait(repo, path)
        return None

    async def try_write(self, repo: str, path: str) -> None:
        """Write a file, or log why that failed: a merge does not fail for a working file."""
        try:
            await self.write(repo, path)
        except (OSError, AngelError) as error:
            log.warning("the working file %s/%s was not written: %s", repo, path, error)

    async def write_all(
        self, repo: str, rows: Sequence[DocumentRow], texts: dict[str, bytes]
    ) -> None:
        """Write the files of documents that differ from them.

        Args:
            repo: the repository's name.
            rows: the documents.
            texts: document -> its text, of those without edits since their snapshot.
        """
        async with self._database.transaction() as conn:
            records = await self._records(conn).find([row.id for row in rows])
        new: list[DocumentRow] = []
        for row in rows:
            text, record = texts.get(row.id), records.get(row.id)
            disk = await self._look(repo, row.path)
            if text is None or disk is None:
                await self.try_write(repo, row.path)
            elif record is None and disk.kind is FileKind.absent:
                new.append(row)
            elif record != (WriteRecord(text), None) or (
                disk.kind is not FileKind.file or disk.content != text
            ):
                await self.try_write(repo, row.path)
        await self._write_new(repo, new, texts)

    async def _write_new(
        self, repo: str, rows: Sequence[DocumentRow], texts: dict[str, bytes]
    ) -> None:
        """Write many files that have never been written, with one record for all of them."""
        async with self._database.transaction() as conn:
            await self._records(conn).begin(WriteIntent(row.id, texts[row.id]) for row in rows)
        written: list[str] = []
        absent = DiskFile(FileKind.absent)
        for row in rows:
            try:
                put = await asyncio.to_thread(
                    self._files.put, repo, row.path, texts[row.id], row.mode, absent
                )
            except (OSError, AngelError) as error:
                log.warning("the working file %s/%s was not written: %s", repo, row.path, error)
                continue
            if put:
                written.append(row.id)
            else:
                await self.try_write(repo, row.path)
        async with self._database.transaction() as conn:
            await self._records(conn).end(written)

    async def remove(self, repo: str, path: str, document: str) -> None:
        """Remove the working file of a deleted document, unless somebody has changed it.

        Args:
            repo: the repository's name.
            path: the file's path in it.
            document: the document's id.
        """
        async with self._locks.setdefault(document, asyncio.Lock()):
            async with self._database.transaction() as conn:
                record, _ = (await self._records(conn).find([document])).get(
                    document, (WriteRecord(), None)
                )
            ours = {c for c in (record.content, record.intended) if c is not None}
            if not await asyncio.to_thread(self._files.remove, repo, path, ours):
                log.warning("%s/%s was deleted; its file was changed on disk and stays", repo, path)
                self._activity.note(f"{repo}:{path}", FileOutcome.stays, DocumentEdited(stays=path))
            async with self._database.transaction() as conn:
                await self._records(conn).forget(document)

    async def remove_deleted(self, repo: str, rows: Sequence[DocumentRow]) -> None:
        """Remove the files of deleted documents, where AngelGit wrote them."""
        async with self._database.transaction() as conn:
            records = await self._records(conn).find([row.id for row in rows])
        for row in rows:
            if row.id not in records:
                continue
            try:
                await self.remove(repo, row.path, row.id)
            except (OSError, AngelError) as error:
                log.warning("the working file %s/%s stays: %s", repo, row.path, error)

    # -- one look ----------------------------------------------------------------------------

    async def _reconcile(self, repo: str, path: str, document: str) -> str | None:
        """Look at a file once and do what `decide` says; None: look again."""
        record = await self._finish_edit(repo, path, document)
        disk = await asyncio.to_thread(self._files.look, repo, path)
        edit: bytes | None = None
        async with self._live.lock_path(repo, path) as locked:
            if locked != document:
                raise NotFound(f"{path!r} was recreated in dev of {repo!r}.")
            replica = await self._live.replica(repo, document, path)
            text, state = replica.text(), replica.state()
            size = len(text) + len(disk.content)
            decision = await in_thread(size, decide, path, disk, record, text)
            if decision.action is FileAction.take_in:
                try:
                    edit = await in_thread(size, crdt.change, path, state, decision.text)
                except InvalidInput as error:
                    decision = FileDecision(FileAction.set_aside, reason=error.detail)
                else:
                    # The update is stored before it is logged: computed again after a kill it
                    # would be another client's, and its text would be there twice.
                    await self._begin(document, disk.content, edit)
                    await self._log_edit(repo, path, document, edit)
        if edit is not None:
            await self._end(document)
            await self._publish_edit(repo, path, document, edit)
            return None
        if decision.action is FileAction.wait:
            self._wait(repo, path)
            return None
        if decision.action is FileAction.nothing:
            if record != WriteRecord(disk.content):
                await self._begin(document, disk.content)
                await self._end(document)
            return sha256(disk.content)
        return await self._put(repo, path, document, text.encode(), disk, decision)

    async def _put(
        self,
        repo: str,
        path: str,
        document: str,
        content: bytes,
        disk: DiskFile,
        decision: FileDecision,
    ) -> str | None:
        """Write `content`; return its SHA-256, None if the file is no longer as `disk`."""
        mode = self._live.index.rows[document].mode
        await self._begin(document, content)
        if decision.action is FileAction.set_aside:
            mark = f"disk-{datetime.fromtimestamp(self._clock.time(), UTC):%Y%m%dT%H%M%SZ}"
            copy = await asyncio.to_thread(self._files.put_aside, repo, path, content, mode, mark)
            log.warning("%s/%s: %s; kept as %s", repo, path, decision.reason, copy)
            edited = DocumentEdited(copy=copy, reason=decision.reason)
            self._activity.note(f"{repo}:{path}", FileOutcome.set_aside, edited)
        elif not await asyncio.to_thread(self._files.put, repo, path, content, mode, disk):
            await self._begin(document, None)
            return None
        elif decision.action is FileAction.restore:
            log.warning("%s/%s: %s; it was written again", repo, path, decision.reason)
            edited = DocumentEdited(reason=decision.reason)
            self._activity.note(f"{repo}:{path}", FileOutcome.restored, edited)
        await self._end(document)
        return sha256(content)

    async def _finish_edit(self, repo: str, path: str, document: str) -> WriteRecord:
        """Finish an edit that was being taken in at a kill; return the record of the file."""
        async with self._database.transaction() as conn:
            record, edit = (await self._records(conn).find([document])).get(
                document, (WriteRecord(), None)
            )
        if edit is None:
            return record
        async with self._live.lock([document]):
            await self._log_edit(repo, path, document, edit)
        await self._end(document)
        await self._publish_edit(repo, path, document, edit)
        return WriteRecord(record.intended)

    async def _log_edit(self, repo: str, path: str, document: str, update: bytes) -> None:
        """Log an edit that came from disk; the caller holds the document's lock."""
        if await self._live.append(repo, {document: (path, update)}, cause="disk", author=DISK):
            self._live.index.mark_dirty(repo, document)

    async def _publish_edit(self, repo: str, path: str, document: str, update: bytes) -> None:
        """Send an edit to the open room of the document, and announce it."""
        log.info("%s/%s was changed on disk; the edit was taken in", repo, path)
        self._activity.note(
            f"{repo}:{path}", FileOutcome.taken_in, DocumentEdited(bytes=len(update))
        )
        if self._rooms is not None:
            try:
                await self._rooms.apply(DocumentId(document), update)
            except Exception:
                log.exception("the open room of %s/%s did not take an update", repo, path)

    async def _begin(self, document: str, content: bytes | None, edit: bytes | None = None) -> None:
        async with self._database.transaction() as conn:
            await self._records(conn).begin([WriteIntent(document, content, edit)])

    async def _end(self, document: str) -> None:
        async with self._database.transaction() as conn:
            await self._records(conn).end([document])

    async def _look(self, repo: str, path: str) -> DiskFile | None:
        try:
            return await asyncio.to_thread(self._files.look, repo, path)
        except (OSError, AngelError):
            return None  # the write itself reports why

    # -- files that have to wait -------------------------------------------------------------

    def _wait(self, repo: str, path: str) -> None:
        self.waiting.add((repo, path))
        self._retry_needed.set()

    async def _retry(self) -> None:
        while True:
            await self._retry_needed.wait()
            await asyncio.sleep(SETTLE_S)
            self._retry_needed.clear()
            waiting, self.waiting = self.waiting, set()
            for repo, path in sorted(waiting):
                if self._live.index.exists(repo, path):
                    await self.try_write(repo, path)
