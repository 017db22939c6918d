"""Runs one task: guard, checkout, sandbox; its output is reported as it arrives."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec

from angelos.core.errors import (
    AngelError,
    DeadlineExceeded,
    InvalidInput,
    Unavailable,
    first_of,
)
from angelos.core.facts import FactPayload, TaskOutput, TaskResult
from angelos.core.ids import PrincipalId
from angelos.core.messages import MAX_OUTPUT_BYTES, RunTask, Status, Tier
from angelos.core.network import parse_rules
from angelos.core.paths import safe_path
from angelos.core.plans import CasePlan
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.requirements import MAX_TEXT, check_requirements, parse_requirements
from angelos.core.run_session import run_session
from angelos.core.runs import EvidenceSource, Exit, Output, RunSpec
from angelos.core.sessions import SessionSpec
from angelos.core.task_files import INPUTS
from angelos.core.tracing import span
from angelos.node.checkouts.store import Checkouts
from angelos.node.commands.output import OutputBuffer
from angelos.node.commands.pauses import HeldRun, HeldSandbox
from angelos.node.environments.store import EnvironmentFailure, Environments
from angelos.node.files.inputs import Inputs
from angelos.node.files.models import TaskFiles
from angelos.node.files.outputs import OutputCollector, Outputs
from angelos.node.runtimes.builder import BuildFailure
from angelos.node.runtimes.definitions import definitions
from angelos.node.runtimes.program import Programs, main_file
from angelos.node.runtimes.python import runtime as python
from angelos.node.runtimes.python.guard import Finding
from angelos.node.sandbox.layout import PACKAGES
from angelos.node.witness.overlay import overlaid
from angelos.node.witness.service import WitnessedRun

Beside = Callable[[SandboxSession], AbstractAsyncContextManager[None]]
_COALESCE_S = 0.05
_FLOOD, _LEAST_FLOOD_BYTES = 64, 16_000_000


class ReportFact(Protocol):
    """Reports one fact about the task."""

    def __call__(self, payload: FactPayload, outcome: str = "") -> Awaitable[None]:
        """Return when the channel has accepted the fact."""
        ...


class Runner:
    """Runs tasks in a sandbox; knows nothing of commands, grants or channels."""

    def __init__(
        self,
        node: str,
        sandbox: SessionSandbox,
        checkouts: Checkouts,
        inputs: Inputs,
        files: TaskFiles,
        programs: Programs,
        environments: Environments,
    ) -> None:
        self._environments = environments
        self.node = node
        self._sandbox = sandbox
        self._checkouts = checkouts
        self._inputs = inputs
        self._files = files
        self._programs = programs

    @property
    def tier(self) -> Tier:
        """The isolation in force."""
        return self._sandbox.tier

    def held(self, run: HeldRun) -> SessionSandbox:
        """Return the sandbox for a run whose principal may be paused."""
        return HeldSandbox(self._sandbox, run)

    async def run(
        self,
        task: RunTask,
        started: Callable[[], Awaitable[None]],
        report: ReportFact,
        output: OutputBuffer,
        by: PrincipalId,
        sandbox: SessionSandbox | None = None,
    ) -> TaskResult:
        """Run a task and return its result.

        Args:
            task: what to run.
            started: called once, right before the sandbox starts.
            report: takes `task.output` facts as the task prints.
            output: empty; holds what was printed, also when this raises.
            by: for whom it runs.
            sandbox: where to run it, in place of the node's own.
        """
        try:
            return await self._run(task, started, report, output, by, sandbox or self._sandbox)
        except AngelError as error:
            # What fails for the node or the hub may succeed elsewhere; a bad task will not.
            lost = isinstance(error, Unavailable | DeadlineExceeded)
            status = Status.killed if lost else Status.denied
            evidence = {"source": EvidenceSource.node, "reason": str(error), "code": error.code}
            return self.result(status, output, evidence=evidence)

    async def _run(
        self,
        task: RunTask,
        started: Callable[[], Awaitable[None]],
        report: ReportFact,
        output: OutputBuffer,
        by: PrincipalId,
        sandbox: SessionSandbox,
    ) -> TaskResult:
        if task.cases is not None:
            return await self._run_cases(task, task.cases, started, report, output, sandbox)
        if task.language != "python":
            return await self._run_program(task, started, report, output, by, sandbox)
        if task.action != "run":
            raise InvalidInput("Python is checked by the guard and tested by argv, not by action.")
        async with contextlib.AsyncExitStack() as stack:
            folder = inputs = None
            if task.revision is not None:
                use = self._checkouts.use(task.repo, task.revision)
                folder = await stack.enter_async_context(use)
            if task.inputs:
                inputs = await stack.enter_async_context(self._inputs.use(task.task, task.inputs))
            finding = await python.refused(task, folder, inputs)
            if finding is not None:
                return self._refused(finding, output)
            spec = patient(python.spec_for(task, folder))
            if inputs is not None:
                read_only = {**spec.read_only, INPUTS: str(inputs)}
                spec = msgspec.structs.replace(spec, read_only=read_only)
            # Before its start: the time of an installation is not the task's.
            packages = await self._packages(stack, task, folder, by, report, sandbox)
            if isinstance(packages, EnvironmentFailure):
                return await self._no_environment(packages, report, output)
            if packages is not None:
                read_only = {**spec.read_only, PACKAGES: str(packages)}
                spec = msgspec.structs.replace(spec, read_only=read_only, packages=PACKAGES)
            await started()
            collector = OutputCollector(task, self._files)
            session, beside = await self._networked(stack, task, spec, by, report)
            run = run_session(sandbox, session, collector.ended, beside)
            end = await self._follow(run, output, report)
        return _with_outputs(self._ended(end, output), collector.outputs)

    def _refused(self, finding: Finding, output: OutputBuffer) -> TaskResult:
        """Return the result of a program that the guard has refused."""
        evidence = {
            "source": EvidenceSource.guard,
            "line": finding.line,
            "reason": finding.reason,
        }
        return self.result(Status.denied, output, evidence=evidence)

    async def _run_program(
        self,
        task: RunTask,
        started: Callable[[], Awaitable[None]],
        report: ReportFact,
        output: OutputBuffer,
        by: PrincipalId,
        sandbox: SessionSandbox,
    ) -> TaskResult:
        """Build a program of a language beside Python, if it is not there yet, and run it."""
        definition = definitions()[task.language]
        async with contextlib.AsyncExitStack() as stack:
            checkout = inputs = None
            if task.revision is not None:
                use = self._checkouts.use(task.repo, task.revision)
                checkout = await stack.enter_async_context(use)
            if task.inputs or task.code:
                code = main_file(definition, task)
                use = self._inputs.use(task.task, task.inputs, code)
                inputs = await stack.enter_async_context(use)
            program = await asyncio.to_thread(self._programs.locate, task, inputs, checkout)
            await started()
            spec = await self._programs.spec(program, task, sandbox)
            if isinstance(spec, BuildFailure):
                return await self._not_built(spec, report, output)
            if inputs is not None:
                read_only = {**spec.read_only, INPUTS: str(inputs)}
                spec = msgspec.structs.replace(spec, read_only=read_only)
            collector = OutputCollector(task, self._files)
            session, beside = await self._networked(stack, task, patient(spec), by, report)
            run = run_session(sandbox, session, collector.ended, beside)
            end = await self._follow(run, output, report)
        return _with_outputs(self._ended(end, output), collector.outputs)

    async def _packages(
        self,
        stack: contextlib.AsyncExitStack,
        task: RunTask,
        checkout: Path | None,
        by: PrincipalId,
        report: ReportFact,
        sandbox: SessionSandbox,
    ) -> Path | EnvironmentFailure | None:
        """Return the packages that a task names, installed; None if it names none."""
        rows = task.packages
        if task.lock and checkout is not None:
            text = await asyncio.to_thread(_read_lock, checkout, task.lock)
            rows = (*parse_requirements(text), *rows)
        if not rows:
            return None
        rows = check_requirements(rows)
        use = self._environments.use(rows, sandbox, by, report)
        return await stack.enter_async_context(use)

    async def _no_environment(
        self, failure: EnvironmentFailure, report: ReportFact, output: OutputBuffer
    ) -> TaskResult:
        """Report what pip said, as the task's own standard error."""
        result = await self._not_built(
            BuildFailure(failure.end, failure.output, ()), report, output
        )
        return msgspec.structs.replace(result, evidence={**result.evidence, "stage": "environment"})

    async def _networked(
        self,
        stack: contextlib.AsyncExitStack,
        task: RunTask,
        spec: RunSpec,
        by: PrincipalId,
        report: ReportFact,
    ) -> tuple[SessionSpec, Beside | None]:
        """Return a run with what its task may reach, and the broker that answers beside it."""
        if not task.network:
            return SessionSpec(run=spec), None
        rules = parse_rules(task.network)
        order = await stack.enter_async_context(
            self._environments.brokers.opened(rules, by, task.task, report)
        )
        spec = msgspec.structs.replace(
            spec, env={**order.env, **spec.env}, read_only={**spec.read_only, **order.read_only}
        )
        return (
            SessionSpec(run=spec, broker=True),
            lambda session: order.broker.serving(session.listener()),
        )

    async def _not_built(
        self, failure: BuildFailure, report: ReportFact, output: OutputBuffer
    ) -> TaskResult:
        """Report what a compiler wrote, as the task's own standard error."""

        async def events() -> AsyncIterator[Output | Exit]:
            if failure.output:
                yield Output("stderr", failure.output)
            yield failure.end

        result = self._ended(await self._follow(events(), output, report), output)
        evidence = {**result.evidence, "stage": "compile"}
        if failure.diagnostics:
            evidence["diagnostics"] = msgspec.to_builtins(failure.diagnostics)
        return msgspec.structs.replace(result, evidence=evidence)

    async def _run_cases(
        self,
        task: RunTask,
        plan: CasePlan,
        started: Callable[[], Awaitable[None]],
        report: ReportFact,
        output: OutputBuffer,
        sandbox: SessionSandbox,
    ) -> TaskResult:
        """Have a runner ask for the cases of a plan; the result holds its report."""
        if task.revision is None:
            raise InvalidInput("Cases are asked for in a checkout.")
        async with contextlib.AsyncExitStack() as stack:
            folder = await stack.enter_async_context(self._checkouts.use(task.repo, task.revision))
            if plan.judges is not None:
                use = self._checkouts.use(task.repo, plan.judges)
                judges = await stack.enter_async_context(use)
                copy = overlaid(folder, judges, plan.taken, plan.removed)
                folder = await asyncio.to_thread(copy.__enter__)
                stack.push_async_callback(asyncio.to_thread, copy.__exit__, None, None, None)
            await started()
            run = WitnessedRun(sandbox, plan, folder, task.limits)
            end = await self._follow(run.events(), output, report)
        return msgspec.structs.replace(self._ended(end, output), report=run.report)

    def _ended(self, end: Exit | None, output: OutputBuffer) -> TaskResult:
        if end is None:
            raise Unavailable("The sandbox ended without reporting how.")
        return self.result(
            end.status,
            output,
            evidence=dict(end.evidence),
            exit_code=end.exit_code,
            seconds=end.duration_s,
            tier=end.tier,
        )

    async def _follow(
        self, run: AsyncIterator[Output | Exit], output: OutputBuffer, report: ReportFact
    ) -> Exit | None:
        """Follow a run, reporting its output; return how it ended."""
        news, room, over = asyncio.Event(), asyncio.Event(), asyncio.Event()
        end: Exit | None = None
        try:
            with span("box"):
                async with asyncio.TaskGroup() as group:
                    group.create_task(_report_output(output, report, news, room, over))
                    async with aclosing(cast("Any", run)) as events:
                        async for event in events:
                            if isinstance(event, Exit):
                                end = event
                                continue
                            output.add(event.stream, event.data)
                            news.set()
                            if output.full:  # a slow hub slows the program down
                                room.clear()
                                await room.wait()
                    output.end()
                    over.set()
                    news.set()
        except ExceptionGroup as group:
            if (error := first_of(group)) is None:
                raise
            raise error from None
        return end

    def result(
        self,
        status: Status,
        output: OutputBuffer,
        *,
        evidence: dict[str, Any],
        exit_code: int | None = None,
        seconds: float = 0.0,
        tier: Tier | None = None,
    ) -> TaskResult:
        """Return the result of a run, however it ended."""
        cut = {name: text.total for name, text in output.excerpts.items() if text.truncated}
        if cut:
            evidence = {**evidence, "truncated": cut}
        return TaskResult(
            status=status,
            exit_code=exit_code,
            stdout=output.excerpts["stdout"].text(),
            stderr=output.excerpts["stderr"].text(),
            duration_s=seconds,
            node=self.node,
            tier=tier or self.tier,
            evidence=evidence,
        )


def _read_lock(checkout: Path, name: str) -> str:
    """Return a file of a checkout; a checkout holds regular files alone."""
    path = checkout / safe_path(name)
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name[:200]} of the checkout cannot be read: {error}") from error


def _with_outputs(result: TaskResult, outputs: Outputs) -> TaskResult:
    return msgspec.structs.replace(
        result,
        files=tuple(outputs.files),
        left_out=tuple(outputs.left_out),
        displays=tuple(outputs.displays),
    )


def patient(spec: RunSpec) -> RunSpec:
    """Return a run that goes on when it has printed more than may be reported.

    The beginning is reported as it comes and the end of each stream at last. Only a flood of many
    times the limit ends the run, because each byte of it costs the node time.
    """
    flood = max(_FLOOD * spec.limits.output_bytes, _LEAST_FLOOD_BYTES)
    most = min(flood, MAX_OUTPUT_BYTES)
    limits = msgspec.structs.replace(spec.limits, output_bytes=most)
    return msgspec.structs.replace(spec, limits=limits)


async def _report_output(
    output: OutputBuffer,
    report: ReportFact,
    news: asyncio.Event,
    room: asyncio.Event,
    over: asyncio.Event,
) -> None:
    """Report output: the first piece at once, then what arrives in each twentieth of a second."""
    index = 0
    while True:
        await news.wait()
        news.clear()
        last = over.is_set()
        for piece in output.take():
            await report(
                TaskOutput(
                    stream=piece.stream,
                    text=piece.text,
                    raw=base64.b64encode(piece.raw).decode(),
                    omitted=piece.omitted,
                    index=index,
                )
            )
            index += 1
        room.set()
        if last:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COALESCE_S):
                await over.wait()
