"""Pulls a revision: checked out, asked for its health, and only then made the one in force.

    told = await pulls.pull(wish)
    told.kind     # Kind.checkout_healthy
    told.outcome  # "ok"

Of one repository, one after the other and in the order they were asked for: whatever a health
command takes, the last revision asked for is the one in force.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from angelos.core.messages import Checkout, Kind, Status
from angelos.core.ports import Sandbox
from angelos.node.checkouts import health
from angelos.node.checkouts.store import Checkouts


class Told(msgspec.Struct, frozen=True):
    """What is to be told of a pull."""

    kind: Kind
    outcome: str
    data: dict[str, Any]


class Pulls:
    """Carries out what `Checkout` asks for."""

    def __init__(self, sandbox: Sandbox, checkouts: Checkouts) -> None:
        """Take where health commands run and where revisions lie."""
        self._sandbox = sandbox
        self._checkouts = checkouts
        self._turns: dict[str, asyncio.Lock] = {}

    async def pull(self, wish: Checkout) -> Told:
        """Make a healthy revision the one in force; the errors are those of `Checkouts.use`."""
        turn = self._turns.setdefault(wish.repo, asyncio.Lock())
        async with turn, self._checkouts.use(wish.repo, wish.revision) as folder:
            end = await health.check(self._sandbox, folder, wish)
            if end.status is Status.ok:
                await self._checkouts.switch(wish.repo, wish.revision)
                return Told(Kind.checkout_healthy, end.status, _about(wish))
            return self.failed(wish, end.status, end.detail, evidence=end.evidence)

    def failed(self, wish: Checkout, outcome: str, detail: str, **data: Any) -> Told:
        """Return what is told of a revision that is not put in force, and which one is."""
        stayed = self._checkouts.current(wish.repo)
        data = {**_about(wish), "stayed_on": stayed, "detail": detail, **data}
        return Told(Kind.checkout_failed, outcome, data)


def _about(wish: Checkout) -> dict[str, Any]:
    return {"repo": wish.repo, "branch": wish.branch, "canary": wish.canary}
