"""Starts kernels in boxes with every layer that tasks have, and keeps them until they end.

    async with KernelHost(SandboxConfig()) as host:
        kernel = await host.start_kernel(KernelOrder(argv=..., folder=..., ...))
        kernel.interrupt()
        exit_ = await kernel.wait()

A kernel's box differs from a task's in four points: one folder of the host is writable, what is
written there never gets a set-user-ID bit, TCP works on a loopback of its own (debuggers need it),
and it has no end of time or output.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import signal
from collections.abc import Collection
from pathlib import Path

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Status, Tier
from angelos.node.broker.service import Brokers, OpenBroker
from angelos.node.config import SandboxConfig
from angelos.node.kernels.folder import check_mounted, identities
from angelos.node.kernels.models import KernelExit, KernelLimits, KernelOrder
from angelos.node.kernels.sockets import clear, take_all
from angelos.node.sandbox import seccomp
from angelos.node.sandbox.box import Box, BoxInput, BoxRules, ExecRequest, LandlockRules
from angelos.node.sandbox.launch import NOBODY, Launcher
from angelos.node.sandbox.layout import (
    BASE_ENV,
    RUN,
    TMP,
    Bind,
    BoxShape,
    this_interpreter,
    visible,
)
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.sandbox.verdict import judge

log = logging.getLogger(__name__)
SOCKETS = f"{RUN}/s"
_OPEN_FILES = 4096
_SYSTEM = ("/bin", "/lib", "/lib64", "/proc")
_WORDS = {
    Status.oom: "it used more than its {memory_mb} MB of memory",
    Status.pids: "it had more than {pids} processes and threads",
    Status.denied: "it made too many system calls that its box refuses",
}


class KernelHost(BubblewrapSandbox):
    """Starts kernels; `async with` owns all of them, and finds out the tier."""

    def __init__(self, config: SandboxConfig, brokers: Brokers | None = None) -> None:
        """Open to kernels what their orders say by `brokers`; without them, nothing."""
        super().__init__(config)
        self._brokers = brokers
        # A kernel has its folder at its own path, so nothing else needs the place of a task's.
        self._python = this_interpreter(moved=False)

    @property
    def usable(self) -> bool:
        """Return whether kernels can be started here."""
        return self._launcher is not None

    async def start_kernel(self, order: KernelOrder) -> RunningKernel:
        """Start a kernel in a box of its own.

        Raises:
            Unavailable: No box can be made here, or this one did not start.
        """
        if self._launcher is None:
            raise Unavailable(
                "No kernel can be started: no box can be made here. " + " ".join(self.reasons),
                hint="`angelos doctor` names what is missing.",
            )
        async with contextlib.AsyncExitStack() as stack:
            broker = await self._open_broker(order, stack)
            box = await self._start_box(order, broker)
            return RunningKernel(self, box, order, self.tier, broker, stack.pop_all())

    async def _open_broker(
        self, order: KernelOrder, stack: contextlib.AsyncExitStack
    ) -> OpenBroker | None:
        network = order.network
        apart = isinstance(self._launcher, Launcher)  # else it would be on the host's own loopback
        if network is None or self._brokers is None or not apart:
            return None
        opened = self._brokers.opened(network.rules, network.by, network.name, network.report)
        return await stack.enter_async_context(opened)

    async def _start_box(self, order: KernelOrder, broker: OpenBroker | None) -> Box:
        """Start the box of a kernel and the kernel in it."""
        expected = {} if order.folder is None else identities(order.folder)
        clear(order.names, order.sockets, order.dialed)
        own = binds_of(order, expected)
        if broker is not None:
            own += tuple(Bind(source, inside) for inside, source in broker.read_only.items())
        limits = order.limits
        shape = BoxShape(own=own, disk_mb=limits.disk_mb, shm_mb=limits.memory_mb)
        box = await self._start(shape)
        box.patient = True
        try:
            if not box.scratch:
                check_mounted(box.task, expected)
            paths = visible((*self._binds, *own))
            rules = self._kernel_rules(order, box, paths)
            await box.seal(msgspec.structs.replace(rules, broker=broker is not None), limits)
            await box.begin(self._kernel_request(order, box, broker), limits, BoxInput())
        except BaseException:
            await self._discard(box)
            raise
        return box

    def socket_folder(self, sockets: Path) -> str:
        """Return where a kernel has the folder of its sockets."""
        return SOCKETS if isinstance(self._launcher, Launcher) else str(sockets)

    async def discard(self, box: Box) -> None:
        """Close a box and free what it had."""
        await self._discard(box)

    def _kernel_request(
        self, order: KernelOrder, box: Box, broker: OpenBroker | None
    ) -> ExecRequest:
        home = box.scratch or TMP
        network = {} if broker is None else broker.env
        packages = ""
        if broker is not None and order.network is not None and order.network.index:
            # `%pip install` puts packages where this kernel alone finds them, until it ends.
            packages = f"{home}/.packages"
            network |= {
                "PIP_INDEX_URL": order.network.index,
                "PIP_TARGET": packages,
                "PYTHONPATH": packages,
            }
        env = {name: home if value == TMP else value for name, value in BASE_ENV.items()}
        rlimits = self._rlimits(order.limits, unsandboxed=bool(box.scratch))
        rlimits["RLIMIT_NOFILE"] = _OPEN_FILES
        for name in ("RLIMIT_CPU", "RLIMIT_FSIZE"):
            rlimits.pop(name, None)
        return ExecRequest(
            argv=order.argv,
            code=None,
            env={**env, "IPYTHONDIR": f"{home}/.ipython", **network, **order.env},
            chdir=order.chdir or str(order.folder or home),
            rlimits=rlimits,
            packages=packages,
        )

    def _kernel_rules(self, order: KernelOrder, box: Box, paths: tuple[str, ...]) -> BoxRules:
        apart, counted = not box.scratch, self._groups is not None
        notify, refuse = _filters(apart=apart, counted=counted)
        base = b"" if apart else seccomp.base_filter(platform.machine(), counted=counted)
        rules = self._kernel_paths(order, box.scratch or TMP, paths, apart=apart)
        return BoxRules(
            landlock=rules if self._landlock else None,
            notify_filter=notify,
            refuse_filter=refuse,
            base_filter=base,
            unsandboxed=not apart,
        )

    def _kernel_paths(
        self, order: KernelOrder, home: str, paths: tuple[str, ...], *, apart: bool
    ) -> LandlockRules:
        """Return what Landlock lets a kernel do with which paths (`shim.py`)."""
        write = tuple(str(path) for path in (order.folder, home, "/dev") if path)
        sockets = SOCKETS if apart else str(order.sockets)
        if apart:
            # Python looks for modules by listing folders, and here is nothing but what is bound.
            names, read = (
                ("/",),
                tuple(path for path in paths if path not in {*write, sockets}),
            )
        else:  # nothing is bound: the host's own paths
            names = tuple({str(path.parent) for path in order.read_only})
            bound = (bind.source for bind in self._binds)
            read = (*bound, *_SYSTEM, str(order.private), *map(str, order.read_only))
        return LandlockRules(names=names, read=read, write=write, linkless=(sockets,), tcp=apart)


def _filters(*, apart: bool, counted: bool) -> tuple[bytes, bytes]:
    """Return the filters of kernels, one that reports and one that does not."""
    machine = platform.machine()
    forks = not counted
    return (
        seccomp.watch_filter(machine, action="notify", forks=forks, inet=apart, keeps_files=True),
        seccomp.watch_filter(machine, action="refuse", inet=apart, keeps_files=True),
    )


def binds_of(order: KernelOrder, protected: Collection[str]) -> tuple[Bind, ...]:
    """Return the binds of one kernel; what is inside another comes after it.

    Args:
        order: The kernel.
        protected: Its folder, and what is read-only in it.
    """
    binds = [Bind(str(path), str(path)) for path in order.read_only]
    folder = str(order.folder)
    binds += [Bind(path, path, write=path == folder, mapped=True) for path in protected]
    binds.append(Bind(str(order.private), str(order.private)))
    # Not below /tmp: rights of Landlock add up along a path.
    binds.append(Bind(str(order.sockets), SOCKETS, write=True))
    return tuple(binds)


class RunningKernel:
    """A kernel that was started; it removes its box when it ends."""

    def __init__(
        self,
        host: KernelHost,
        box: Box,
        order: KernelOrder,
        tier: Tier,
        broker: OpenBroker | None,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        """Take a box in which a kernel has begun; `stack` holds what its broker needs."""
        self._broker, self._stack = broker, stack
        self.tier = tier
        self.ended: KernelExit | None = None
        self.no_sockets: set[str] = set()
        """Names of sockets at which it made something else."""
        self._host, self._box, self._limits = host, box, order.limits
        owner = NOBODY if os.geteuid() == 0 else os.geteuid()
        self._linking = asyncio.create_task(
            take_all(order.names, order.sockets, order.dialed, owner, self.no_sockets),
            name="sockets of a kernel",
        )
        self._serving = asyncio.create_task(self._serve(), name="kernel")

    @property
    def pid(self) -> int:
        """Its process id on this machine."""
        return self._box.task

    def interrupt(self) -> None:
        """Send SIGINT to the kernel itself: bubblewrap and the box's first process would die."""
        self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Send a signal to the kernel; SIGKILL ends the whole box."""
        if number == signal.SIGKILL:
            self._box.kill(Status.killed)
        else:
            self._box.send_signal(number)

    async def wait(self) -> KernelExit:
        """Return how it ended, once nothing of it is left."""
        return await asyncio.shield(self._serving)

    def _networked(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Return what answers on the kernel's loopback while it runs."""
        listener = self._box.take_listener()
        if self._broker is None or listener is None:
            return contextlib.nullcontext()
        return self._broker.broker.serving(listener)

    async def _serve(self) -> KernelExit:
        try:
            async with self._networked():
                async for _ in self._box.output():
                    pass  # a kernel prints by messages; what comes here is native code's
            ending = await self._box.wait()
            status, evidence = judge(ending, self._limits)
            code = ending.exit_code if ending.exit_code is not None else -signal.SIGKILL
            self.ended = KernelExit(
                code=code,
                status=status,
                words=words_for(status, code, self._limits, evidence),
            )
        finally:
            self._linking.cancel()
            await asyncio.gather(self._linking, return_exceptions=True)
            await self._host.discard(self._box)
            await self._stack.aclose()
        return self.ended


def words_for(status: Status, code: int, limits: KernelLimits, evidence: dict[str, object]) -> str:
    """Return for people why a kernel ended.

    >>> words_for(Status.oom, -9, KernelLimits(memory_mb=512), {})
    'The kernel has ended (oom): it used more than its 512 MB of memory.'
    """
    if status in _WORDS:
        reason = _WORDS[status].format(memory_mb=limits.memory_mb, pids=limits.pids)
    elif status is Status.killed:
        reason = str(evidence.get("reason", "it was ended from outside"))
    elif code > 128:  # noqa: PLR2004 - as shells report a signal
        name = signal.Signals(code - 128).name if code - 128 in _SIGNALS else str(code - 128)
        reason = f"the signal {name}"
    else:
        reason = f"exit code {code}"
    return f"The kernel has ended ({status}): {reason}."


_SIGNALS = {int(number) for number in signal.Signals}
