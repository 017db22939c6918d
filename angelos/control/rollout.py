"""What follows when `main` moves: canaries first, then all nodes; and back when it fails.

The handlers of AskCheckout, PutCheckout, RollBack and Revoke, and the rollback that people ask
for. A labs node that is away is waited for: a missing canary is not a failed one.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from angelos.control.context import ControlContext, hash_id
from angelos.control.proposals import repo_config
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import POLICY_PATHS, touched
from angelos.control.state.decide import canaries
from angelos.control.state.effects import AskCheckout, PutCheckout, Revoke, RollBack, SkipCanary
from angelos.control.state.models import SUPERVISOR
from angelos.core.api import Rollback
from angelos.core.errors import Conflict, InvalidInput, Refused
from angelos.core.facts import BranchAdvanced, CheckoutRequested, CheckoutSkipped, RollbackDone
from angelos.core.ids import PrincipalId, Revision, is_revision
from angelos.core.messages import Checkout, Command, RevokeGrants, decode, encode
from angelos.core.permissions import Principal
from angelos.core.revision_v2 import TreeEntry

log = logging.getLogger(__name__)


class Rollout:
    """Brings `main` to the nodes, and rolls it back."""

    def __init__(
        self, context: ControlContext, solo: Callable[[str, PrincipalId], Awaitable[bool]]
    ) -> None:
        """Take what is shared, and who says whether one person alone reviews a repository."""
        self._context = context
        self._solo = solo
        self._projection = context.projection
        self._repository = context.repository

    # -- to the nodes ------------------------------------------------------------------------

    async def ask(self, effect: AskCheckout) -> None:
        """Append that a node is to check `main` out; the fact holds the whole command."""
        state = self._projection.state
        repo, node = state.repos.get(effect.repo), state.nodes.get(effect.node)
        if repo is None or node is None or repo.main.revision != effect.revision:
            return
        checkout = node.checkouts.get(effect.repo)
        if (
            checkout is not None
            and checkout.revision == effect.revision
            and checkout.attempt >= effect.attempt
        ):
            return
        try:
            config = await repo_config.load(self._repository, effect.repo, effect.revision)
        except InvalidInput as error:
            log.warning("main of %s is checked out without a health check: %s", repo.name, error)
            config = RepoConfig()
        decision = self._context.decide_system(
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
        command = self._context.command(
            decision, SUPERVISOR, node.id, payload, ttl_s=self._context.config.checkout_ttl_s
        )
        alone = not effect.canary and not canaries(state)
        skipped = ", ".join(repo.main.skipped)
        why = f"{skipped} was silent, and the rollout went round it" if skipped else ""
        requested = CheckoutRequested(
            repo=effect.repo,
            canary=effect.canary,
            attempt=effect.attempt,
            command=command.id,
            rule=",".join(decision.rules),
            no_canary="no labs node is enrolled" if alone else "" if effect.canary else why,
            body=encode(command),
        )
        await self._projection.append(
            self._projection.fact(requested, node.id, revision=effect.revision)
        )

    async def skip(self, effect: SkipCanary) -> None:
        """Go round a silent canary, once for each position of `main`."""
        repo = self._projection.state.repos.get(effect.repo)
        if repo is None or repo.main.revision != effect.revision:
            return
        if effect.node not in repo.main.skipped:
            skipped = CheckoutSkipped(repo=effect.repo, reason=effect.reason)
            fact = self._projection.fact(skipped, effect.node, revision=effect.revision)
            await self._projection.append(fact)

    async def put(self, effect: PutCheckout) -> None:
        """Queue the command of a requested checkout."""
        node = self._projection.state.nodes.get(effect.node)
        checkout = node.checkouts.get(effect.repo) if node else None
        if (
            checkout is not None
            and checkout.state == "requested"
            and checkout.revision == effect.revision
        ):
            await self._context.put(decode(checkout.body, Command))

    # -- back --------------------------------------------------------------------------------

    async def roll_back(self, effect: RollBack) -> None:
        """Roll `main` back because a node's health command failed on it."""
        async with self._context.locks[effect.repo]:
            repo = self._projection.state.repos.get(effect.repo)
            if repo is None or not any(m.revision == effect.bad and m.failed for m in repo.mains):
                return
            head = await self._repository.head(effect.repo, "main")
            if head == effect.bad:
                self._context.decide_system(
                    "rollback", ("Repo", effect.repo), health=True, quarantined=False
                )
                try:
                    head = await self._repository.rollback(
                        effect.repo, effect.to, SUPERVISOR, self._failure(effect)
                    )
                except Conflict as error:
                    log.warning("Rolling %s back would change nothing: %s", effect.repo, error)
                    return
            elif not await self._restored(effect, head):
                return
            await self._append_done(
                effect.repo,
                head,
                SUPERVISOR,
                RollbackDone(
                    origin=effect.bad,
                    to=effect.to,
                    cause="health",
                    reason=self._failure(effect),
                ),
            )

    async def _restored(self, effect: RollBack, head: Revision) -> bool:
        """Return whether `head` is this rollback, made right before a crash."""
        line = await self._repository.history(effect.repo, "main", 2)
        if line[1:] != [effect.bad]:
            return False
        tree = await self._repository.tree(effect.repo, head)
        return tree == await self._repository.tree(effect.repo, effect.to)

    def _failure(self, effect: RollBack) -> str:
        for node in self._projection.state.nodes.values():
            checkout = node.checkouts.get(effect.repo)
            if checkout and checkout.revision == effect.bad and checkout.state == "failed":
                return f"the health command on {node.id} ended as {checkout.outcome}"
        return "its health command failed"

    async def rollback(
        self, principal: Principal, repo: str, body: Rollback, trace: str = ""
    ) -> Revision:
        """Roll `main` back to the tree of `body.to` on request; return the new `main`.

        Raises:
            Forbidden: The policy does not allow it.
            InvalidInput: `body.to` is no revision.
            NotFound: It is not in the history of `main`.
            Conflict: `main` has that tree already.
            Refused: The rules have changed since: that took two people, and so does undoing it.
        """
        if not is_revision(body.to):
            raise InvalidInput(
                f"{body.to[:80]!r} is no revision.", hint="List those of main: angelos repo log."
            )
        await self._context.decide(principal, "rollback", ("Repo", repo), health=False)
        async with self._context.locks[repo]:
            before = await self._repository.head(repo, "main")
            reason = body.reason or f"{principal.id} asked for it"
            to = Revision(body.to)
            await self._check_rules(repo, before, to, principal.id)
            head = await self._repository.rollback(repo, to, principal.id, reason)
            done = RollbackDone(origin=before, to=to, cause="request", reason=reason)
            await self._append_done(repo, head, principal.id, done, trace)
        return head

    async def _check_rules(
        self, repo: str, main: Revision, to: Revision, person: PrincipalId
    ) -> None:
        """Raise `Refused` if a rollback would undo a change of the rules by one person's word."""
        now, before = await self._rules(repo, main), await self._rules(repo, to)
        paths = sorted({entry.path for entry in now ^ before})
        if paths and not await self._solo(repo, person):
            raise Refused(
                f"{', '.join(paths)} has changed since {to[:12]}: what takes two people to do "
                "takes two people to undo. Nothing was rolled back.",
                hint="Propose the older text of these files; once it is main, roll back.",
            )

    async def _rules(self, repo: str, revision: Revision) -> set[TreeEntry]:
        """Return the files of a revision that are its policy."""
        tree = await self._repository.tree(repo, revision)
        return {entry for entry in tree if touched((entry.path,), POLICY_PATHS)}

    async def _append_done(
        self,
        repo: str,
        head: Revision,
        actor: PrincipalId,
        done: RollbackDone,
        trace: str = "",
    ) -> None:
        await self._projection.append(
            self._projection.fact(
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
        """Void a quarantined principal's grants on a node, once for each quarantine."""
        fact = self._projection.state.quarantined.get(effect.principal)
        if fact is not None:
            await self._context.command_node(
                "revoke",
                effect.node,
                RevokeGrants(principal=effect.principal, reason="quarantined"),
                key=hash_id("revoke", fact, effect.node),
            )

    # -- start -------------------------------------------------------------------------------

    async def survey(self) -> None:
        """Append where `main` of each repository is, if it moved without a fact."""
        for repo in await self._repository.repos():
            head = await self._repository.head(repo, "main")
            record = self._projection.state.repos.get(repo)
            if record is None or record.main.revision != head:
                before = record.main.revision if record else ""
                advanced = BranchAdvanced(before=before, cause="found at start")
                await self._projection.append(
                    self._projection.fact(
                        advanced,
                        f"{repo}:main",
                        key=hash_id(advanced.kind, repo, head),
                        revision=head,
                    )
                )
