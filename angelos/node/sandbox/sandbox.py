r"""Boxes by bubblewrap: the real `core.ports.Sandbox`.

Every run gets a box of its own that is thrown away afterwards: user, mount, process, network,
IPC, UTS and control-group namespaces, no capability, seccomp, Landlock, limits by a control group
(tier `full`) or by resource limits and a sampler (tier `reduced`). Where no box can be made the
tier is `landlock` or `none` and every run is `denied`, unless the operator has set
`allow_unsandboxed`.

    async with BubblewrapSandbox(SandboxConfig()) as sandbox:
        async for event in sandbox.run(RunSpec(argv=(), code="print(1)", limits=Limits())):
            ...  # Output(stream="stdout", data=b"1\n"), then Exit(status=Status.ok, ...)
"""

from __future__ import annotations

import asyncio
import logging
import math
import platform
import sys
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from angelos.core.errors import AngelError, InvalidInput, Unavailable
from angelos.core.messages import Limits, Status, Tier
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import cgroup, seccomp
from angelos.node.sandbox.box import Box, Order
from angelos.node.sandbox.launch import Launcher, find_bwrap
from angelos.node.sandbox.layout import (
    BASE_ENV,
    TMP,
    Bind,
    Interpreter,
    system_binds,
    task_binds,
    this_interpreter,
    visible,
)
from angelos.node.sandbox.models import Meter
from angelos.node.sandbox.proc import Sampler
from angelos.node.sandbox.scratch import Leftovers
from angelos.node.sandbox.unsandboxed import BareLauncher, landlock_abi
from angelos.node.sandbox.verdict import MIB, judge

log = logging.getLogger(__name__)

_PATH = "/usr/local/bin:/usr/bin:/bin"
_OPEN_FILES = 512
_SELF_TEST = "print('in the box')"
_GIVE_WAY_S = 0.1


class BubblewrapSandbox:
    """Runs programs in boxes; `async with` owns whatever is started."""

    def __init__(self, config: SandboxConfig | None = None) -> None:
        """Take the configuration; nothing is tried before `async with`."""
        self._config = config or SandboxConfig()
        self.tier = Tier.none
        self.reasons: list[str] = []
        """Why the tier is not `full`."""
        self._folders = Leftovers(self._config.scratch)
        self._groups: cgroup.Cgroups | None = None
        self._launcher: Launcher | BareLauncher | None = None
        self._python: Interpreter = this_interpreter()
        self._binds: tuple[Bind, ...] = ()
        self._landlock = 0
        self._ready: deque[Box] = deque()
        self._open: set[Box] = set()
        self._ends: dict[Box, asyncio.Task[None]] = {}
        self._want = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Find out, by making a box and running in it, which tier this machine gives."""
        try:
            await asyncio.to_thread(self._folders.sweep)
            await self._choose()
            if self._config.ready_boxes and self.tier in {Tier.full, Tier.reduced}:
                self._want.set()
                self._keeper = asyncio.create_task(self._keep_ready(), name="ready boxes")
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
        """End every box and wait until they are gone."""
        await self._close()

    async def _close(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        self._ready.clear()
        for box in tuple(self._open):
            box.kill(Status.killed, "the node was stopped")
            await self._discard(box)
        if self._launcher is not None:
            self._launcher.close()
            self._launcher = None

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
            except Unavailable as error:  # a machine under load deserves a second try
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
            self._launcher = BareLauncher(self._folders)

    async def _self_test(self, tier: Tier) -> None:
        self.tier = tier
        spec = RunSpec(argv=(), code=_SELF_TEST, limits=Limits(wall_s=20))
        said = b""
        async for event in self.run(spec):
            if isinstance(event, Output):
                said += event.data
            elif event.status is not Status.ok:
                text = said.decode(errors="replace").strip()
                why = event.evidence.get("reason", event.status)
                raise Unavailable(f"The box's self-test failed: {why} {text}".strip())

    # -- run -----------------------------------------------------------------------------

    async def run(self, spec: RunSpec) -> AsyncIterator[Output | Exit]:
        """Yield output as it comes and one `Exit` last. Closing the iterator kills the run."""
        if self._launcher is None:
            yield self._refuse("no box can be made on this node: " + " ".join(self.reasons))
            return
        own = task_binds(spec.read_only)
        try:
            box = await self._take(own, spec.limits)
        except Unavailable as error:
            yield self._refuse(str(error))
            return
        ending, reported, refusal = None, True, self._refuse("it has not started")
        try:
            inside = visible((*self._binds, *own))
            order = self._order(spec, box, inside)
            reported = await box.begin(order, spec.limits, spec.stdin)
            async for output in box.output():
                yield output
            ending = box.ending(self.tier, inside)
        except Unavailable as error:
            refusal = self._refuse(str(error))
        finally:
            await self._discard(box)
        if ending is None:
            yield refusal
            return
        status, evidence = judge(ending, spec.limits)
        if not reported:
            evidence["unreported"] = "the kernel gave no listener: refused calls were not counted"
        own_exit = status in {Status.ok, Status.error, Status.denied}
        yield Exit(
            status=status,
            exit_code=ending.exit_code if own_exit else None,
            duration_s=ending.duration_s,
            tier=self.tier,
            evidence=evidence,
        )

    def _refuse(self, reason: str) -> Exit:
        hint = "`angelos doctor` names what is missing"
        evidence: dict[str, object] = {"source": "node", "reason": reason, "hint": hint}
        return Exit(
            status=Status.denied, exit_code=None, duration_s=0.0, tier=self.tier, evidence=evidence
        )

    def _order(self, spec: RunSpec, box: Box, inside: tuple[str, ...]) -> Order:
        if spec.code is None and not spec.argv:
            raise InvalidInput("There is neither code nor a program to run.")
        program = sys.executable if box.scratch else self._python.executable
        argv = spec.argv
        if spec.code is None and argv[0] in {"python", "python3"}:
            argv = (program, *argv[1:])
        env = {**BASE_ENV, "PATH": f"{Path(program).parent}:{_PATH}", **spec.env}
        read, write, chdir = [i for i in inside if i not in {TMP, "/dev"}], TMP, spec.chdir
        machine = platform.machine()
        base = ""
        if box.scratch:  # nothing is bound to another place: name the places themselves
            env = {k: v.replace(TMP, box.scratch) if v == TMP else v for k, v in env.items()}
            here = {TMP: box.scratch, **spec.read_only}
            read = [bind.source for bind in self._binds] + list(spec.read_only.values())
            read, write = [*read, "/bin", "/lib", "/lib64", "/proc"], box.scratch
            chdir = here.get(spec.chdir, spec.chdir)
            base = seccomp.base_filter(machine, counted=self._groups is not None).hex()
        return Order(
            argv=argv,
            code=spec.code,
            env=env,
            chdir=chdir,
            rlimits=self._rlimits(spec.limits, bare=bool(box.scratch)),
            landlock={"read": tuple(read), "write": (write, "/dev")} if self._landlock else None,
            notify_filter=seccomp.watch_filter(
                machine, action="notify", forks=self._groups is None
            ).hex(),
            refuse_filter=seccomp.watch_filter(machine, action="refuse").hex(),
            base_filter=base,
            bare=bool(box.scratch),
        )

    def _rlimits(self, limits: Limits, *, bare: bool) -> dict[str, int]:
        """Return what the kernel counts for each process: a backstop, or all there is."""
        found = {
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": _OPEN_FILES,
            "RLIMIT_MSGQUEUE": 0,
            "RLIMIT_CPU": math.ceil(limits.cpu_s) + 1,
        }
        if self._groups is None:
            if not bare:  # there the kernel would count everything that its user runs
                found["RLIMIT_NPROC"] = limits.pids + 8  # the sampler says when it is above `pids`
            found["RLIMIT_FSIZE"] = limits.disk_mb * MIB
        return found

    def _meter(self) -> Meter:
        return self._groups.new() if self._groups is not None else Sampler()

    # -- boxes ---------------------------------------------------------------------------

    async def _take(self, own: tuple[Bind, ...], limits: Limits) -> Box:
        if not own and limits.disk_mb == Limits().disk_mb:
            while self._ready:
                box = self._ready.popleft()
                self._want.set()
                if box.alive:
                    return box
                await self._discard(box)
        return await self._start(own, limits.disk_mb)

    async def _start(self, own: tuple[Bind, ...], disk_mb: int) -> Box:
        assert self._launcher is not None  # noqa: S101 - run() and __aenter__ saw to it
        try:
            meter = self._meter()
        except OSError as error:
            raise Unavailable(f"The box's control group cannot be made: {error}") from error
        try:
            started = await self._launcher.start(self._binds, own, disk_mb)
        except BaseException:
            meter.close()
            raise
        box = Box(started, meter)
        self._open.add(box)
        try:
            await box.ready()
        except BaseException:
            await self._discard(box)
            raise
        return box

    async def _discard(self, box: Box) -> None:
        """End a box. A caller who is cancelled meanwhile leaves the rest of it to us."""
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

    async def _keep_ready(self) -> None:
        """Start boxes ahead, one after the other, whenever some were taken.

        Not at once while others are ready: a start takes the processor from the run for which a
        box was just taken, which is over before that if it is short.
        """
        while True:
            await self._want.wait()
            self._want.clear()
            if self._ready:
                await asyncio.sleep(_GIVE_WAY_S)
            while len(self._ready) < self._config.ready_boxes:
                try:
                    self._ready.append(await self._start((), Limits().disk_mb))
                except Unavailable as error:
                    log.warning("No box could be started ahead: %s", error)
                    break
                except Exception:
                    log.exception("No box could be started ahead")
                    break
