"""Governance at work: projects the journal into the log, signs, watches and quarantines.

Four tasks: one reads the journal into a bounded queue, one writes batches from it, one signs
when entries are waiting, and one folds facts into `state.WatchState` and carries its effects out.
While a store is away they wait for it; no fact is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Any, Protocol, Self, TypeVar

from angelos.adapters.stores.postgres import Database
from angelos.core.errors import AngelError, Tampered, Unavailable
from angelos.core.facts import Fact, PrincipalFlagged
from angelos.core.ids import START, Offset, PrincipalId, offset_key
from angelos.core.ports import Clock, Journal, Signals
from angelos.core.signing import SigningKey
from angelos.governance.checkpoint import Checkpoint
from angelos.governance.config import GovernanceConfig
from angelos.governance.models import ExportCheckpoint, ExportEntry, export_lines, line_of
from angelos.governance.state import (
    WATCHED,
    Effect,
    FlagRequest,
    QuarantineRequest,
    WatchState,
    owed,
    step,
)
from angelos.governance.store import REPAIR, AuditStore, EntryRow, Signed

log = logging.getLogger(__name__)
T = TypeVar("T")

ME = PrincipalId("system/governance")
_PAGE = 1_000
_PIECE_BYTES = 65_536
_RETRY_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class Trim(Protocol):
    """`ValkeyJournal.trim`: removes facts that the audit log has."""

    async def __call__(self) -> int:
        """Return how many facts were removed."""
        ...


class Governance:
    """The audit log and the watch over principals."""

    def __init__(
        self,
        journal: Journal,
        database: Database,
        log_key: SigningKey,
        clock: Clock,
        signals: Signals,
        config: GovernanceConfig | None = None,
        *,
        trim: Trim | None = None,
    ) -> None:
        self.key = log_key.public
        self._journal = journal
        self._store = AuditStore(database, log_key)
        self._clock = clock
        self._signals = signals
        self._config = config or GovernanceConfig()
        self._trim = trim
        self._facts: asyncio.Queue[Fact] = asyncio.Queue(maxsize=2 * self._config.batch)
        self._projected = START
        self._size = 0
        self._progress = asyncio.Condition()
        self._due = asyncio.Event()
        self._signing = asyncio.Lock()
        self._last_signed: Checkpoint | None = None
        self._ended: AngelError | None = None
        """Why the log takes no more facts."""
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Verify the log against its last checkpoint, then start; raise `Tampered`."""
        self._last_signed = await self._store.check()
        head = await self._store.head()
        self._projected, self._size = head.offset, head.tree.size
        for work in (self._read(head.offset), self._write()):
            self._tasks.append(asyncio.create_task(self._guarded(work, keeps_log=True)))
        for work in (self._sign_often(), self._watch_on()):
            self._tasks.append(asyncio.create_task(self._guarded(work, keeps_log=False)))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Take the last facts into the log, sign it, and end.

        What a store that is away holds up is taken at the next start.
        """
        try:
            async with asyncio.timeout(self._config.settle_s):
                await self.settled(await self._journal.last())
        except (Unavailable, Tampered, TimeoutError) as error:
            log.warning("the last facts are not in the audit log yet: %s", error or "no time")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        with contextlib.suppress(Unavailable, Tampered):
            await self._sign()

    async def settled(self, offset: Offset) -> None:
        """Wait until every fact up to `offset` is in the log.

        Raises:
            Tampered: The log was tampered with and takes no more facts.
            Unavailable: The log takes no more facts for another reason.
        """
        goal = offset_key(offset)
        async with self._progress:
            await self._progress.wait_for(
                lambda: self._ended is not None or offset_key(self._projected) >= goal
            )
        if self._ended is not None and offset_key(self._projected) < goal:
            raise type(self._ended)(self._ended.detail, hint=self._ended.hint) from self._ended

    async def checkpoint(self) -> Signed:
        """Return a checkpoint that covers everything in the journal now."""
        await self.settled(await self._journal.last())
        return await self._sign()

    async def entries(self, after: int, limit: int) -> list[EntryRow]:
        """Return at most `limit` entries whose index is over `after`."""
        return await self._store.entries(after, limit)

    async def export(self) -> AsyncGenerator[bytes, None]:
        """Yield an export of everything in the journal now, in pieces of whole lines.

        At most one page of the log is held at once, however long the log is.
        """
        piece = bytearray()
        async with aclosing(self._lines()) as lines:
            async for line in lines:
                piece += line
                if len(piece) >= _PIECE_BYTES:
                    yield bytes(piece)
                    piece.clear()
        yield bytes(piece)

    async def _lines(self) -> AsyncGenerator[bytes, None]:
        size, limit = (await self.checkpoint()).checkpoint.size, self._config.export_page
        for line in export_lines(self.key, (), ()):
            yield line
        after = -1
        while notes := await self._store.notes(after, size, limit):
            for after, note in notes:  # noqa: B007 - the next page follows the last one
                yield line_of(ExportCheckpoint(note))
        after = -1
        while after < size - 1:
            page = await self._store.entries(after, min(limit, size - 1 - after))
            if not page:
                raise Tampered(f"Entry {after + 1} of the audit log is missing.")
            after = page[-1].index
            page.reverse()
            while page:  # each is released when it is sent
                yield line_of(_line_of(page.pop()))

    # -- the four tasks ----------------------------------------------------------------------

    async def _read(self, after: Offset) -> None:
        async for fact in self._journal.follow(after):
            await self._facts.put(fact)

    async def _write(self) -> None:
        while True:
            batch = [await self._facts.get()]
            while len(batch) < self._config.batch and not self._facts.empty():
                batch.append(self._facts.get_nowait())
            head = await _retried(lambda batch=batch: self._store.project(batch))
            async with self._progress:
                self._projected, self._size = head.offset, head.tree.size
                self._progress.notify_all()
            if self._unsigned() >= self._config.checkpoint_entries:
                self._due.set()

    async def _sign_often(self) -> None:
        while True:
            # Not asyncio.wait_for, which before Python 3.12 may swallow a cancellation.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.checkpoint_every_s):
                    await self._due.wait()
            self._due.clear()
            if self._unsigned():
                await _retried(self._sign)
            if self._trim is not None:
                await _retried(self._trim)

    async def _sign(self) -> Signed:
        async with self._signing:
            signed = await self._store.sign(self._clock.time(), self._last_signed)
            self._last_signed = signed.checkpoint
            return signed

    def _unsigned(self) -> int:
        return self._size - (self._last_signed.size if self._last_signed else 0)

    async def _watch_on(self) -> None:
        """Watch for ever; after a failure start again, and request what is still owed again."""
        while True:
            try:
                await self._watch()
            except Tampered:
                raise
            except Exception:
                log.critical("the watch over principals failed and starts again", exc_info=True)
                await asyncio.sleep(_RETRY_S[-1])

    async def _watch(self) -> None:
        watch, effects, after = WatchState(), [], START
        last = await _retried(self._journal.last)
        # The past is folded first: most of what it asks for was settled long ago.
        while page := await _retried(
            lambda after=after: self._journal.read(after, _PAGE, kinds=WATCHED)
        ):
            for fact in page:
                watch, more = step(watch, fact, self._config)
                effects += more
            after = page[-1].offset
        await self._carry_out(owed(watch, effects))
        async for fact in self._journal.follow(max(after, last, key=offset_key), kinds=WATCHED):
            watch, effects = step(watch, fact, self._config)
            await self._carry_out(effects)

    async def _carry_out(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, QuarantineRequest):
                log.warning("quarantine of %s: it %s", effect.principal, effect.reason)
                await _retried(
                    lambda e=effect: self._signals.quarantine(e.principal, f"It {e.reason}.")
                )
            else:
                await _retried(lambda e=effect: self._journal.append([self._flag(e)]))

    def _flag(self, flag: FlagRequest) -> Fact:
        return Fact.of(
            PrincipalFlagged(reason=flag.reason, evidence=flag.evidence),
            id=flag.id,
            at=self._clock.time(),
            actor=ME,
            subject=flag.principal,
        )

    async def _guarded(self, work: Coroutine[Any, Any, None], *, keeps_log: bool) -> None:
        """Let one task fail loudly and the others continue: an unsigned log still grows."""
        try:
            await work
        except Tampered as error:
            log.critical("the audit log was tampered with; nothing is signed", exc_info=True)
            ended: AngelError = Tampered(error.detail, hint=error.hint or REPAIR)
        except Exception:
            log.critical("a task of governance failed", exc_info=True)
            ended = Unavailable("The audit log takes no more facts.", hint="See the server's log.")
        else:
            return
        if keeps_log:
            self._ended = ended
            async with self._progress:
                self._progress.notify_all()


def _line_of(row: EntryRow) -> ExportEntry:
    return ExportEntry(row.index, row.body, row.leaf.hex())


async def _retried(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of `ask`, retrying as long as a store is away."""
    tries = 0
    while True:
        try:
            return await ask()
        except Unavailable as error:
            if tries == 0:
                log.warning("%s Trying again.", error)
            await asyncio.sleep(_RETRY_S[min(tries, len(_RETRY_S) - 1)])
            tries += 1
