"""Builds a node from its command line: `python -m angelos.wiring.node --name N --role R --dir DIR`.

DIR holds its key and certificate: `angelos node join - DIR` turns a single-use token into them.
SIGTERM and SIGINT end it cleanly; it exits 0 then, 1 when the hub refuses it for good, 2 on bad
usage. It reconnects on its own and renews its certificate at half life.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.logs import configure
from angelos.adapters.host.notify import give_signs
from angelos.adapters.identity.enrolment import Identity
from angelos.adapters.net.websocket import connect_channel
from angelos.client import Angelos
from angelos.core.errors import AngelError, InvalidInput
from angelos.core.facts import NodeLoad
from angelos.core.ids import TaskId
from angelos.core.messages import Tier
from angelos.core.ports import Channel, Clock
from angelos.core.signing import VerifyKey
from angelos.node.config import NodeConfig, SandboxConfig
from angelos.node.load import REPORT_EVERY_S, BoxCount, LoadMeter
from angelos.node.profile import describe
from angelos.node.sandbox.layout import exposed, system_binds, this_interpreter
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.service import Keys, Node
from angelos.wiring.monitoring.node import NodeListener, NodeMonitor
from angelos.wiring.settings import LogSettings, load_log, load_nodes, notify_socket
from angelos.wiring.tracing.export import exporting

log = logging.getLogger("angelos.node")
_FLUSH_S = 5.0
_MAX_SLOTS = 1024


def main(argv: Sequence[str] | None = None) -> int:
    """Run a node until a signal ends it; return the exit code."""
    options = _options(argv)
    try:
        run_node(_config(options), load_log())
    except InvalidInput as error:
        sys.stderr.write(f"angelos.node: {error}\n")
        return 2
    except AngelError as error:
        sys.stderr.write(f"angelos.node: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"angelos.node: {options.dir} cannot be used: {error}\n")
        return 1
    return 0


def run_node(config: NodeConfig, logs: LogSettings) -> None:
    """Run a node until a signal ends it.

    Args:
        config: The node's.
        logs: How it logs, and whether it sends traces.

    Raises:
        InvalidInput: its directory cannot be used.
        Unauthenticated: the hub refuses it for good.
    """
    configure(logs.format, f"node/{config.name}")
    asyncio.run(_run(config, logs))


def config_of(
    folder: Path,
    *,
    slots: int = 0,
    labels: Sequence[str] = (),
    once: bool = False,
    allow_unsandboxed: bool = False,
    metrics: str = "",
) -> NodeConfig:
    """Return the settings of the node that has joined in a folder.

    Raises:
        NotFound: nobody has joined there.
        InvalidInput: the identity there is damaged, or that of an agent.
    """
    identity = Identity.load(folder)
    kind, _, name = identity.id.partition("/")
    if kind != "node":
        raise InvalidInput(f"{folder} holds the identity of {identity.id}, which is no node.")
    return NodeConfig(
        name=name,
        role="labs" if identity.enrolled.node_role == "labs" else "execution",
        directory=folder,
        slots=slots or os.cpu_count() or 1,
        about=describe(load_nodes().runtimes, labels).texts(),
        runtimes=load_nodes().runtimes,
        network=load_nodes().network,
        once=once,
        metrics=metrics or load_nodes().metrics,
        sandbox=SandboxConfig(
            allow_unsandboxed=allow_unsandboxed or load_nodes().allow_unsandboxed,
            scratch=folder / "scratch",
        ),
    )


def _config(options: argparse.Namespace) -> NodeConfig:
    return NodeConfig(
        name=options.name,
        role=options.role,
        directory=options.dir,
        slots=options.slots,
        about=describe(load_nodes().runtimes).texts(),
        runtimes=load_nodes().runtimes,
        network=load_nodes().network,
        sandbox=SandboxConfig(
            allow_unsandboxed=options.allow_unsandboxed or load_nodes().allow_unsandboxed,
            scratch=options.dir / "scratch",
        ),
    )


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m angelos.wiring.node", description="An AngelOS node."
    )
    parser.add_argument("--name", required=True, help="the name it is enrolled under")
    parser.add_argument("--role", choices=("execution", "labs"), default="execution")
    parser.add_argument("--dir", type=Path, required=True, help="where it keeps key and checkouts")
    parser.add_argument("--slots", type=_slots, default=os.cpu_count() or 1, help="tasks at once")
    parser.add_argument(
        "--allow-unsandboxed",
        action="store_true",
        help="run trusted code even where no box can be made [env: ANGELOS_ALLOW_UNSANDBOXED]",
    )
    return parser.parse_args(argv)


def _slots(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MAX_SLOTS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {_MAX_SLOTS}")
    return int(text)


async def _run(config: NodeConfig, logs: LogSettings) -> None:
    readable = exposed(config.directory, (*system_binds(), *this_interpreter().binds))
    if readable:
        raise InvalidInput(
            f"{config.directory} lies in {readable}, which every task may read, and with it the"
            " node's private key.",
            hint="Choose another --dir.",
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    identity = Identity.load(config.directory)
    if identity.id != f"node/{config.name}":
        raise InvalidInput(f"{config.directory} holds the identity of {identity.id}.")
    keys = Keys(
        grant=VerifyKey(identity.enrolled.grant_key),
        revision=VerifyKey(identity.enrolled.revision_key),
    )
    tasks = (
        asyncio.create_task(_work(config, identity, keys, clock), name="node"),
        asyncio.create_task(give_signs(notify_socket()), name="signs of life"),
        asyncio.create_task(stop.wait(), name="stop"),
    )
    async with exporting("angelos-node", config.name, wanted=logs.traces):
        await _first(*tasks)


async def _work(config: NodeConfig, identity: Identity, keys: Keys, clock: Clock) -> None:
    """Connect, for as long as that takes, and carry commands out until the hub refuses the node."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(BubblewrapSandbox(config.sandbox))
        log.info("%s: isolation %s %s", identity.id, sandbox.tier, " ".join(sandbox.reasons))
        angelos = Angelos(identity.hub_url, tls=identity.client_context())
        node = Node(
            config,
            lambda info: _connect(identity, clock, info),
            lambda repo, revision, have: angelos.repos[repo].bundle(revision, have),
            sandbox,
            clock,
            keys,
            _ServerFiles(angelos),
        )
        if config.metrics:
            monitor = _monitor(config, node, sandbox)
            await stack.enter_async_context(NodeListener(config.metrics, monitor))
        async with angelos, node:
            jobs = [
                asyncio.create_task(node.run(), name="commands"),
                asyncio.create_task(identity.keep_renewed(clock), name="renewal"),
                asyncio.create_task(_report_loads(node, sandbox, config.directory), name="load"),
            ]
            if config.once:
                jobs.append(asyncio.create_task(node.until_idle(), name="idle"))
            await _first(*jobs)


def _monitor(config: NodeConfig, node: Node, sandbox: BubblewrapSandbox) -> NodeMonitor:
    meter = LoadMeter(config.directory)
    boxed = sandbox.tier in {Tier.full, Tier.reduced}
    return NodeMonitor(
        lambda: _load(meter, node, sandbox),
        lambda: node.connected,
        sandbox.tier,
        runs=boxed or config.sandbox.allow_unsandboxed,
    )


async def _report_loads(node: Node, sandbox: BubblewrapSandbox, folder: Path) -> None:
    """Tell the hub every few seconds how busy the node is, for ever."""
    meter = LoadMeter(folder)
    while True:
        await node.report_load(_load(meter, node, sandbox))
        await asyncio.sleep(REPORT_EVERY_S)


def _load(meter: LoadMeter, node: Node, sandbox: BubblewrapSandbox) -> NodeLoad:
    return meter.measure(node.slot_usage, BoxCount(sandbox.boxes_ready, sandbox.boxes_open))


class _ServerFiles:
    """`node.files.models.TaskFiles` by the server's API."""

    def __init__(self, angelos: Angelos) -> None:
        self._angelos = angelos

    async def fetch(self, task: TaskId, digest: str) -> bytes:
        return await self._angelos.tasks[task].input(digest)

    async def keep(self, task: TaskId, content: bytes) -> None:
        await self._angelos.tasks[task].keep_output(content)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one task has ended, end the rest, and raise the error of any."""
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


@contextlib.asynccontextmanager
async def _connect(
    identity: Identity, clock: Clock, info: dict[str, str]
) -> AsyncIterator[Channel]:
    """Connect to the hub; on leaving, wait a moment until it has processed the last facts."""
    info = {**info, "pid": str(os.getpid())}
    async with connect_channel(
        identity.hub_url, identity.client_context(), clock, info=info, patience_s=None
    ) as channel:
        yield channel
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while channel.machine.waiting and channel.ended is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)


if __name__ == "__main__":
    sys.exit(main())
