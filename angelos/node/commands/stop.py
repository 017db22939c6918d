"""Handles `CancelTask` and `RevokeGrants`: stops what runs, and what must not start any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from angelos.adapters.host.datadir import write_private
from angelos.core.errors import AngelError
from angelos.core.grants import read_grant
from angelos.core.messages import CancelTask, PauseTasks, RevokeGrants
from angelos.node.commands.inbox import Inbox
from angelos.node.commands.jobs import Job, Jobs, StopCode, StopReason, workers_of
from angelos.node.commands.outbox import Outbox
from angelos.node.commands.pauses import PausedPrincipals
from angelos.node.commands.run import RunHandler


class NotStored(AngelError):
    """A revocation is in force but could not be stored; the command must be delivered again."""


class StopHandler:
    """Carries out `CancelTask` and `RevokeGrants`."""

    def __init__(
        self,
        inbox: Inbox,
        revoked_file: Path,
        jobs: Jobs,
        runs: RunHandler,
        outbox: Outbox,
        paused: PausedPrincipals,
    ) -> None:
        """Build the handler; revocations are stored in `revoked_file`."""
        self._paused = paused
        self._inbox = inbox
        self._file = revoked_file
        self._jobs = jobs
        self._runs = runs
        self._outbox = outbox

    async def cancel(self, job: Job, cancel: CancelTask) -> None:
        """Stop a task and return once its end is reported."""
        job.allowed()
        reason = StopReason(StopCode.cancelled, cancel.reason or "cancelled")
        if cancel.command and self._inbox.cancel(cancel.command) == "end":
            origin = self._outbox.origin(job.command, of=cancel.command)
            await self._runs.report_unseen(origin, cancel.task, reason)
            return
        stopped = self._stop(self._jobs.of_task(cancel.task), job, reason)
        if stopped:
            # The acknowledgement follows: if the node dies before, the next one reports the end.
            await asyncio.wait(workers_of(stopped))

    async def revoke(self, job: Job, revocation: RevokeGrants) -> None:
        """Void a principal's grants and stop what runs under them.

        Raises:
            NotStored: the grants are void now, but would be valid again after a restart.
        """
        job.allowed()
        principal = revocation.principal
        self._inbox.revoke(principal, read_grant(job.command.grant))
        text = f"the grants of {principal} were revoked: {revocation.reason}".rstrip(": ")
        reason = StopReason(StopCode.revoked, text)
        self._stop(self._jobs.of_principal(principal), job, reason)
        try:
            await asyncio.to_thread(write_private, self._file, self._inbox.dump())
        except OSError as error:
            raise NotStored(
                f"The revocation is in force, but {self._file} cannot be written: {error}"
            ) from error

    async def pause(self, job: Job, change: PauseTasks) -> None:
        """Pause or resume what runs for a principal; certificates and grants stay as they are."""
        job.allowed()
        await self._paused.set(change.principal, paused=change.paused)

    @staticmethod
    def _stop(jobs: Iterable[Job], current: Job, reason: StopReason) -> list[Job]:
        """Stop jobs, except the current one; return those that were asked to stop."""
        targets = [job for job in jobs if job is not current]
        for target in targets:
            target.stop(reason)
        return targets
