"""Pulls a revision: checks it out, runs its health command, and only then puts it in force.

    result = await pulls.pull(checkout)
    result.payload  # CheckoutHealthy(repo="study", ...)
    result.outcome  # "ok"

The pulls of one repository run one after the other, in the order in which they were asked for:
however long a health command takes, the revision that was asked for last is the one in force.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from angelos.core.facts import CheckoutFailed, CheckoutHealthy
from angelos.core.messages import Checkout, Status
from angelos.core.ports import SessionSandbox
from angelos.node.checkouts import health
from angelos.node.checkouts.store import Checkouts


class PullResult(msgspec.Struct, frozen=True):
    """What the node reports of a pull."""

    payload: CheckoutHealthy | CheckoutFailed
    outcome: str
    """A `Status`, or the code of the error that prevented the pull."""


class Pulls:
    """Carries out what `Checkout` asks for."""

    def __init__(self, sandbox: SessionSandbox, checkouts: Checkouts) -> None:
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
                healthy = CheckoutHealthy(
                    repo=checkout.repo, branch=checkout.branch, canary=checkout.canary
                )
                return PullResult(healthy, end.status)
            return self.failed(checkout, end.status, end.detail, evidence=end.evidence)

    def failed(
        self,
        checkout: Checkout,
        outcome: str,
        detail: str,
        evidence: dict[str, Any] | None = None,
    ) -> PullResult:
        """Return the report of a revision that was not put in force, and which one is."""
        failed = CheckoutFailed(
            repo=checkout.repo,
            branch=checkout.branch,
            canary=checkout.canary,
            stayed_on=self._checkouts.current(checkout.repo),
            detail=detail,
            evidence=evidence or {},
        )
        return PullResult(failed, outcome)
