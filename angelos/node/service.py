"""The node: receives commands from its channel, verifies each grant and dispatches to handlers.

    async with Node(config, connect, fetch_bundle, sandbox, clock, keys) as node:
        await node.run()         # until the channel has ended for good, or it is cancelled

Up to `slots` tasks run at once; cancelling, revoking and checking out never wait for them. A
command is acknowledged when it has finished and its last fact is with the channel, so a command
whose node died is delivered again. When the node stops, running tasks end as `killed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from angelos.core.envelopes import Lane
from angelos.core.errors import AngelError, Forbidden, InvalidInput
from angelos.core.facts import NodeLoad
from angelos.core.frames import Dispatch
from angelos.core.grants import Grant, check_grant
from angelos.core.ids import CommandId, PrincipalId
from angelos.core.messages import (
    CancelTask,
    Checkout,
    Command,
    PauseTasks,
    RevokeGrants,
    RunTask,
    decode,
    decode_payload,
)
from angelos.core.ports import Channel, Clock, SessionSandbox
from angelos.core.signing import VerifyKey
from angelos.core.tracing import traced
from angelos.node.broker.service import Brokers
from angelos.node.checkouts.pulls import Pulls
from angelos.node.checkouts.store import Checkouts, FetchBundle
from angelos.node.commands import inbox
from angelos.node.commands.attempts import Attempts
from angelos.node.commands.check_out import CheckOutHandler
from angelos.node.commands.facts import FactOrigin
from angelos.node.commands.jobs import Job, Jobs, StopCode, StopReason
from angelos.node.commands.outbox import Outbox
from angelos.node.commands.pauses import PausedPrincipals
from angelos.node.commands.run import RunHandler
from angelos.node.commands.runner import Runner
from angelos.node.commands.slots import Slots
from angelos.node.commands.stop import NotStored, StopHandler
from angelos.node.config import NodeConfig
from angelos.node.environments.store import Environments, package_index
from angelos.node.files.inputs import Inputs
from angelos.node.files.models import NoFiles, TaskFiles
from angelos.node.load import SlotUsage
from angelos.node.runtimes.builder import Builder
from angelos.node.runtimes.program import Programs

log = logging.getLogger(__name__)
Connect = Callable[[dict[str, str]], AbstractAsyncContextManager[Channel]]
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys that a node was enrolled with."""

    grant: VerifyKey
    revision: VerifyKey


@dataclass(frozen=True, slots=True)
class _Connected:
    """What exists while the channel is open."""

    channel: Channel
    inbox: inbox.Inbox
    outbox: Outbox
    slots: Slots
    run: RunHandler
    check_out: CheckOutHandler
    stop: StopHandler


class Node:
    """One node; `async with` owns its jobs and its channel."""

    def __init__(
        self,
        config: NodeConfig,
        connect: Connect,
        fetch_bundle: FetchBundle,
        sandbox: SessionSandbox,
        clock: Clock,
        keys: Keys,
        files: TaskFiles | None = None,
    ) -> None:
        """Build a node that is not connected yet; `sandbox` is already entered."""
        self._files = files or NoFiles()
        self._inputs = Inputs(config.directory, self._files)
        self._builder = Builder(config.directory)
        self._brokers = Brokers(config.directory, config.network)
        self._environments = Environments(
            config.directory, self._brokers, package_index(config.network)
        )
        self.id = PrincipalId(f"node/{config.name}")
        self._config = config
        self._connect = connect
        self._sandbox = sandbox
        self._clock = clock
        self._keys = keys
        self.checkouts = Checkouts(
            config.directory, keys.revision, fetch_bundle, config.keep_checkouts
        )
        self._attempts = Attempts(config.directory / "begun.json")
        self._jobs = Jobs()
        self._connection: _Connected | None = None
        self._task_ended = asyncio.Event()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self.checkouts.sweep)
        await asyncio.to_thread(self._inputs.sweep)
        await asyncio.to_thread(self._builder.sweep)
        await asyncio.to_thread(self._brokers.sweep)
        await asyncio.to_thread(self._environments.sweep)
        memory = await asyncio.to_thread(inbox.load, self._config.directory / "revoked.json")
        info = {"tier": self._sandbox.tier, "role": self._config.role, **self._config.about}
        channel = await self._stack.enter_async_context(self._connect(info))
        self._connection = self._build(channel, memory)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End running tasks as `killed`, report that, and close the channel."""
        try:
            reason = StopReason(StopCode.shutdown, "the node was stopped")
            await self._jobs.close(reason, _GOODBYE_S)
        finally:
            await self._stack.aclose()
            self._brokers.close()

    async def run(self) -> None:
        """Receive commands for ever; raises `Unavailable` when the channel has ended for good."""
        while True:
            for item in await self._now.channel.recv():
                if isinstance(item, Dispatch):
                    await self._receive(item)

    async def until_idle(self) -> None:
        """Wait until a task has ended and no command is being carried out any more."""
        while True:
            await self._task_ended.wait()
            self._task_ended.clear()
            if self._jobs.idle:
                return

    @property
    def slot_usage(self) -> SlotUsage:
        """How many tasks run here, and how many wait."""
        if self._connection is None:
            return SlotUsage(self._config.slots, 0, 0)
        slots = self._connection.slots
        return SlotUsage(slots.count, slots.busy, slots.waiting)

    @property
    def connected(self) -> bool:
        """Whether there is a connection to the hub now."""
        return self._connection is not None and self._connection.channel.online

    async def report_load(self, load: NodeLoad) -> None:
        """Send a measurement, unless the hub has not even taken what was sent before."""
        if self._now.channel.idle:
            origin = FactOrigin(self.id, CommandId(""))
            await self._now.outbox.report(origin, load, self.id)

    def _build(self, channel: Channel, memory: inbox.Inbox) -> _Connected:
        config = self._config
        outbox = Outbox(self.id, channel, self._clock)
        paused = PausedPrincipals(config.paused_mb)
        slots = Slots(config.slots, config.waiting, self._clock)
        run = RunHandler(
            Runner(
                config.name,
                self._sandbox,
                self.checkouts,
                self._inputs,
                self._files,
                Programs(self._builder, config.runtimes),
                self._environments,
            ),
            slots,
            self._attempts,
            self._jobs,
            outbox,
            self._clock,
            paused,
        )
        return _Connected(
            channel=channel,
            inbox=memory,
            outbox=outbox,
            slots=slots,
            run=run,
            check_out=CheckOutHandler(self.id, Pulls(self._sandbox, self.checkouts), outbox),
            stop=StopHandler(
                memory, config.directory / "revoked.json", self._jobs, run, outbox, paused
            ),
        )

    @property
    def _now(self) -> _Connected:
        assert self._connection is not None  # noqa: S101 - inside `async with`
        return self._connection

    async def _receive(self, dispatch: Dispatch) -> None:
        if dispatch.header.lane not in {Lane.command, Lane.control}:
            await self._now.outbox.refuse(dispatch, "A node takes commands only.")
            return
        try:
            command = decode(dispatch.body, Command)
        except InvalidInput as error:
            log.warning("Refused a command that cannot be read: %s", error)
            await self._now.outbox.refuse(dispatch, error.detail)
            return
        self._now.outbox.dispatched(command.id, dispatch)
        match self._now.inbox.receive(command.id):
            case "finished":
                await self._now.outbox.acknowledge(command.id)
            case "start":
                with traced(command.trace):  # the job is a task of this context
                    self._jobs.start(command, self._work)
            case "running":
                log.info("Command %s arrived again while it runs", command.id)

    async def _work(self, job: Job) -> None:
        """Carry a command out and acknowledge it."""
        command = job.command
        try:
            await self._dispatch(job)
        except NotStored as error:
            log.error("Command %s is not acknowledged: %s", command.id, error)  # noqa: TRY400
            self._now.inbox.forget(command.id)
            return
        except AngelError as error:
            log.warning("Command %s was not carried out: %s", command.id, error)
        except Exception:
            log.exception("Command %s failed", command.id)
        finally:
            self._attempts.end(command.id)
        self._now.inbox.finish(command.id)
        with contextlib.suppress(AngelError):  # the channel has ended: it is delivered again
            await self._now.outbox.acknowledge(command.id)
        if job.task is not None:
            asyncio.get_running_loop().call_soon(self._task_ended.set)  # once it is forgotten

    async def _dispatch(self, job: Job) -> None:
        payload = decode_payload(job.command.payload)  # an unknown kind is refused by name
        try:
            job.principal = self._verified(job.command).who
        except AngelError as error:
            job.refusal = error  # its handler reports it, where a report can be believed
        match payload:
            case RunTask():
                await self._now.run.handle(job, payload)
            case Checkout():
                await self._now.check_out.handle(job, payload)
            case CancelTask():
                await self._now.stop.cancel(job, payload)
            case RevokeGrants():
                await self._now.stop.revoke(job, payload)
            case PauseTasks():
                await self._now.stop.pause(job, payload)

    def _verified(self, command: Command) -> Grant:
        """Return the grant if it allows the command here and now; raise `Forbidden`."""
        now = self._clock.time()
        grant = check_grant(self._keys.grant, command.grant, command.payload, self.id, now)
        self._now.inbox.check(grant)
        if command.to != self.id:
            raise Forbidden(f"The command is for {command.to}, not for {self.id}.")
        return grant
