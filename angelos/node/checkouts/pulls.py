"""Pulls a revision: checks it out, runs its health command, and only then puts it in force.

    result = await pulls.pull(checkout)
    result.kind     # Kind.checkout_healthy
    result.outcome  # "ok"

The pulls of one repository run one after the other, in the order in which they were asked for:
however long a health command takes, the revision that was asked for last is the one in force.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from angelos.core.messages import Checkout, Kind, Status
from angelos.core.ports import Sandbox
from angelos.node.checkouts import health
from angelos.node.checkouts.store import Checkouts


class PullResult(msgspec.Struct, frozen=True):
    """What the node reports of a pull."""

    kind: Kind
    outcome: str
    """A `Status`, or the code of the error that prevented the pull."""
    data: dict[str, Any]


class Pulls:
    """Carries out what `Checkout` asks for."""

    def __init__(self, sandbox: Sandbox, checkouts: Checkouts) -> None:
        self._sandbox = sandbox
        self._checkouts = checkouts
        self._turns: dict[str, asyncio.Lock] = {}

    async def pull(self, checkout: Checkout) -> PullResult:
        """Put a healthy revision in force; the errors are those of `Checkouts.use`."""
        turn = self._turns.setdefault(checkout.repo, asyncio.Lock())
        async with turn, self._checkouts.use(checkout.repo, checkout.revision) as folder:
            end = await health.check(self._sandbox, folder, checkout)
            if end.status is Status.ok:
                await self._checkouts.switch(checkout.repo, checkout.revision)
                return PullResult(Kind.checkout_healthy, end.status, _about(checkout))
            return self.failed(checkout, end.status, end.detail, evidence=end.evidence)

    def failed(self, checkout: Checkout, outcome: str, detail: str, **data: Any) -> PullResult:
        """Return the report of a revision that was not put in force, and which one is."""
        current = self._checkouts.current(checkout.repo)
        data = {**_about(checkout), "stayed_on": current, "detail": detail, **data}
        return PullResult(Kind.checkout_failed, outcome, data)


def _about(checkout: Checkout) -> dict[str, Any]:
    return {"repo": checkout.repo, "branch": checkout.branch, "canary": checkout.canary}
