"""Control as a whole: rebuilds its state, carries on what was unfinished, and follows.

    async with Control(parts, People(database)) as control:
        await control.tasks.submit(principal, SubmitTask(code="print(1)"))

The policy is loaded first (`Policy.load`): without one that can be relied on, nothing starts.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Self

from angelos import __version__
from angelos.control.context import Parts
from angelos.control.effect_runner import Handler, Supervisor
from angelos.control.identity.people import People
from angelos.control.proposals.pipeline import Pipeline
from angelos.control.proposals.service import Proposals
from angelos.control.rollout import Rollout
from angelos.control.state import effects
from angelos.control.state.decide import outstanding, overdue
from angelos.control.tasks.dispatch import TaskKeeper
from angelos.control.tasks.service import Tasks
from angelos.control.views import banner, node_view, weakest
from angelos.core.api import NodeView, RepoView, StatusView
from angelos.core.facts import PolicyLoaded, SystemStarted
from angelos.core.signing import VerifyKey

log = logging.getLogger(__name__)


class Control:
    """The control plane. Its rooms: `tasks`, `proposals`, `rollout`, `people`."""

    def __init__(self, parts: Parts, people: People) -> None:
        self.config = parts.config
        self.grant_key: VerifyKey = parts.key.public
        self.ledger = parts.ledger
        self.policy = parts.policy
        self.people = people
        self._parts = parts
        self.tasks = Tasks(self._parts)
        self.pipeline = Pipeline(self._parts, self.tasks, people)
        self.proposals = Proposals(self._parts, self.pipeline)
        self.rollout = Rollout(self._parts, self.pipeline)
        self.started_at = parts.clock.time()
        self._stack = AsyncExitStack()
        self._supervisor: Supervisor | None = None

    async def __aenter__(self) -> Self:
        await self.ledger.load()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        supervisor = Supervisor(self._handlers(), group, self.config)
        self._supervisor = supervisor
        services = [
            group.create_task(self.ledger.follow(supervisor.start), name="control.follow"),
            group.create_task(self._watch(), name="control.watch"),
        ]
        self._stack.callback(lambda: [task.cancel() for task in services])
        self._stack.callback(supervisor.stop)
        try:
            await self._announce()
            await self.rollout.survey()
            supervisor.start(outstanding(self.ledger.state))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def status(self) -> StatusView:
        """Return the system at a glance."""
        state, repository = self.ledger.state, self._parts.repository
        repos = [
            RepoView(
                name=name,
                dev=await repository.head(name, "dev"),
                main=await repository.head(name, "main"),
            )
            for name in await repository.repos()
        ]
        return StatusView(
            version=__version__,
            started_at=self.started_at,
            tier=weakest(state),
            nodes=self.nodes(),
            repos=tuple(repos),
            tasks_running=sum(task.open for task in state.tasks.values()),
            waiting=sum(p.state == "waiting" for p in state.proposals.values()),
            journal=state.offset,
            policy=self.policy.hash,
            banner=banner(state),
        )

    def nodes(self) -> tuple[NodeView, ...]:
        """Return all enrolled nodes."""
        state = self.ledger.state
        return tuple(node_view(state, node) for node in state.nodes.values())

    def sweep(self) -> None:
        """End what is overdue; called once every tick."""
        if self._supervisor is not None:
            now = self._parts.clock.time()
            self._supervisor.start(
                overdue(self.ledger.state, now, self.config.grace_s, self.config.node_gone_s)
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.tick_s)
            self.sweep()

    async def _announce(self) -> None:
        """Say that control has started, and which policy is in force if that is another one."""
        started = SystemStarted(version=__version__)
        facts = [self.ledger.fact(started, "system/control")]
        if self.ledger.state.policy != self.policy.hash:
            loaded = PolicyLoaded(hash=self.policy.hash, files=tuple(self.policy.files))
            facts.append(self.ledger.fact(loaded, "system/control"))
        await self.ledger.say(*facts)

    def _handlers(self) -> dict[type[effects.Effect], Handler]:
        keeper = TaskKeeper(self._parts)
        return {
            effects.PutTask: keeper.put,
            effects.StopTask: keeper.stop,
            effects.EndTask: keeper.end,
            effects.AbandonTask: keeper.abandon,
            effects.Merge: self.pipeline.merge,
            effects.MakeCandidate: self.pipeline.make_candidate,
            effects.RunSteps: self.pipeline.run_steps,
            effects.Judge: self.pipeline.judge,
            effects.Promote: self.pipeline.promote,
            effects.Reject: self.pipeline.reject,
            effects.Revert: self.pipeline.revert,
            effects.AskCheckout: self.rollout.ask,
            effects.PutCheckout: self.rollout.put,
            effects.RollBack: self.rollout.roll_back,
            effects.Revoke: self.rollout.revoke,
        }
