"""Runs cases in two boxes: a runner that asks and reports, and the judged process that answers.

    run = WitnessedRun(sandbox, plan, folder, limits)
    async for event in run.events():
        ...  # what the tested code printed, then an Exit
    run.report      # what the runner saw, complete or not

The node carries lines from one box to the other and reads none of them. The boxes share no process
namespace and no writable folder.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, cast

import msgspec

from angelos.core.errors import Unavailable, first_of
from angelos.core.messages import Limits, Status
from angelos.core.plans import CasePlan
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.reports import CaseOutcome, RunReport, report_of
from angelos.core.runs import EvidenceSource, Exit, Output, RunSpec
from angelos.core.sessions import MAX_STDIN_PIECE, SessionSignal, SessionSpec
from angelos.node.sandbox.layout import WORK
from angelos.node.witness.programs import harness_for, runner_program

_RUNNER = Limits(cpu_s=600, memory_mb=512, pids=8, output_bytes=64_000_000, disk_mb=16)
_MORE_S = 30.0
"""How much longer than the judged process the runner may take."""
_ANSWERS = 48_000_000
"""Bytes of answers that the judged process may give beside what it prints."""
_PATIENCE_S = 5.0
"""How long the judged process may go on when nothing is asked any more."""
_WAITING = 64


class WitnessedRun:
    """One run of a plan; `events` may be followed once."""

    def __init__(
        self, sandbox: SessionSandbox, plan: CasePlan, folder: Path, limits: Limits
    ) -> None:
        self._sandbox = sandbox
        self._plan = plan
        self._folder = str(folder)
        self._limits = limits
        self._nonce = secrets.token_hex(16)
        self._printed = 0
        self._events: asyncio.Queue[Output] = asyncio.Queue(_WAITING)
        self.report: RunReport = report_of(self._nonce, b"")

    async def events(self) -> AsyncIterator[Output | Exit]:
        """Yield what the tested code prints and one `Exit` last."""
        try:
            async with (
                await self._sandbox.start(self._runner()) as runner,
                await self._sandbox.start(self._judged()) as judged,
            ):
                carrying = asyncio.create_task(self._carry(runner, judged), name="witness")
                try:
                    async with aclosing(cast("Any", self._outputs(carrying))) as outputs:
                        async for output in outputs:
                            yield output
                    end = await carrying
                    self.report = await runner.report()
                finally:
                    carrying.cancel()
                    await asyncio.gather(carrying, return_exceptions=True)
                yield self._ended(end)
        except Unavailable as error:
            evidence: dict[str, object] = {"source": EvidenceSource.node, "reason": str(error)}
            yield Exit(
                status=Status.denied,
                exit_code=None,
                duration_s=0.0,
                tier=self._sandbox.tier,
                evidence=evidence,
            )

    def _runner(self) -> SessionSpec:
        plan = {
            "run": self._nonce,
            "runner": self._plan.runner.value,
            "arguments": self._plan.arguments,
            "fresh": self._plan.fresh,
        }
        limits = msgspec.structs.replace(_RUNNER, wall_s=min(self._limits.wall_s + _MORE_S, 3600.0))
        run = RunSpec(
            argv=(),
            code=runner_program(),
            stdin=msgspec.json.encode(plan) + b"\n",
            limits=limits,
            read_only={WORK: self._folder},
        )
        return SessionSpec(run=run, interactive=True, report=self._nonce)

    def _judged(self) -> SessionSpec:
        limits = msgspec.structs.replace(
            self._limits, output_bytes=min(self._limits.output_bytes + _ANSWERS, 64_000_000)
        )
        run = RunSpec(
            argv=(),
            code=harness_for(self._plan.runner),
            limits=limits,
            read_only={WORK: self._folder},
            chdir=WORK,
        )
        return SessionSpec(run=run, interactive=True)

    # -- between the boxes -------------------------------------------------------------------

    async def _carry(self, runner: SandboxSession, judged: SandboxSession) -> Exit:
        """Carry lines until both have ended; return how the judged process did."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(judged, runner))
                await self._forward(runner, judged)
                # Nothing is asked any more: let it print its summary, then end it.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        await judged.wait()
                await judged.signal(SessionSignal.kill)
        except ExceptionGroup as group:
            if (error := first_of(group)) is None:
                raise
            raise error from None
        return await judged.wait()

    async def _forward(self, source: SandboxSession, target: SandboxSession) -> None:
        """Give one box what the other writes to its output; what it prints comes as an event."""
        async with aclosing(cast("Any", source.output())) as outputs:
            async for output in outputs:
                if output.stream == "stderr":
                    await self._print(source, output)
                    continue
                for start in range(0, len(output.data), MAX_STDIN_PIECE):
                    if not await target.write_stdin(output.data[start : start + MAX_STDIN_PIECE]):
                        break
        await target.close_stdin()

    async def _print(self, source: SandboxSession, output: Output) -> None:
        room = self._limits.output_bytes - self._printed
        self._printed += len(output.data)
        if room > 0:
            await self._events.put(Output("stderr", output.data[:room]))
        if self._printed > self._limits.output_bytes:
            await source.signal(SessionSignal.kill)

    async def _outputs(self, carrying: asyncio.Task[Exit]) -> AsyncIterator[Output]:
        while not (carrying.done() and self._events.empty()):
            waiting = asyncio.create_task(self._events.get())
            await asyncio.wait({waiting, carrying}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                yield waiting.result()
            else:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)

    # -- the end -----------------------------------------------------------------------------

    def _ended(self, end: Exit) -> Exit:
        """Return how the run ended; the exit code of the judged process says nothing."""
        if self._printed > self._limits.output_bytes:
            status: Status = Status.output
        elif end.status in {Status.ok, Status.error, Status.killed}:
            status = Status.ok if passed(self.report) else Status.error
        else:
            status = end.status
        evidence: dict[str, object] = {**end.evidence}
        if status in {Status.ok, Status.error}:
            evidence["source"] = EvidenceSource.runner
            if self.report.problems:
                problems = ", ".join(self.report.problems)
                evidence["reason"] = f"The report is incomplete: {problems}."
        return msgspec.structs.replace(end, status=status, exit_code=None, evidence=evidence)


def passed(report: RunReport) -> bool:
    """Return whether a report is complete and every case in it passed or was skipped.

    This is for people to read; control decides by `core.reports.verdict_of`.
    """
    good = {CaseOutcome.passed, CaseOutcome.skipped}
    return report.complete and all(
        (case.outcome is CaseOutcome.failed) if case.sentinel else (case.outcome in good)
        for case in report.cases
    )
