"""`document.edited` facts: that people type, told now and then, not key by key."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Self

from angelos.angelgit.models import ROOM
from angelos.core.errors import AngelError
from angelos.core.ids import new_fact_id
from angelos.core.messages import Fact, Kind
from angelos.core.ports import Clock, Journal

log = logging.getLogger(__name__)
_EVERY_S = 0.2


class EditedFacts:
    """Adds up what is typed and appends one fact per document and moment."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Take where facts go."""
        self._journal = journal
        self._clock = clock
        self._bytes: Counter[str] = Counter()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tell(), name="document.edited")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def add(self, subject: str, size: int) -> None:
        """Note that so many bytes of edits came for `<repo>:<path>`."""
        self._bytes[subject] += size
        self._more.set()

    async def _tell(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            edits, self._bytes = self._bytes, Counter()
            now = self._clock.time()
            facts = [
                Fact(
                    id=new_fact_id(int(now * 1000)), at=now, actor=ROOM,
                    kind=Kind.document_edited, subject=subject, data={"bytes": size},
                )
                for subject, size in edits.items()
            ]  # fmt: skip
            try:
                await self._journal.append(facts)
            except AngelError as error:
                log.warning("edits were not announced: %s", error)
            await asyncio.sleep(_EVERY_S)
