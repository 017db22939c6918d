r"""Boxes made by bubblewrap: the real `core.ports.SessionSandbox`.

Every run gets a new box: user, mount, process, network, IPC, UTS and control-group namespaces, no
capability, seccomp, Landlock, and limits by a control group (tier `full`) or by resource limits
and a sampler (tier `reduced`). Where no box can be made, the tier is `landlock` or `none`, and
every run is `denied` unless the operator has set `allow_unsandboxed`.

    async with BubblewrapSandbox(SandboxConfig()) as sandbox:
        spec = SessionSpec(run=RunSpec(argv=(), code="print(1)", limits=Limits()))
        async with await sandbox.start(spec) as session:
            async for output in session.output():
                ...  # Output(stream="stdout", data=b"1\n")
            end = await session.wait()  # Exit(status=Status.ok, ...)

A judge and what it judges are two boxes, which share nothing but what the node carries between
them. The runner's session has `report` (a nonce) and is `interactive`; the judged program's is
`interactive` and has no report. Whoever started both reads the `output()` of each and gives it to
the other by `write_stdin`, and so decides what passes. The judged program has another process
namespace, another user's view of /proc, and no writable folder in common with the runner: it can
neither open nor inherit the runner's report descriptor (a socket, which /proc/PID/fd cannot open
again). What it says about itself is input to the runner, and the `RunReport` of the runner's
session is the verdict's witness:

    async with await sandbox.start(judge) as runner, await sandbox.start(judged) as program:
        async with asyncio.TaskGroup() as group:
            group.create_task(carry(program, runner))  # output() of one, write_stdin() of the other
            group.create_task(carry(runner, program))
        report = await runner.report()
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import platform
import sys
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Self

from angelos.core.errors import AngelError, Busy, InvalidInput, Refused, Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.run_session import run_session
from angelos.core.runs import Output, RunSpec
from angelos.core.sessions import SessionSpec
from angelos.core.task_files import INPUTS
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import cgroup, seccomp
from angelos.node.sandbox.box import Box, BoxInput, BoxRules, ExecRequest, LandlockRules
from angelos.node.sandbox.deadlines import Backstop
from angelos.node.sandbox.demand import Demand
from angelos.node.sandbox.launch import Launcher, find_bwrap
from angelos.node.sandbox.layout import (
    BASE_ENV,
    TMP,
    Bind,
    BoxShape,
    Interpreter,
    shape_of,
    system_binds,
    this_interpreter,
    visible,
)
from angelos.node.sandbox.models import Meter
from angelos.node.sandbox.proc import Sampler
from angelos.node.sandbox.scratch import ScratchFolders
from angelos.node.sandbox.session import BoxSession
from angelos.node.sandbox.shares import ProcessorShares, Reading
from angelos.node.sandbox.unsandboxed import UnsandboxedLauncher, landlock_abi
from angelos.node.sandbox.verdict import MIB

log = logging.getLogger(__name__)

_PATH = "/usr/local/bin:/usr/bin:/bin"
_OPEN_FILES = 512
_SELF_TEST = "print('in the box')"
_REFILL_DELAY_S = 0.1
_RETRY_S = 1.0
_WINDOW_S, _LONGEST_S = 0.2, 1.0
"""For which a box may have to wait for others, where no control group divides the processors."""
_ADDRESS_SPACE = 64 << 30
_PLAIN = SessionSpec(run=RunSpec(argv=(), code="", limits=Limits()))
"""What the boxes that are started ahead are sealed for."""
_READY_MB = 12


def _links(run: RunSpec, box: Box) -> tuple[str, str] | None:
    """Return where the inputs of a run lie, and the folder in which a program looks for them."""
    if INPUTS not in run.read_only:
        return None
    return (run.read_only[INPUTS], box.scratch) if box.scratch else (INPUTS, TMP)


def _needs_no_namespace(spec: SessionSpec) -> bool:
    return not (spec.writable or spec.shared or _has_loopback(spec))


def _has_loopback(spec: SessionSpec) -> bool:
    return spec.loopback or spec.broker


class BubblewrapSandbox:
    """Runs programs in boxes; `async with` owns all of them, and finds out the tier."""

    def __init__(self, config: SandboxConfig | None = None) -> None:
        self._config = config or SandboxConfig()
        self.tier = Tier.none
        self.reasons: list[str] = []
        """Why the tier is not `full`."""
        self._folders = ScratchFolders(self._config.scratch)
        self._groups: cgroup.Cgroups | None = None
        self._launcher: Launcher | UnsandboxedLauncher | None = None
        self._python: Interpreter = this_interpreter()
        self._binds: tuple[Bind, ...] = ()
        self._landlock = 0
        self._backstop = Backstop()
        self._ready: deque[Box] = deque()
        self._open: set[Box] = set()
        self._ends: dict[Box, asyncio.Task[None]] = {}
        self._sessions = 0
        self._demand = Demand()
        self._refill = asyncio.Event()
        self._refiller: asyncio.Task[None] | None = None
        self._divider: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Determine the tier of this machine, by making a box and running a program in it."""
        try:
            await asyncio.to_thread(self._folders.sweep)
            await asyncio.to_thread(self._backstop.start)
            await self._choose()
            if self._config.ready_boxes and self.tier in {Tier.full, Tier.reduced}:
                self._refill.set()
                self._refiller = asyncio.create_task(self._keep_ready(), name="ready boxes")
            if self.tier is Tier.reduced and self._groups is None:
                self._divider = asyncio.create_task(self._keep_fair(), name="fair shares")
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill every box and wait until all of them have ended."""
        await self._close()

    async def _close(self) -> None:
        for task in (self._refiller, self._divider):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._refiller = self._divider = None
        self._ready.clear()
        for box in tuple(self._open):
            box.kill(Status.killed, "the node was stopped")
            await self._discard(box)
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        await asyncio.to_thread(self._backstop.close)

    # -- tier ----------------------------------------------------------------------------

    async def _choose(self) -> None:
        if not seccomp.supported(platform.machine()):
            self.reasons.append(f"There is no system call table for {platform.machine()}.")
            return
        self._landlock = landlock_abi()
        if not self._landlock:
            self.reasons.append("The kernel has no Landlock; namespaces and seccomp stand alone.")
        if self._config.use_cgroups:
            try:
                self._groups = cgroup.find()
            except Unavailable as error:
                self.reasons.append(str(error))
        else:
            self.reasons.append("Control groups are switched off; a sampler counts.")
        tier = Tier.full if self._groups and self._landlock else Tier.reduced
        try:
            base = seccomp.base_filter(platform.machine(), counted=self._groups is not None)
            self._binds = (*system_binds(), *self._python.binds)
            self._launcher = Launcher(find_bwrap(), self._python, base)
            try:
                await self._self_test(tier)
            except Unavailable as error:  # a busy machine may only have been too slow
                log.warning("%s", error)
                await self._self_test(tier)
        except AngelError as error:
            self._without_namespaces(error)

    def _without_namespaces(self, error: AngelError) -> None:
        self.reasons.append(str(error))
        self.tier = Tier.landlock if self._landlock else Tier.none
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None
        if self._config.allow_unsandboxed:
            self._launcher = UnsandboxedLauncher(self._folders)

    async def _self_test(self, tier: Tier) -> None:
        self.tier = tier
        spec = RunSpec(argv=(), code=_SELF_TEST, limits=Limits(wall_s=20))
        output = b""
        async for event in run_session(self, spec):
            if isinstance(event, Output):
                output += event.data
            elif event.status is not Status.ok:
                text = output.decode(errors="replace").strip()
                cause = event.evidence.get("reason", event.status)
                raise Unavailable(f"The box's self-test failed: {cause} {text}".strip())

    # -- sessions ------------------------------------------------------------------------

    async def start(self, spec: SessionSpec) -> BoxSession:
        """Start a program and return at once; see `core.ports.SessionSandbox`."""
        if spec.run.code is None and not spec.run.argv:
            raise InvalidInput("There is neither code nor a program to run.")
        shape = shape_of(spec)
        if self._launcher is None:
            raise Unavailable(
                "No box can be made on this node: " + " ".join(self.reasons),
                hint="Run `angelos doctor`: it names what is missing.",
            )
        if self.tier not in {Tier.full, Tier.reduced} and not _needs_no_namespace(spec):
            raise Refused(f"The tier {self.tier} has no folders or network of a program's own.")
        if self._sessions >= self._config.boxes:
            raise Busy(f"{self._sessions} boxes are open.", retry_after_s=_RETRY_S)
        self._sessions += 1
        try:
            return await self._begin(spec, shape)
        except BaseException:
            self._sessions -= 1
            raise

    async def _begin(self, spec: SessionSpec, shape: BoxShape) -> BoxSession:
        run = spec.run
        box = await self._take(spec, shape)
        try:
            given = BoxInput(
                stdin=run.stdin,
                interactive=spec.interactive,
                report=spec.report is not None,
            )
            await box.begin(self._request(spec, box), run.limits, given)
        except BaseException:
            await self._discard(box)
            raise
        return BoxSession(box, spec, self.tier, self._leave)

    async def _leave(self, box: Box) -> None:
        """Close the box of a session."""
        if box in self._open and box not in self._ends:
            self._sessions -= 1
        await self._discard(box)

    def _request(self, spec: SessionSpec, box: Box) -> ExecRequest:
        run = spec.run
        program = sys.executable if box.scratch else self._python.executable
        argv = run.argv
        if run.code is None and argv[0] in {"python", "python3"}:
            argv = (program, *argv[1:])
        packages = run.packages
        if packages and box.scratch:
            packages = run.read_only.get(packages, packages)
        path = f"{Path(program).parent}:{_PATH}"
        env = {**BASE_ENV, "PATH": f"{packages}/bin:{path}" if packages else path}
        env |= {"PYTHONPATH": packages, **run.env} if packages else run.env
        if spec.terminal is not None:
            env.setdefault("TERM", "xterm-256color")
        chdir = run.chdir
        if box.scratch:  # nothing is bound to another path, so name the paths on the host
            env = {k: v.replace(TMP, box.scratch) if v == TMP else v for k, v in env.items()}
            chdir = {TMP: box.scratch, **run.read_only}.get(chdir, chdir)
        return ExecRequest(
            argv=argv,
            code=run.code,
            env=env,
            chdir=chdir,
            rlimits=self._rlimits(run.limits, unsandboxed=bool(box.scratch)),
            packages=packages,
        )

    def _rules(self, spec: SessionSpec, box: Box, shape: BoxShape) -> BoxRules:
        machine, size, inet = platform.machine(), spec.terminal, _has_loopback(spec)
        counted = self._groups is not None
        base = seccomp.base_filter(machine, counted=counted) if box.scratch else b""
        return BoxRules(
            landlock=self._places(spec, box, shape) if self._landlock else None,
            notify_filter=seccomp.watch_filter(
                machine, action="notify", forks=not counted, inet=inet
            ),
            refuse_filter=seccomp.watch_filter(machine, action="refuse", inet=inet),
            base_filter=base,
            unsandboxed=bool(box.scratch),
            terminal=(size.rows, size.columns) if size is not None else None,
            writable=spec.writable,
            links=_links(spec.run, box),
            broker=spec.broker,
        )

    def _places(self, spec: SessionSpec, box: Box, shape: BoxShape) -> LandlockRules:
        """Return the folders that a program may read and write."""
        if not box.scratch:
            paths = visible((*self._binds, *shape.own), spec.writable)
            write = {
                TMP,
                "/dev",
                *spec.shared,
                *([spec.writable] if spec.writable else []),
            }
            read = tuple(path for path in paths if path not in write)
            return LandlockRules(read=read, write=tuple(sorted(write)), tcp=_has_loopback(spec))
        read = (*(bind.source for bind in self._binds), *spec.run.read_only.values())
        read = (*read, "/bin", "/lib", "/lib64", "/proc")
        return LandlockRules(read=read, write=(box.scratch, "/dev"))

    def _rlimits(self, limits: Limits, *, unsandboxed: bool) -> dict[str, int]:
        """Return the limits that the kernel enforces for each process (getrlimit(2)).

        They are a second line: a fork starts a new RLIMIT_CPU, and RLIMIT_AS counts address space,
        of which Node.js reserves gigabytes. Without a control group it is far above the limit and
        bounds what page tables can take at once.
        """
        rlimits = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_CPU": math.ceil(limits.cpu_s) + 1,
        }
        if self._groups is None:
            if not unsandboxed:  # there the kernel would count every process of the user
                rlimits["RLIMIT_NPROC"] = limits.pids + 8  # the sampler enforces `pids` itself
            rlimits["RLIMIT_AS"] = max(_ADDRESS_SPACE, 16 * limits.memory_mb * MIB)
            # Above the size of each folder in memory, so that a full one is what a program meets.
            rlimits["RLIMIT_FSIZE"] = (max(limits.disk_mb, limits.memory_mb) + 2) * MIB
        return rlimits

    def _meter(self) -> Meter:
        return self._groups.new() if self._groups is not None else Sampler()

    # -- boxes ---------------------------------------------------------------------------

    @property
    def boxes_ready(self) -> int:
        """How many boxes were started ahead and wait for a program."""
        return len(self._ready)

    @property
    def boxes_open(self) -> int:
        """How many boxes hold a program."""
        return self._sessions

    async def _take(self, spec: SessionSpec, shape: BoxShape) -> Box:
        """Return a sealed box, one that waits if it suits."""
        if BoxShape().serves(shape) and spec.terminal is None and not _has_loopback(spec):
            self._demand.note(time.monotonic())
            while self._ready:
                box = self._ready.popleft()
                self._refill.set()
                if box.alive:
                    return box
                await self._discard(box)
        return await self._start_sealed(spec, shape)

    async def _start_sealed(self, spec: SessionSpec, shape: BoxShape) -> Box:
        box = await self._start(shape)
        try:
            await box.seal(self._rules(spec, box, shape), spec.run.limits)
        except BaseException:
            await self._discard(box)
            raise
        return box

    async def _start(self, shape: BoxShape) -> Box:
        assert self._launcher is not None  # noqa: S101 - start() and __aenter__ saw to it
        try:
            meter = self._meter()
        except OSError as error:
            raise Unavailable(f"The box's control group cannot be made: {error}") from error
        try:
            launched = await self._launcher.start(self._binds, shape)
        except BaseException:
            meter.close()
            raise
        box = Box(launched, meter, self._backstop)
        self._open.add(box)
        try:
            await box.ready()
        except BaseException:
            await self._discard(box)
            raise
        return box

    async def _discard(self, box: Box) -> None:
        """Close a box. If the caller is cancelled meanwhile, the box is closed all the same."""
        if box in self._open:
            if box not in self._ends:
                self._ends[box] = asyncio.create_task(self._end(box), name="end of a box")
            await asyncio.shield(self._ends[box])

    async def _end(self, box: Box) -> None:
        try:
            staged = await box.close()
            if self._launcher is not None:
                await self._launcher.release(staged)
        finally:
            self._open.discard(box)
            del self._ends[box]

    def _wanted(self) -> int:
        """Return how many boxes should wait now, within the budget of memory."""
        least = self._config.ready_boxes
        most = max(least, self._config.ready_mb // _READY_MB)
        return self._demand.wanted(time.monotonic(), least, most)

    async def _keep_ready(self) -> None:
        """Start boxes ahead, one after the other, whenever some were taken.

        With others still ready it waits a moment: a start takes the processor from the run for
        which a box was just taken, and a short run is over by then.
        """
        while True:
            await self._refill.wait()
            self._refill.clear()
            if self._ready:
                await asyncio.sleep(_REFILL_DELAY_S)
            while len(self._ready) < self._wanted():
                try:
                    self._ready.append(await self._start_sealed(_PLAIN, BoxShape()))
                except Unavailable as error:
                    log.warning("No box could be started ahead: %s", error)
                    break
                except Exception:
                    log.exception("No box could be started ahead")
                    break

    async def _keep_fair(self) -> None:
        """Divide the processors between boxes, where no control group does.

        Whoever takes more than its part may keep this very loop waiting, so that its window is
        longer than it should be: it stands still for as long as it has run.
        """
        shares: ProcessorShares[Box] = ProcessorShares(len(os.sched_getaffinity(0)))
        before: dict[Box, Reading] = {}
        held = frozenset[Box]()
        at, took = time.monotonic(), _WINDOW_S
        while True:
            await asyncio.sleep(min(took, _LONGEST_S) if held else _WINDOW_S)
            now = {box: reading for box in self._open if (reading := box.reading())}
            took, at = time.monotonic() - at, time.monotonic()
            new = {b: reading.since(before[b]) for b, reading in now.items() if b in before}
            held = shares.to_hold(new, took) if len(new) > 1 else frozenset[Box]()
            for box in now:
                (box.hold if box in held else box.release)()
            before = now
