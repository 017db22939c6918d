"""`document.edited` facts: that people type, told now and then, not key by key.

What came from working files on disk is told by `note`, each time: outcome `taken in`, `aside`
(data: `kept`, the path of the copy, and `reason`), `written again` or `deleted`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from typing import Any, Self

from angelos.angelgit.storage.models import DISK, ROOM
from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId, new_fact_id
from angelos.core.messages import Fact, Kind
from angelos.core.ports import Clock, Journal

log = logging.getLogger(__name__)
_EVERY_S = 0.2
_MAX_NOTES = 1_000


class DocumentActivity:
    """Adds up what is typed and appends one fact per document and moment."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Take where facts go."""
        self._journal = journal
        self._clock = clock
        self._bytes: Counter[str] = Counter()
        self._notes: deque[Fact] = deque(maxlen=_MAX_NOTES)
        self._more = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._tell(), name="document.edited")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell what has not been told."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._flush()

    def add(self, subject: str, size: int) -> None:
        """Note that so many bytes of edits came for `<repo>:<path>`."""
        self._bytes[subject] += size
        self._more.set()

    def note(self, subject: str, outcome: str, **data: Any) -> None:
        """Note what became of a working file that somebody changed on disk."""
        self._notes.append(self._fact(DISK, subject, data, outcome))
        self._more.set()

    def _fact(self, actor: PrincipalId, subject: str, data: dict[str, Any], outcome: str) -> Fact:
        now = self._clock.time()
        return Fact(
            id=new_fact_id(int(now * 1000)),
            at=now,
            actor=actor,
            kind=Kind.document_edited,
            subject=subject,
            outcome=outcome,
            data=data,
        )

    async def _tell(self) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            await self._flush()
            await asyncio.sleep(_EVERY_S)

    async def _flush(self) -> None:
        """Announce what was added up; while the journal is away it is kept for the next time."""
        edits, notes = dict(self._bytes), list(self._notes)
        facts = [self._fact(ROOM, s, {"bytes": size}, "") for s, size in edits.items()]
        if not facts + notes:
            return
        try:
            await self._journal.append(facts + notes)
        except AngelError as error:
            log.warning("edits are not announced yet: %s", error)
            self._more.set()
            return
        self._bytes -= Counter(edits)  # more may have come meanwhile
        told = {note.id for note in notes}
        self._notes = deque((n for n in self._notes if n.id not in told), maxlen=_MAX_NOTES)
