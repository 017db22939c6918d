"""The control plane as a whole: rebuilds its state, continues what was unfinished, and follows.

For example:

    async with Control(context, PeopleStore(database, journal, clock)) as control:
        await control.tasks.submit(principal, SubmitTask(code="print(1)"))
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from typing import Self

from angelos import __version__
from angelos.control.cards import banner_of, cards
from angelos.control.context import ControlContext
from angelos.control.effect_runner import EffectRunner, Handler
from angelos.control.identity.people import PeopleStore
from angelos.control.pauses import Pauses
from angelos.control.proposals.pipeline import Pipeline
from angelos.control.proposals.service import ProposalService
from angelos.control.proposals.testing import CandidateTester
from angelos.control.quarantines import Quarantines
from angelos.control.rollout import Rollout
from angelos.control.state import effects
from angelos.control.state.decide import expired, outstanding, overdue, stuck
from angelos.control.state.pauses import exhausted
from angelos.control.tasks.dispatch import TaskDispatcher
from angelos.control.tasks.service import TaskService
from angelos.control.views import banner, node_view, restart_views, weakest
from angelos.core.api import NodeView, RepoView, StatusView
from angelos.core.errors import AngelError, Unavailable
from angelos.core.facts import PolicyLoaded, SystemStarted
from angelos.core.signing import VerifyKey

log = logging.getLogger(__name__)


class Control:
    """The control plane: `tasks`, `proposals`, `rollout` and `people`."""

    def __init__(self, context: ControlContext, people: PeopleStore) -> None:
        self.config = context.config
        self.grant_key: VerifyKey = context.key.public
        self.projection = context.projection
        self.policy = context.policy
        self.people = people
        self._context = context
        self.tasks = TaskService(self._context)
        self.pauses = Pauses(self._context)
        self.pipeline = Pipeline(self._context, people)
        self._tester = CandidateTester(self._context, self.tasks, self.pipeline)
        self.proposals = ProposalService(self._context, self.pipeline)
        self.quarantines = Quarantines(self._context, self.pipeline)
        self.rollout = Rollout(self._context, self.pipeline.solo)
        self.started_at = context.clock.time()
        self._stack = AsyncExitStack()
        self._runner: EffectRunner | None = None

    async def __aenter__(self) -> Self:
        await self.people.start()
        await self.projection.load()
        group = await self._stack.enter_async_context(asyncio.TaskGroup())
        runner = EffectRunner(self._handlers(), group, self.config)
        self._runner = runner
        services = [
            group.create_task(self.projection.follow(runner.start), name="control.follow"),
            group.create_task(self._watch(), name="control.watch"),
            group.create_task(self._save_often(), name="control.snapshots"),
        ]
        self._stack.callback(lambda: [task.cancel() for task in services])
        self._stack.callback(runner.stop)
        try:
            await self._announce()
            await self.rollout.survey()
            runner.start(outstanding(self.projection.state))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()
        if self.projection.unsaved >= self.config.snapshot_facts / 5:
            try:
                async with asyncio.timeout(self.config.snapshot_wait_s):
                    await self.projection.save()
            except (AngelError, TimeoutError) as error:
                log.warning("The state is not saved, the next start folds it: %s", error)

    async def status(self) -> StatusView:
        """Return the system at a glance; what a store holds that is away is left out."""
        state = self.projection.state
        repos = await self._repos()
        shown = cards(
            state,
            now=self.now(),
            stuck_s=self.config.stuck_s,
            log_behind_s=self._context.log_behind(),
        )
        return StatusView(
            version=__version__,
            started_at=self.started_at,
            tier=weakest(state),
            nodes=self.nodes(),
            repos=repos,
            tasks_running=sum(task.open for task in state.tasks.values()),
            waiting=sum(p.state == "waiting" for p in state.proposals.values()),
            journal=state.offset,
            policy=self.policy.hash,
            banner=" ".join(filter(None, (self.away(), banner(state), banner_of(shown)))),
            cards=shown,
            restarts=restart_views(state),
            retention=self._context.retention(),
        )

    def now(self) -> float:
        """Return Unix seconds, by the clock of control."""
        return self._context.clock.time()

    def away(self) -> str:
        """Return which store does not answer, in a sentence; an empty text if all do."""
        return self._context.away()

    async def _repos(self) -> tuple[RepoView, ...]:
        if self.away():
            return ()
        repository = self._context.repository
        try:
            return tuple(
                [
                    RepoView(
                        name=name,
                        dev=await repository.head(name, "dev"),
                        main=await repository.head(name, "main"),
                    )
                    for name in await repository.repos()
                ]
            )
        except Unavailable as error:
            log.warning("The repositories cannot be listed: %s", error)
            return ()

    def nodes(self) -> tuple[NodeView, ...]:
        """Return all enrolled nodes."""
        state = self.projection.state
        return tuple(node_view(state, node) for node in state.nodes.values())

    def sweep(self) -> None:
        """End the tasks that are overdue; called once a tick."""
        if self._runner is not None:
            now = self._context.clock.time()
            state = self.projection.state
            self._runner.start(
                effects.PauseAgent(agent, reason)
                for agent, reason in exhausted(state, now, self.config.budgets)
            )
            self._runner.start(
                effects.SkipCanary(
                    repo.name,
                    repo.main.revision,
                    node.id,
                    f"it has been silent for more than {self.config.stuck_s:g} s",
                )
                for repo, node in stuck(state, now, self.config.stuck_s, self.started_at)
            )
            self._runner.start(expired(state, now, self.config.waiting_expires_s))
            self._runner.start(
                overdue(self.projection.state, now, self.config.grace_s, self.config.node_gone_s)
            )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.tick_s)
            self.sweep()
            try:
                await self.people.generations.announce_owed()
            except AngelError as error:
                log.warning("Ends of generations wait for their facts: %s", error)

    async def _save_often(self) -> None:
        """Save the state whenever many facts were folded, so that a start is short after a kill."""
        while True:
            await asyncio.sleep(self.config.tick_s)
            if self.projection.unsaved >= self.config.snapshot_facts:
                try:
                    await self.projection.save()
                except AngelError as error:
                    log.warning("The state is not saved: %s", error)
                    await asyncio.sleep(self.config.retry_max_s)

    async def _announce(self) -> None:
        """Append that control has started and, if it changed, which policy is in force."""
        started = SystemStarted(version=__version__)
        facts = [self.projection.fact(started, "system/control")]
        if self.projection.state.policy != self.policy.hash:
            loaded = PolicyLoaded(hash=self.policy.hash, files=tuple(self.policy.files))
            facts.append(self.projection.fact(loaded, "system/control"))
        await self.projection.append(*facts)

    def _handlers(self) -> dict[type[effects.Effect], Handler]:
        dispatcher = TaskDispatcher(self._context)
        return {
            effects.PutTask: dispatcher.put,
            effects.StopTask: dispatcher.stop,
            effects.EndTask: dispatcher.end,
            effects.AbandonTask: dispatcher.abandon,
            effects.Merge: self.pipeline.merge,
            effects.MakeCandidate: self.pipeline.make_candidate,
            effects.RunSteps: self._tester.run_steps,
            effects.Judge: self.pipeline.judge,
            effects.Promote: self.pipeline.promote,
            effects.Reject: self.pipeline.reject,
            effects.Revert: self.pipeline.revert,
            effects.AskCheckout: self.rollout.ask,
            effects.PutCheckout: self.rollout.put,
            effects.RollBack: self.rollout.roll_back,
            effects.Revoke: self.rollout.revoke,
            effects.SkipCanary: self.rollout.skip,
            effects.SetPause: self.pauses.tell,
            effects.PauseAgent: self.pauses.ask,
        }
