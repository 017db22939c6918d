"""Handles `Checkout`: pulls a revision and reports whether it is the one in force now."""

from __future__ import annotations

import asyncio
import logging

from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId
from angelos.core.messages import Checkout, Status
from angelos.node.checkouts.pulls import PullResult, Pulls
from angelos.node.commands.facts import code_of
from angelos.node.commands.jobs import Job
from angelos.node.commands.outbox import Outbox

log = logging.getLogger(__name__)


class CheckOutHandler:
    """Carries out `Checkout`."""

    def __init__(self, node: PrincipalId, pulls: Pulls, outbox: Outbox) -> None:
        self._node = node
        self._pulls = pulls
        self._outbox = outbox

    async def handle(self, job: Job, checkout: Checkout) -> None:
        """Pull a revision and report `checkout.healthy` or `checkout.failed`."""
        result = await self._result(job, checkout)
        job.finished = True
        await self._outbox.report(
            self._outbox.origin(job.command),
            result.payload,
            self._node,
            outcome=result.outcome,
            revision=checkout.revision,
            once=True,
        )

    async def _result(self, job: Job, checkout: Checkout) -> PullResult:
        try:
            job.allowed()
            return await self._pulls.pull(checkout)
        except asyncio.CancelledError:
            reason = job.take_stop()
            if reason is None:
                raise
            return self._pulls.failed(checkout, Status.killed, reason.text)
        except AngelError as error:
            return self._pulls.failed(checkout, error.code, str(error))
        except Exception as error:
            log.exception("%s of %s was not checked out", checkout.revision, checkout.repo)
            detail = f"The revision cannot be stored: {error}"
            return self._pulls.failed(checkout, code_of(error), detail)
