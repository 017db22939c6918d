"""The node: takes commands from its channel, checks each grant, carries it out, tells facts.

    async with Node(config, connect, fetch_bundle, sandbox, clock, keys) as node:
        await node.run()         # until the channel has ended for good, or it is cancelled

Tasks run beside each other up to `slots`; cancelling, revoking and checking out never wait for
them. A command is acknowledged when it is finished and its last fact is with the channel, so a
command whose node died is delivered again. On the way out running tasks end as `killed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from angelos.adapters.host.datadir import write_private
from angelos.core.errors import (
    AngelError,
    Busy,
    DeadlineExceeded,
    Forbidden,
    InvalidInput,
    Unavailable,
)
from angelos.core.frames import Envelope
from angelos.core.grants import Grant, check_grant, read_grant
from angelos.core.ids import CommandId, PrincipalId, TaskId
from angelos.core.messages import (
    CancelTask,
    Checkout,
    Command,
    Kind,
    RevokeGrants,
    RunTask,
    Status,
    TaskResult,
    decode,
    decode_payload,
    encode,
)
from angelos.core.ports import Channel, Clock, Sandbox
from angelos.core.signing import VerifyKey
from angelos.node.checkouts.pulls import Pulls
from angelos.node.checkouts.store import Checkouts, FetchBundle
from angelos.node.commands import inbox
from angelos.node.commands.attempts import Attempts
from angelos.node.commands.facts import Saying
from angelos.node.commands.output import Feed
from angelos.node.commands.runner import Runner
from angelos.node.commands.slots import Slots
from angelos.node.config import NodeConfig

log = logging.getLogger(__name__)
Connect = Callable[[dict[str, str]], AbstractAsyncContextManager[Channel]]
_GOODBYE_S = 10.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys that a node was enrolled with."""

    grant: VerifyKey
    revision: VerifyKey


class _NotKept(AngelError):
    """A revocation is in force but could not be written down; it is taken again when it comes."""


@dataclass(slots=True)
class _Work:
    """A command that is being carried out."""

    who: PrincipalId
    job: asyncio.Task[None]
    task: TaskId | None = None
    kill: str = ""
    """Why it is to end, once somebody wants that."""


class Node:
    """One node's life; `async with` owns its jobs."""

    def __init__(
        self,
        config: NodeConfig,
        connect: Connect,
        fetch_bundle: FetchBundle,
        sandbox: Sandbox,
        clock: Clock,
        keys: Keys,
    ) -> None:
        """Take the parts; `sandbox` is already entered."""
        self.id = PrincipalId(f"node/{config.name}")
        self._config = config
        self._connect = connect
        self._sandbox = sandbox
        self._clock = clock
        self._keys = keys
        self.checkouts = Checkouts(
            config.directory, keys.revision, fetch_bundle, config.keep_checkouts
        )
        self._runner = Runner(config.name, sandbox, self.checkouts)
        self._pulls = Pulls(sandbox, self.checkouts)
        self._slots = Slots(config.slots, config.waiting, clock)
        self._ledger = inbox.Ledger()
        self._attempts = Attempts(config.directory / "begun.json")
        self._work: dict[CommandId, _Work] = {}
        self._channel: Channel | None = None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._config.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(self.checkouts.sweep)
        self._ledger = await asyncio.to_thread(inbox.load, self._revoked_file)
        info = {"tier": self._sandbox.tier, "role": self._config.role}
        self._channel = await self._stack.enter_async_context(self._connect(info))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what runs as `killed`, tell so, and close the channel."""
        try:
            for work in self._work.values():
                self._kill(work, "the node was stopped")
            jobs = [work.job for work in self._work.values()]
            if jobs:
                _, late = await asyncio.wait(jobs, timeout=_GOODBYE_S)
                for job in late:  # the channel takes nothing any more
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
        finally:
            await self._stack.aclose()

    async def run(self) -> None:
        """Take commands for ever; raises `Unavailable` when the channel has ended for good."""
        while True:
            for envelope in await self._link.recv():
                if envelope.kind == "command":
                    await self._receive(envelope)

    # -- commands ------------------------------------------------------------------------

    async def _receive(self, envelope: Envelope) -> None:
        try:
            command = decode(envelope.body, Command)
        except InvalidInput as error:
            log.warning("Dropped a command that cannot be read: %s", error)
            await self._ack(CommandId(envelope.id))
            return
        match self._ledger.receive(command.id):
            case "finished":
                await self._ack(command.id)
            case "start":
                self._begin(command)
            case "running":
                log.info("Command %s came again while it runs", command.id)

    def _begin(self, command: Command) -> None:
        """Start a job for a command; its kind and grant are looked at inside."""
        who = PrincipalId("")
        job = asyncio.create_task(self._job(command), name=f"command {command.id}")
        self._work[command.id] = _Work(who, job)

    async def _job(self, command: Command) -> None:
        work = self._work[command.id]
        try:
            await self._carry_out(command, work)
        except _NotKept as error:
            log.error("Command %s is not acknowledged: %s", command.id, error)  # noqa: TRY400
            self._ledger.forget(command.id)
            return
        except AngelError as error:
            log.warning("Command %s was not carried out: %s", command.id, error)
        except Exception:
            log.exception("Command %s failed", command.id)
        finally:
            self._work.pop(command.id, None)
            self._attempts.end(command.id)
        self._ledger.finish(command.id)
        with contextlib.suppress(AngelError):  # the channel has ended: it is delivered again
            await self._ack(command.id)

    async def _carry_out(self, command: Command, work: _Work) -> None:
        payload = decode_payload(command.payload)
        refusal: AngelError | None = None
        try:
            work.who = self._allowed(command).who
        except AngelError as error:
            refusal = error
        match payload:
            case RunTask():
                if refusal is not None and self._runs(payload.task):
                    raise refusal  # said of the task, it would end what another command began
                work.task = payload.task
                await self._run_task(command, payload, work, refusal)
            case Checkout():
                await self._check_out(command, payload, work, refusal)
            case CancelTask() | RevokeGrants():
                if refusal is not None:
                    raise refusal
                await self._stop(command, payload)

    def _allowed(self, command: Command) -> Grant:
        now = self._clock.time()
        grant = check_grant(self._keys.grant, command.grant, command.payload, self.id, now)
        self._ledger.check(grant)
        if command.to != self.id:
            raise Forbidden(f"The command is for {command.to}, not for {self.id}.")
        return grant

    async def _stop(self, command: Command, payload: CancelTask | RevokeGrants) -> None:
        match payload:
            case CancelTask(task=task, command=of, reason=reason):
                reason = reason or "cancelled"
                if of and self._ledger.cancel(of) == "end":
                    await self._unseen(Saying(self.id, of, command.trace), task, reason)
                    return
                found = [work for work in self._work.values() if work.task == task]
            case RevokeGrants(principal=principal, reason=reason):
                self._ledger.revoke(principal, read_grant(command.grant))
                found = [work for work in self._work.values() if work.who == principal]
                reason = f"the grants of {principal} were revoked: {reason}".rstrip(": ")
        jobs = [work.job for work in found if work.job is not asyncio.current_task()]
        for work in found:
            if work.job in jobs:
                self._kill(work, reason)
        if isinstance(payload, RevokeGrants):
            try:
                await asyncio.to_thread(write_private, self._revoked_file, self._ledger.dump())
            except OSError as error:
                raise _NotKept(
                    f"It is in force, but {self._revoked_file} cannot be written: {error}"
                ) from error
        elif jobs:
            # Acknowledged only then: should we die before, the end is said at the next start.
            await asyncio.wait(jobs)

    async def _unseen(self, saying: Saying, task: TaskId, reason: str) -> None:
        """Say the end of a task whose command has not come, and is passed over if it does."""
        evidence = {"source": "node", "reason": reason}
        result = self._runner.result(Status.killed, Feed(), evidence=evidence)
        await self._finished(saying, task, result)

    def _runs(self, task: TaskId) -> bool:
        return any(work.task == task for work in self._work.values())

    @staticmethod
    def _kill(work: _Work, reason: str) -> None:
        if not work.kill:
            work.kill = reason
            work.job.cancel()

    # -- tasks ---------------------------------------------------------------------------

    async def _run_task(
        self, command: Command, task: RunTask, work: _Work, refusal: AngelError | None
    ) -> None:
        feed, saying = Feed(), Saying(self.id, command.id, command.trace)

        async def started() -> None:
            await self._say(
                saying, Kind.task_started, task.task, node=self._config.name,
                tier=self._sandbox.tier, attempt=self._attempts.begin(command.id),
            )  # fmt: skip

        async def say(kind: Kind, **data: Any) -> None:
            await self._say(saying, kind, task.task, **data)

        begun = self._clock.monotonic()
        try:
            if refusal is not None:
                raise refusal  # noqa: TRY301 - told like any other error below
            async with self._slots.one(command.deadline):
                result = await self._runner.run(task, started, say, feed)
        except Forbidden as error:
            evidence = {"source": "grant", "reason": str(error)}
            result = self._runner.result(Status.denied, feed, evidence=evidence)
        except (Busy, DeadlineExceeded) as error:
            evidence = {"source": "node", "reason": str(error), "code": error.code}
            result = self._runner.result(Status.killed, feed, evidence=evidence)
        except Exception as error:
            # A full disk, say. Whatever it is, the task has ended and somebody waits to hear it.
            log.exception("Task %s failed on the node", task.task)
            evidence = {
                "source": "node",
                "reason": f"The node failed: {error}",
                "code": _code(error),
            }
            result = self._runner.result(Status.killed, feed, evidence=evidence)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not work.kill or current is None:
                raise
            current.uncancel()
            evidence = {"source": "node", "reason": work.kill}
            seconds = self._clock.monotonic() - begun
            result = self._runner.result(Status.killed, feed, evidence=evidence, seconds=seconds)
        work.kill = work.kill or "it has finished"  # too late to stop it now
        await self._finished(saying, task.task, result)

    async def _finished(self, saying: Saying, task: TaskId, result: TaskResult) -> None:
        data = msgspec.to_builtins(result)
        await self._say(saying, Kind.task_finished, task, outcome=result.status, once=True, **data)

    # -- checkouts -----------------------------------------------------------------------

    async def _check_out(
        self, command: Command, wish: Checkout, work: _Work, refusal: AngelError | None
    ) -> None:
        try:
            if refusal is not None:
                raise refusal  # noqa: TRY301 - told like any other error below
            told = await self._pulls.pull(wish)
        except AngelError as error:
            told = self._pulls.failed(wish, error.code, str(error))
        except Exception as error:
            log.exception("%s of %s was not checked out", wish.revision, wish.repo)
            detail = f"The revision cannot be kept: {error}"
            told = self._pulls.failed(wish, _code(error), detail)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if not work.kill or current is None:
                raise
            current.uncancel()
            told = self._pulls.failed(wish, Status.killed, work.kill)
        await self._say(
            Saying(self.id, command.id, command.trace), told.kind, self.id, outcome=told.outcome,
            revision=wish.revision, once=True, **told.data,
        )  # fmt: skip

    # -- channel -------------------------------------------------------------------------

    @property
    def _link(self) -> Channel:
        assert self._channel is not None  # noqa: S101 - inside `async with`
        return self._channel

    @property
    def _revoked_file(self) -> Path:
        return self._config.directory / "revoked.json"

    async def _say(self, saying: Saying, kind: Kind, subject: str, **fields: Any) -> None:
        """Tell a fact, with its `fields` and data as `Saying.fact` takes them."""
        fact = saying.fact(self._clock.time(), kind, subject, **fields)
        await self._link.send([Envelope("fact", fact.id, encode(fact))])

    async def _ack(self, command: CommandId) -> None:
        await self._link.send([Envelope("ack", command, b"")])


def _code(error: Exception) -> str:
    """Return the error code of what was not expected: a full disk may have room later."""
    return Unavailable.code if isinstance(error, OSError) else AngelError.code
