"""What follows when `main` moves: canaries first, then everybody; and back when it is sick.

The handlers of AskCheckout, PutCheckout, RollBack and Revoke, and the rollback that people ask
for. A labs node that is away is waited for: a missing canary is no sick one.
"""

from __future__ import annotations

import logging

from angelos.control.context import Parts, hash_id
from angelos.control.proposals.pipeline import Pipeline
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.state.decide import canaries
from angelos.control.state.effects import AskCheckout, PutCheckout, Revoke, RollBack
from angelos.control.state.models import SUPERVISOR
from angelos.core.api import Rollback
from angelos.core.errors import Conflict, InvalidInput
from angelos.core.facts import BranchAdvanced, CheckoutRequested, RollbackDone
from angelos.core.ids import PrincipalId, Revision, is_revision
from angelos.core.messages import Checkout, Command, RevokeGrants, decode, encode
from angelos.core.permissions import Principal

log = logging.getLogger(__name__)


class Rollout:
    """Brings `main` to the nodes, and takes it back."""

    def __init__(self, parts: Parts, pipeline: Pipeline) -> None:
        """Share the plane's parts; the health command stands in the repository's file."""
        self._parts = parts
        self._ledger = parts.ledger
        self._repository = parts.repository
        self._pipeline = pipeline

    # -- to the nodes ------------------------------------------------------------------------

    async def ask(self, effect: AskCheckout) -> None:
        """Say that a node is to check `main` out; the fact holds the whole command."""
        state = self._ledger.state
        repo, node = state.repos.get(effect.repo), state.nodes.get(effect.node)
        if repo is None or node is None or repo.main.revision != effect.revision:
            return
        known = node.checkouts.get(effect.repo)
        if known and known.revision == effect.revision and known.attempt >= effect.attempt:
            return
        try:
            config = await self._pipeline.config(effect.repo, effect.revision)
        except InvalidInput as error:
            log.warning("main of %s is checked out without a health check: %s", repo.name, error)
            config = RepoConfig()
        decision = self._parts.decide_system(
            "checkout", ("Node", node.id), quarantined=node.quarantined
        )
        payload = Checkout(
            repo=effect.repo,
            branch="main",
            revision=effect.revision,
            health=config.health.run,
            limits=config.health.limits,
            canary=effect.canary,
        )
        command = self._parts.command(
            decision, SUPERVISOR, node.id, payload, ttl_s=self._parts.config.checkout_ttl_s
        )
        alone = not effect.canary and not canaries(state)
        requested = CheckoutRequested(
            repo=effect.repo,
            canary=effect.canary,
            attempt=effect.attempt,
            command=command.id,
            rule=",".join(decision.rules),
            no_canary="no labs node is enrolled" if alone else "",
            body=encode(command),
        )
        await self._ledger.say(self._ledger.fact(requested, node.id, revision=effect.revision))

    async def put(self, effect: PutCheckout) -> None:
        """Put a checkout that was asked for into the node's queue."""
        node = self._ledger.state.nodes.get(effect.node)
        known = node.checkouts.get(effect.repo) if node else None
        if known is None or known.state != "requested" or known.revision != effect.revision:
            return
        await self._parts.queue.put(effect.node, decode(known.body, Command))

    # -- back --------------------------------------------------------------------------------

    async def roll_back(self, effect: RollBack) -> None:
        """Take `main` back because a node's health command failed on it."""
        async with self._parts.locks[effect.repo]:
            repo = self._ledger.state.repos.get(effect.repo)
            if repo is None or not any(m.revision == effect.bad and m.failed for m in repo.mains):
                return
            head = await self._repository.head(effect.repo, "main")
            if head == effect.bad:
                self._parts.decide_system(
                    "rollback", ("Repo", effect.repo), health=True, quarantined=False
                )
                try:
                    head = await self._repository.rollback(
                        effect.repo, effect.to, SUPERVISOR, self._sickness(effect)
                    )
                except Conflict as error:
                    log.warning("Rolling %s back would change nothing: %s", effect.repo, error)
                    return
            elif not await self._restored(effect, head):
                return
            await self._say_done(
                effect.repo,
                head,
                SUPERVISOR,
                RollbackDone(
                    origin=effect.bad,
                    to=effect.to,
                    cause="health",
                    reason=self._sickness(effect),
                ),
            )

    async def _restored(self, effect: RollBack, head: Revision) -> bool:
        """Tell whether `head` is the rollback in question, made just before a crash."""
        line = await self._repository.history(effect.repo, "main", 2)
        if line[1:] != [effect.bad]:
            return False
        tree = await self._repository.tree(effect.repo, head)
        return tree == await self._repository.tree(effect.repo, effect.to)

    def _sickness(self, effect: RollBack) -> str:
        for node in self._ledger.state.nodes.values():
            known = node.checkouts.get(effect.repo)
            if known and known.revision == effect.bad and known.state == "failed":
                return f"the health command on {node.id} ended as {known.outcome}"
        return "its health command failed"

    async def rollback(
        self, principal: Principal, repo: str, body: Rollback, trace: str = ""
    ) -> Revision:
        """Take `main` back to the tree of `body.to` because somebody asks; return the new `main`.

        Raises `Forbidden`, `InvalidInput`, `NotFound` (not in main's history) and `Conflict`
        (main has that tree).
        """
        if not is_revision(body.to):
            raise InvalidInput(
                f"{body.to[:80]!r} is no revision.", hint="List those of main: angelos repo log."
            )
        await self._parts.decide(principal, "rollback", ("Repo", repo), health=False)
        async with self._parts.locks[repo]:
            before = await self._repository.head(repo, "main")
            reason = body.reason or f"{principal.id} asked for it"
            to = Revision(body.to)
            head = await self._repository.rollback(repo, to, principal.id, reason)
            done = RollbackDone(origin=before, to=to, cause="request", reason=reason)
            await self._say_done(repo, head, principal.id, done, trace)
        return head

    async def _say_done(
        self,
        repo: str,
        head: Revision,
        actor: PrincipalId,
        done: RollbackDone,
        trace: str = "",
    ) -> None:
        await self._ledger.say(
            self._ledger.fact(
                done,
                f"{repo}:main",
                actor,
                key=hash_id(done.kind, repo, head),
                revision=head,
                trace=trace,
            )
        )

    # -- quarantine --------------------------------------------------------------------------

    async def revoke(self, effect: Revoke) -> None:
        """Void a quarantined principal's grants on a node; once for each quarantine."""
        fact = self._ledger.state.quarantined.get(effect.principal)
        if fact is not None:
            await self._parts.order(
                "revoke",
                effect.node,
                RevokeGrants(principal=effect.principal, reason="quarantined"),
                key=hash_id("revoke", fact, effect.node),
            )

    # -- start -------------------------------------------------------------------------------

    async def survey(self) -> None:
        """Say where `main` of each repository is, if that moved without the journal's knowing."""
        for repo in await self._repository.repos():
            head = await self._repository.head(repo, "main")
            known = self._ledger.state.repos.get(repo)
            if known is None or known.main.revision != head:
                before = known.main.revision if known else ""
                advanced = BranchAdvanced(before=before, cause="found at start")
                await self._ledger.say(
                    self._ledger.fact(
                        advanced,
                        f"{repo}:main",
                        key=hash_id(advanced.kind, repo, head),
                        revision=head,
                    )
                )
