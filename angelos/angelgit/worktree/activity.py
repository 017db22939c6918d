"""`document.edited` facts: the sum of what people type, at intervals, not key by key.

An edit of a working file on disk has a fact of its own, whose outcome is a `FileOutcome`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from enum import StrEnum
from typing import Self

from angelos.adapters.host.endless import endless
from angelos.angelgit.storage.models import DISK, ROOM
from angelos.core.errors import AngelError
from angelos.core.facts import DocumentEdited, Fact
from angelos.core.ids import PrincipalId
from angelos.core.ports import Clock, Journal

log = logging.getLogger(__name__)
_INTERVAL_S = 0.2
_MAX_NOTES = 1_000


class FileOutcome(StrEnum):
    """What was done with a working file that was changed on disk; sent in facts."""

    taken_in = "taken-in"
    """The edit was applied to the live document; data: `bytes`."""
    set_aside = "set-aside"
    """The file was kept beside the new one; data: `kept`, its path, and `reason`."""
    restored = "restored"
    """The file was deleted and is written again; data: `reason`."""
    stays = "stays"
    """The document was deleted, but its file had been changed and stays; data: `stays`."""


class DocumentActivity:
    """Adds up what is typed, and appends one fact for each document and interval."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._bytes: Counter[str] = Counter()
        self._notes: deque[Fact] = deque(maxlen=_MAX_NOTES)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = endless("announcements of edits", self._announce)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Announce what is left."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._flush()

    def add(self, subject: str, size: int) -> None:
        """Count `size` bytes of edits of `<repo>:<path>`."""
        self._bytes[subject] += size
        self._changed.set()

    def note(self, subject: str, outcome: FileOutcome, edited: DocumentEdited) -> None:
        """Announce what was done with a working file that was changed on disk."""
        self._notes.append(self._fact(DISK, subject, edited, outcome.value))
        self._changed.set()

    def _fact(self, actor: PrincipalId, subject: str, edited: DocumentEdited, outcome: str) -> Fact:
        now = self._clock.time()
        return Fact.of(edited, at=now, actor=actor, subject=subject, outcome=outcome)

    async def _announce(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._flush()
            await asyncio.sleep(_INTERVAL_S)

    async def _flush(self) -> None:
        """Append what was added up; while the journal is away, keep it for the next time."""
        edits, notes = dict(self._bytes), list(self._notes)
        facts = [self._fact(ROOM, s, DocumentEdited(bytes=size), "") for s, size in edits.items()]
        if not facts + notes:
            return
        try:
            await self._journal.append(facts + notes)
        except AngelError as error:
            log.warning("edits are not announced yet: %s", error)
            self._changed.set()
            return
        # Subtract instead of clearing: more may have been added during the append.
        self._bytes -= Counter(edits)
        announced = {note.id for note in notes}
        self._notes = deque((n for n in self._notes if n.id not in announced), maxlen=_MAX_NOTES)
