"""Versions of role models, what each alias names, and who moves one where.

    view = await registry.get("sentinel", 3)
    promotion = await registry.propose(ada, "sentinel", ProposePromotion(version=3))
    await registry.approve(rita, promotion.id, ApprovePromotion(digest=view.digest))
    await registry.rollback(olga, "sentinel", RollbackModel(reason="too many alarms"))

What may move is decided in `state`; each move and its facts are one transaction, and the journal
has the facts before the answer comes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from angelos.core.errors import Conflict, Forbidden, NotFound, Tampered
from angelos.core.facts import (
    CanaryOutcome,
    Fact,
    FactPayload,
    ModelApproved,
    ModelPromoted,
    ModelProposed,
    ModelRegistered,
    ModelRejected,
    ModelRolledBack,
    ModelTried,
)
from angelos.core.ids import PrincipalId, TaskId, uuid7
from angelos.core.models import (
    ApprovePromotion,
    ModelAliases,
    ModelVersion,
    ModelView,
    PromotionView,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
    ShadowReport,
)
from angelos.core.permissions import Principal
from angelos.core.policy.engine import Policy, Request
from angelos.core.ports import Clock
from angelos.ml.registry import state
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.state import CanaryLimits, TrainingRun
from angelos.ml.registry.store import RegistryStore

ME = PrincipalId("system/models")


class Hands(NamedTuple):
    """Who counts as whom when a person approves."""

    same: Callable[[PrincipalId, PrincipalId], bool]
    """Whether two principals count as one person."""
    alone: Callable[[PrincipalId], Awaitable[bool]]
    """Whether this person is the only one who reviews."""


class ModelRegistry:
    """The registry of one system."""

    def __init__(
        self,
        store: RegistryStore,
        artefacts: ArtefactStore,
        clock: Clock,
        policy: Policy,
        hands: Hands,
        limits: CanaryLimits | None = None,
    ) -> None:
        self.store = store
        self.artefacts = artefacts
        self.limits = limits or CanaryLimits()
        self._clock = clock
        self._policy = policy
        self._hands = hands

    # -- reading -----------------------------------------------------------------------------

    async def list(self, role: str, limit: int) -> tuple[ModelView, ...]:
        """Return versions of a role, or of all roles (an empty one), newest first."""
        versions = await self.store.versions(role, limit)
        aliases = {r: await self.store.aliases(r) for r in {v.role for v in versions}}
        return tuple(_view(version, aliases[version.role]) for version in versions)

    async def get(self, role: str, version: int | None = None) -> ModelView:
        """Return a version, by default the champion, or else the challenger.

        Raises:
            NotFound: There is no such version, or the role has none.
        """
        aliases = await self.store.aliases(role)
        number = version or aliases.champion or aliases.challenger
        if number is None:
            raise NotFound(
                f"There is no model of the role {role}.",
                hint="`angelos model list` names what there is.",
            )
        return _view((await self.store.version(role, number))[0], aliases)

    async def champion(self, role: str) -> tuple[ModelVersion, bytes] | None:
        """Return the champion of a role with its artefact, whose hash is checked.

        Raises:
            Tampered: The artefact is not what was stored.
        """
        aliases = await self.store.aliases(role)
        if aliases.champion is None:
            return None
        version, _ = await self.store.version(role, aliases.champion)
        return version, await self.artefacts.get(version.sha256)

    async def promotion(self, promotion: str) -> PromotionView:
        """Return a promotion; raise `NotFound`."""
        return await self.store.promotion(promotion)

    async def promotions(self, role: str, limit: int) -> tuple[PromotionView, ...]:
        """Return promotions of a role, newest first."""
        return tuple(await self.store.promotions(role, limit))

    # -- moving ------------------------------------------------------------------------------

    async def register(
        self, run: TrainingRun, make: Callable[[int], ModelVersion], evidence: str
    ) -> ModelVersion:
        """Keep what a run has made as the next version and the challenger.

        Args:
            run: It; it is `registered` afterwards.
            make: Returns the version with this number.
            evidence: SHA-256 of the texts that judged it.

        Raises:
            Refused: A gate stops it; nothing was kept.
        """
        async with self.store.moving(run.role) as move:
            version = make(await move.next_version())
            move.aliases = state.registered(move.aliases, version)
            await move.add_version(version, evidence)
            await move.put_run(
                msgspec.structs.replace(
                    run, state="registered", version=version.version, gates=version.gates
                )
            )
            payload = ModelRegistered(sha256=version.sha256, digest=version.digest, run=run.id)
            await move.record(self._fact(payload, version.name, ME, on_behalf_of=run.by))
        return version

    async def propose(
        self, caller: Principal, role: str, body: ProposePromotion, trace: str = ""
    ) -> PromotionView:
        """Propose that a version become the champion; the same again is the same promotion.

        Raises:
            NotFound: There is no such version.
            Refused: A gate stops it.
            Conflict: It is the champion, or another version is proposed or tried.
        """
        version, _ = await self.store.version(role, body.version)
        async with self.store.moving(role) as move:
            state.check_proposable(move.aliases, version)
            current = await move.open_promotion()
            if current is not None and current.version == version.version:
                return current
            if current is not None:
                raise Conflict(
                    f"{role}:{current.version} is proposed already ({current.id}).",
                    hint="Decide on it first.",
                )
            now = self._clock.time()
            promotion = PromotionView(
                id=f"mprom-{uuid7(int(now * 1000))}",
                role=role,
                version=version.version,
                digest=version.digest,
                by=caller.id,
                at=now,
                state="waiting",
            )
            await move.put_promotion(promotion)
            payload = ModelProposed(promotion=promotion.id, digest=promotion.digest)
            await move.record(self._fact(payload, version.name, caller.id, trace=trace))
        return promotion

    async def approve(
        self,
        caller: Principal,
        promotion: str,
        body: ApprovePromotion,
        try_out: Callable[[Principal, ModelVersion, ModelAliases], Awaitable[TaskId]],
        trace: str = "",
    ) -> PromotionView:
        """Count a person's approval of exactly what a digest names, and have it tried.

        Args:
            caller: The person.
            promotion: What they approve.
            body: The digest of what they were shown.
            try_out: Starts the canary on the labs node; the approval counts only if it can.
            trace: Of the request.

        Raises:
            Forbidden: For programs, and for one's own unless one works alone.
            Conflict: It does not wait, or the digest is of something else.
            Unavailable: There is no labs node; nothing was counted.
        """
        current = await self.store.promotion(promotion)
        version, _ = await self.store.version(current.role, current.version)
        solo = await self._hands.alone(caller.id)
        authors = {current.by, version.provenance.by}
        own = any(self._hands.same(caller.id, author) for author in authors)
        self._allow("approve_model", caller, own=own, solo=solo)
        aliases = await self.store.aliases(current.role)
        state.approved(aliases, current, version, body.digest)
        await self.artefacts.get(version.sha256)
        task = await try_out(caller, version, aliases)  # no row is locked meanwhile
        async with self.store.moving(current.role) as move:
            current = await move.promotion(promotion)
            move.aliases = state.approved(move.aliases, current, version, body.digest)
            current = self._decided(current, caller.id, state="canary", task=task)
            await move.put_promotion(current)
            approved = ModelApproved(
                promotion=promotion,
                digest=body.digest,
                solo=solo,
                generation=caller.generation,
            )
            await move.record(self._fact(approved, version.name, caller.id, trace=trace))
        return current

    async def reject(
        self, caller: Principal, promotion: str, body: RejectPromotion, trace: str = ""
    ) -> PromotionView:
        """Reject a promotion that waits.

        Raises:
            Forbidden: For programs.
            Conflict: It does not wait.
        """
        current = await self.store.promotion(promotion)
        self._allow("reject_model", caller, own=False, solo=False)
        async with self.store.moving(current.role) as move:
            current = await move.promotion(promotion)
            if current.state != "waiting":
                raise Conflict(f"{promotion} does not wait, it is {current.state}.")
            current = self._decided(current, caller.id, state="rejected", reason=body.reason)
            await move.put_promotion(current)
            payload = ModelRejected(promotion=promotion, reason=body.reason)
            name = f"{current.role}:{current.version}"
            await move.record(self._fact(payload, name, caller.id, trace=trace))
        return current

    async def tried(
        self, promotion: str, report: ShadowReport | None, reason: str = ""
    ) -> PromotionView:
        """Take what a canary has answered: the version is the champion, or it is given up."""
        fault = reason or state.canary_fault(report, self.limits)
        current = await self.store.promotion(promotion)
        version, _ = await self.store.version(current.role, current.version)
        fault = fault or await self._changed(current, version)
        async with self.store.moving(current.role) as move:
            current = await move.promotion(promotion)
            if current.state != "canary":
                return current
            current = msgspec.structs.replace(
                current, state="failed" if fault else "promoted", reason=fault, shadow=report
            )
            await move.put_promotion(current)
            tried = ModelTried(
                promotion=promotion,
                inputs=report.inputs if report else 0,
                differing=report.differing if report else 0,
                reason=fault,
            )
            outcome = CanaryOutcome.failed if fault else CanaryOutcome.ok
            await move.record(self._fact(tried, version.name, ME, outcome=outcome))
            if fault:
                move.aliases = state.canary_ended(move.aliases)
                return current
            payload = ModelPromoted(
                promotion=promotion, sha256=version.sha256, previous=move.aliases.champion
            )
            move.aliases = state.promoted(move.aliases, version.version)
            await move.record(
                self._fact(payload, version.name, ME, on_behalf_of=current.decided_by)
            )
        return current

    async def rollback(
        self, caller: Principal, role: str, body: RollbackModel, trace: str = ""
    ) -> ModelView:
        """Move the champion back to the version before it.

        Raises:
            Forbidden: For programs.
            Conflict: There was none before.
            Tampered: The artefact of the version before is damaged; nothing was changed.
        """
        self._allow("rollback_model", caller)
        async with self.store.moving(role) as move:
            previous, aliases = move.aliases.champion, state.rolled_back(move.aliases)
            version, _ = await self.store.version(role, aliases.champion or 0)
            await self.artefacts.get(version.sha256)
            move.aliases = aliases
            payload = ModelRolledBack(
                sha256=version.sha256, previous=previous or 0, reason=body.reason
            )
            await move.record(self._fact(payload, version.name, caller.id, trace=trace))
        return _view(version, aliases)

    # -- pieces ------------------------------------------------------------------------------

    def allow_training(self, caller: Principal, *, approved: bool) -> None:
        """Raise `Forbidden` unless the policy lets somebody train on data of this kind."""
        self._allow("train_model", caller, approved=approved)

    def _allow(self, action: str, caller: Principal, **context: bool) -> None:
        if action != "train_model":
            context["program"] = caller.is_program
        answer = self._policy.ask(
            Request(
                principal=caller.id,
                role=caller.role,
                action=action,
                resource=("Service", "models"),
                context=context,
            )
        )
        if not answer.allowed:
            raise Forbidden(
                f"{caller.id} may not {action.replace('_', ' ')}s like this: {answer.reason}. "
                "Nothing was done.",
                hint=self._policy.hint(answer)
                or f"`angelos policy explain {action}` names the rules about it.",
                rules=list(answer.rules),
                policy=answer.policy,
            )

    async def _changed(self, promotion: PromotionView, version: ModelVersion) -> str:
        """Return why a version is not what was approved and tried any more; empty if it is."""
        if version.digest != promotion.digest:
            return "It is not what was approved: its card was changed."
        try:
            await self.artefacts.get(version.sha256)
        except (NotFound, Tampered) as error:
            return error.detail
        return ""

    def _decided(
        self, promotion: PromotionView, by: PrincipalId, **changes: object
    ) -> PromotionView:
        return msgspec.structs.replace(
            promotion, decided_by=by, decided_at=self._clock.time(), **changes
        )

    def _fact(
        self, payload: FactPayload, subject: str, actor: PrincipalId, **header: object
    ) -> Fact:
        return Fact.of(payload, at=self._clock.time(), actor=actor, subject=subject, **header)  # type: ignore[arg-type]


def _view(version: ModelVersion, aliases: ModelAliases) -> ModelView:
    return ModelView(version=version, aliases=aliases.of(version.version), digest=version.digest)
