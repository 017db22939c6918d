"""Follows the journal and records the spans of both roads.

async with RoadTraces(journal, recorder):
    ...
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from types import TracebackType
from typing import Any, Protocol, Self, cast

from angelos.adapters.host.endless import endless
from angelos.core.errors import AngelError
from angelos.core.facts import EPHEMERAL, Kind
from angelos.core.ids import START, Offset
from angelos.core.ports import Journal
from angelos.core.tracing import TraceContext, TraceSpan
from angelos.wiring.tracing.spans import FactSpans

log = logging.getLogger(__name__)
_RETRY_S = 1.0
_ROADS = ("task.", "proposal.", "checkout.")
KINDS = frozenset(kind for kind in Kind if kind.startswith(_ROADS)) - EPHEMERAL
"""What is followed."""


class RoadRecorder(Protocol):
    """Takes spans, and knows where the work on a subject began."""

    def record(self, span: TraceSpan) -> None:
        """Take one span."""
        ...

    def origin(self, subject: str) -> TraceContext | None:
        """Return under which span the work on a subject began, once."""
        ...


class RoadTraces:
    """One task that makes spans from facts.

    Args:
        journal: Followed from its present end.
        recorder: Takes the spans.
    """

    def __init__(self, journal: Journal, recorder: RoadRecorder) -> None:
        self._journal = journal
        self._recorder = recorder
        self._spans = FactSpans()
        self._after: Offset = START
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._after = await self._journal.last()
        self._task = endless("traces", self._follow)
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

    async def _follow(self) -> None:
        while True:
            facts = cast("Any", self._journal.follow(self._after, KINDS))
            try:
                async with aclosing(facts) as following:
                    async for fact in following:
                        self._after = fact.offset
                        for span in self._spans.note(fact, self._recorder.origin(fact.subject)):
                            self._recorder.record(span)
            except (AngelError, OSError) as error:
                log.warning("Traces wait for the journal: %s", error)
            await asyncio.sleep(_RETRY_S)
