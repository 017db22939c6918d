"""Commits what people type by itself: when a repository rests, or after minutes of typing.

For example:

    async with LiveCommits(transactions, clock) as resting:
        resting.note("study")     # somebody has typed
"""

from __future__ import annotations

import asyncio
import logging
from typing import Self

import msgspec

from angelos.adapters.host.endless import endless
from angelos.angelgit.changes.transactions import Transactions
from angelos.core.errors import AngelError, Fenced
from angelos.core.ports import Clock

log = logging.getLogger(__name__)
REST_S = 10.0
"""A repository rests if nobody has typed for so long."""
MOST_S = 180.0
"""Typing is committed at the latest so long after its first key."""
_LOOK_S = 1.0


class TypingSpan(msgspec.Struct, frozen=True):
    """When people typed into a repository since its last commit of live edits."""

    first: float
    last: float

    def due(self, now: float) -> bool:
        """Return whether it is time to commit.

        >>> TypingSpan(0.0, 5.0).due(9.0), TypingSpan(0.0, 5.0).due(15.0)
        (False, True)
        >>> TypingSpan(0.0, 179.9).due(180.0)
        True
        """
        return now - self.last >= REST_S or now - self.first >= MOST_S


class LiveCommits:
    """Commits live edits of all repositories; an async context manager."""

    def __init__(self, transactions: Transactions, clock: Clock) -> None:
        self._transactions = transactions
        self._clock = clock
        self._typing: dict[str, TypingSpan] = {}
        self._typed = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = endless("commits of live edits", self._run)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    def note(self, repo: str) -> None:
        """Note that somebody has typed into a repository."""
        now = self._clock.monotonic()
        span = self._typing.get(repo)
        self._typing[repo] = TypingSpan(span.first if span else now, now)
        self._typed.set()

    async def commit_due(self) -> None:
        """Commit what is due now."""
        now = self._clock.monotonic()
        for repo in [repo for repo, span in self._typing.items() if span.due(now)]:
            del self._typing[repo]
            try:
                await self._transactions.commit_typed(repo)
            except Fenced as error:
                log.warning("what was typed into %s is another server's to commit: %s", repo, error)
            except (AngelError, OSError) as error:
                log.warning("what was typed into %s is not committed yet: %s", repo, error)
                self.note(repo)

    async def _run(self) -> None:
        while True:
            await self._typed.wait()
            await asyncio.sleep(_LOOK_S)
            await self.commit_due()
            if not self._typing:
                self._typed.clear()
