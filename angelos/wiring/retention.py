"""Removes what is older or more than the settings keep, in small steps beside the work.

    async with Retention(kept, clock, config) as retention:
        retention.view()            # what there is, what was removed, when it was last seen to

The journal loses what is too old or too much, behind the audit log; tasks lose their outputs, and
files of tasks are forgotten. The log itself and the repositories stay. While the log is damaged
nothing is removed: it may be evidence.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import msgspec

from angelos.adapters.host.endless import endless
from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.control.tasks.contents import Contents
from angelos.core.api import RetentionView
from angelos.core.errors import AngelError
from angelos.core.facts import Fact, OutputsExpired
from angelos.core.ids import FactId, PrincipalId
from angelos.core.ports import Clock
from angelos.core.retention import Due, RetentionConfig, due
from angelos.governance.log.store import AuditStore, Expiring

log = logging.getLogger(__name__)
RETENTION = PrincipalId("system/retention")
EVERY_S = 60.0
_PAUSE_S = 0.05
"""Between two steps, for everybody else who asks the stores."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What things are removed from."""

    journal: ValkeyJournal
    audit: AuditStore
    contents: Contents
    damaged: Callable[[], bool]
    """Whether the audit log is damaged."""


class Retention:
    """Sees to it again and again; `async with` owns the task.

    Args:
        kept: What things are removed from.
        clock: Time.
        config: What is kept.
        every_s: The pause between two times.
    """

    def __init__(
        self, kept: Kept, clock: Clock, config: RetentionConfig, every_s: float = EVERY_S
    ) -> None:
        self._kept = kept
        self._clock = clock
        self._config = config
        self._every_s = every_s
        self._view = RetentionView(
            journal_days=config.journal_days,
            journal_mb=config.journal_mb,
            outputs_days=config.outputs_days,
            files_days=config.files_days,
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = endless("retention", self._run)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def view(self) -> RetentionView:
        """Return how much there is, and what was removed since the server started."""
        return self._view

    async def _run(self) -> None:
        while True:
            try:
                await self.remove()
            except Exception as error:
                known = isinstance(error, AngelError)
                log.warning("Nothing was removed: %s", error, exc_info=not known)
                self._note(problem=str(error) or type(error).__name__)
            await asyncio.sleep(self._every_s)

    async def remove(self) -> None:
        """Remove what is due now.

        Raises:
            Unavailable: A store does not answer; what is due stays due.
        """
        if not self._kept.damaged():
            what = due(self._config, self._clock.time())
            await self._trim(what)
            await self._expire(what)
            await self._clear(what)
        extent = await self._kept.journal.extent()
        self._note(
            at=self._clock.time(),
            journal_facts=extent.facts,
            journal_bytes=extent.bytes,
            journal_oldest_at=extent.oldest_at,
            problem="The audit log is damaged: nothing is removed until a person has accepted it."
            if self._kept.damaged()
            else "",
        )

    async def _trim(self, what: Due) -> None:
        while count := await self._kept.journal.trim(what.journal_before, what.journal_bytes):
            self._note(facts_removed=self._view.facts_removed + count)
            await asyncio.sleep(_PAUSE_S)

    async def _expire(self, what: Due) -> None:
        """Erase the outputs of tasks that ended long ago, after a fact says so."""
        if what.outputs_before is None:
            return
        rest: Expiring | None = await self._kept.audit.expiring(what.outputs_before)
        if rest is None:
            return
        digest = hashlib.sha256(f"outputs.expired {rest.origin} {rest.offset}".encode()).hexdigest()
        fact = Fact.of(
            OutputsExpired(upto=rest.offset, days=self._config.outputs_days),
            id=FactId(f"fact-{digest[:32]}"),
            at=self._clock.time(),
            actor=RETENTION,
            subject=rest.origin,
        )
        await self._kept.journal.append([fact])
        while rest is not None:
            count, rest = await self._kept.audit.expire(rest)
            self._note(outputs_expired=self._view.outputs_expired + count)
            await asyncio.sleep(_PAUSE_S)

    async def _clear(self, what: Due) -> None:
        while count := await self._kept.contents.clear(what.files_before):
            self._note(files_removed=self._view.files_removed + count)
            await asyncio.sleep(_PAUSE_S)

    def _note(self, **changes: object) -> None:
        self._view = msgspec.structs.replace(self._view, **changes)
