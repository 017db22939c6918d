"""The fold of the journal, kept current: append facts, and wait for what they bring about.

    await projection.append(projection.fact(TaskCancelled(reason="asked"), task))
    await projection.until(lambda state: not state.tasks[task].open, subject=task, timeout_s=20)

`append` returns when the facts have come back from the journal and are folded, so the caller sees
them in `state`.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Unpack

from angelos.control.config import ControlConfig
from angelos.control.state.decide import KINDS, decide, fold
from angelos.control.state.effects import Effect
from angelos.control.state.models import SUPERVISOR, ControlState, replace
from angelos.control.state.snapshot import packed, unpacked, version_of_fold
from angelos.control.state.tasks import admitted
from angelos.core.errors import AngelError, InvalidInput, Unavailable
from angelos.core.facts import Fact, FactHeader, FactPayload
from angelos.core.ids import START, FactId, Offset, PrincipalId, offset_key
from angelos.core.ports import Clock, Journal
from angelos.core.snapshots import FoldSnapshots, SavedFold
from angelos.core.tracing import began, span_of, traced

log = logging.getLogger(__name__)
_NAME = "control"


class Projection:
    """Holds the state of control; one task keeps it current from the journal."""

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        config: ControlConfig,
        snapshots: FoldSnapshots | None = None,
    ) -> None:
        """Start empty; `load` reads what is there."""
        self.state = ControlState(offset=START)
        self.clock = clock
        self._journal = journal
        self.config = config
        self._snapshots = snapshots
        self._waiters: dict[str, set[asyncio.Future[None]]] = {}
        self._awaited: list[tuple[tuple[int, int], int, asyncio.Future[None]]] = []
        """Who waits for an offset, a heap by it."""
        self._number = itertools.count()
        self.unsaved = 0
        """How many facts were folded since the last snapshot."""

    async def load(self) -> None:
        """Fold everything in the journal, a page at a time, from the last snapshot on."""
        await self._load_snapshot()
        while True:
            facts = await self._journal.read(self.state.offset, self.config.page, KINDS)
            for fact in facts:
                self._fold(fact)
            if not facts:
                return

    async def save(self) -> None:
        """Save a snapshot of the state as it is now, for the next start.

        Raises:
            Tampered: The audit log was tampered with; nothing is saved.
            Unavailable: A store does not answer.
        """
        if self._snapshots is None or self.state.offset == START:
            return
        state, unsaved = self.state, self.unsaved
        body, version = await asyncio.to_thread(lambda: (packed(state), version_of_fold()))
        await self._snapshots.save(_NAME, version, SavedFold(state.offset, body))
        self.unsaved -= unsaved

    async def _load_snapshot(self) -> None:
        if self._snapshots is None:
            return
        saved = await self._snapshots.load(_NAME, await asyncio.to_thread(version_of_fold))
        state = saved and await asyncio.to_thread(unpacked, saved.body)
        if state is not None:
            self.state = state

    async def follow(self, on_effects: Callable[[list[Effect]], None]) -> None:
        """Fold new facts, for ever, and hand on the effects that they make necessary."""
        pause = self.config.retry_s
        while True:
            try:
                async for fact in self._journal.follow(self.state.offset, KINDS):
                    pause = self.config.retry_s
                    if self._fold(fact):
                        with following(fact):  # the effects are tasks of this context
                            on_effects(decide(self.state, fact))
                    self._wake(fact.subject)
                    self._reach(fact.offset)
            except (AngelError, OSError) as error:
                log.warning("The journal cannot be followed, trying again: %s", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, self.config.retry_max_s)

    def admitted(self, fact: Fact) -> Fact | None:
        """Return what is written down for a node's fact (`core.ports.Admission`).

        Before `load`, no fact about a task is: there are no open tasks yet.
        """
        return admitted(self.state, fact)

    def folds(self, kind: str) -> bool:
        """Return whether facts of this kind are folded (`core.ports.Admission`)."""
        return kind in KINDS

    async def folded(self, offset: Offset) -> None:
        """Return when the fact at `offset`, of a kind that is folded, is (`core.ports.Admission`).

        Where the journal does not hand it out, whoever waits goes on waiting, and sends nothing.
        """
        place = offset_key(offset)
        if offset_key(self.state.offset) >= place:
            return
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._awaited, (place, next(self._number), waiter))
        await waiter

    async def catch_up(self) -> None:
        """Wait until all that the journal has now is folded (`core.ports.Admission`).

        Raises:
            Unavailable: It is not in time.
        """
        end = offset_key(await self._journal.last())
        while page := await self._journal.read(self.state.offset, self.config.page, KINDS):
            last = min(end, offset_key(page[-1].offset))
            if offset_key(page[0].offset) > end:
                return
            if not await self.until(
                lambda state, last=last: offset_key(state.offset) >= last,
                timeout_s=self.config.fold_wait_s,
            ):
                raise Unavailable(
                    "What happened last is not known here yet.",
                    hint="Nothing is lost: what was not acknowledged is sent again.",
                )

    def fact(
        self,
        payload: FactPayload,
        subject: str,
        actor: PrincipalId = SUPERVISOR,
        *,
        key: str = "",
        **header: Unpack[FactHeader],
    ) -> Fact:
        """Return the fact that `payload` is, as of now.

        With the same `key` (32 hex digits) it is the same fact, which the journal keeps once.
        """
        if key:
            header["id"] = FactId(f"fact-{key}")
        return Fact.of(payload, at=self.clock.time(), actor=actor, subject=subject, **header)

    async def append(self, *facts: Fact) -> None:
        """Append facts and wait until they are folded.

        Raises:
            Unavailable: The journal has them but does not hand them out in time.
        """
        for fact in facts:
            began(fact.subject)
        offsets = await self._journal.append(facts)
        last = max(map(offset_key, offsets))
        folded = await self.until(
            lambda state: offset_key(state.offset) >= last,
            timeout_s=self.config.fold_wait_s,
        )
        if not folded:
            raise Unavailable(
                "The journal took the facts but does not hand them out again.",
                hint="The facts are kept and take effect when the journal is back.",
            )

    async def until(
        self,
        done: Callable[[ControlState], bool],
        *,
        subject: str = "",
        timeout_s: float | None = None,
    ) -> bool:
        """Wait until `done`, which is asked again after each fact about `subject` (or any).

        Returns:
            Whether it is done; False when `timeout_s` passed first.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout_s is None else loop.time() + timeout_s
        while not done(self.state):
            waiter = loop.create_future()
            self._waiters.setdefault(subject, set()).add(waiter)
            try:
                # Not asyncio.wait_for, which before Python 3.12 may swallow a cancellation.
                async with asyncio.timeout_at(end):
                    await waiter
            except TimeoutError:
                return done(self.state)
            finally:
                self._forget(subject, waiter)
        return True

    def _forget(self, subject: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(subject)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[subject]

    def _reach(self, offset: Offset) -> None:
        while self._awaited and self._awaited[0][0] <= offset_key(offset):
            _, _, waiter = heapq.heappop(self._awaited)
            if not waiter.done():
                waiter.set_result(None)

    def _wake(self, subject: str) -> None:
        for key in {"", subject}:
            for waiter in self._waiters.pop(key, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _fold(self, fact: Fact) -> bool:
        """Fold one fact; skip a malformed one and name it in the log."""
        self.unsaved += 1
        try:
            self.state = fold(self.state, fact)
        except InvalidInput as error:
            log.warning("Fact %s (%s) is malformed and skipped: %s", fact.id, fact.kind, error)
            self.state = replace(self.state, offset=fact.offset)
            return False
        return True


def following(fact: Fact) -> AbstractContextManager[None]:
    """Return the context of what a fact brings about: its trace, below its task or proposal."""
    below = fact.trace and fact.subject.startswith(("task-", "prop-"))
    return traced(fact.trace, span_of(fact.trace, fact.subject) if below else "")
