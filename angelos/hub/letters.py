"""Dead letters of all queues and of the journal: list, show, replay, drop.

letters = DeadLetters(queue, journal)
page = await letters.list(PrincipalId("node/exec1"))
await letters.replay(PrincipalId("node/exec1"), [page[0].position])
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from angelos.core.envelopes import DeadLetter
from angelos.core.errors import InvalidInput
from angelos.core.ids import START, Offset, PrincipalId

JOURNAL = PrincipalId("system/journal")


class LetterQueue(Protocol):
    """The queues, as far as dead letters go."""

    async def dead_letters(
        self, destination: PrincipalId, after: Offset = START, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters with a position after `after`."""
        ...

    async def replay(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Put dead letters at the end of their lanes again."""
        ...

    async def drop_dead(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Forget dead letters for good."""
        ...

    async def destinations_with_dead(self) -> list[PrincipalId]:
        """Return the destinations that have dead letters."""
        ...


class LetterJournal(Protocol):
    """The journal, as far as dead letters go."""

    async def dead_letters(self, after: Offset = START, limit: int = 100) -> list[DeadLetter]:
        """Return entries that were set aside."""
        ...

    async def drop_dead(self, positions: Collection[Offset]) -> int:
        """Forget entries that were set aside for good."""
        ...


class DeadLetters:
    """Both kinds under the name of whose they are; the journal's is `system/journal`."""

    def __init__(self, queue: LetterQueue, journal: LetterJournal) -> None:
        self._queue = queue
        self._journal = journal

    async def list(
        self, destination: PrincipalId | None = None, limit: int = 100
    ) -> list[tuple[PrincipalId, DeadLetter]]:
        """Return at most `limit` dead letters of one destination, or of all."""
        names: Sequence[PrincipalId] = [destination] if destination is not None else []
        if destination is None:
            names = [JOURNAL, *await self._queue.destinations_with_dead()]
        letters: list[tuple[PrincipalId, DeadLetter]] = []
        for name in names:
            rest = limit - len(letters)
            if rest <= 0:
                break
            if name == JOURNAL:
                page = await self._journal.dead_letters(limit=rest)
            else:
                page = await self._queue.dead_letters(name, limit=rest)
            letters += [(name, letter) for letter in page]
        return letters

    async def replay(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Put dead letters into their queue again and return how many; unreadable ones stay.

        Raises:
            InvalidInput: They are the journal's, which takes nothing that cannot be read.
            Busy: There is no room for all of them.
        """
        if destination == JOURNAL:
            raise InvalidInput("An entry of the journal that cannot be read cannot be replayed.")
        return await self._queue.replay(destination, positions)

    async def drop(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Forget dead letters for good and return how many there were."""
        if destination == JOURNAL:
            return await self._journal.drop_dead(positions)
        return await self._queue.drop_dead(destination, positions)
