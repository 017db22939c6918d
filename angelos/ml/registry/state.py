"""Which alias may move where, and by what evidence. Pure.

    a version is registered            challenger -> it; every gate must have passed
    a person approves its digest       canary -> it
    it answers well beside the champion champion -> it, and the champion before is remembered
    it does not                        canary -> nothing
    a person rolls back                champion -> the version before

>>> aliases = promoted(promoted(ModelAliases(role="sentinel"), 1), 2)
>>> aliases.champion, aliases.earlier, rolled_back(aliases).champion
(2, (1,), 1)
>>> promoted(rolled_back(aliases), 1).earlier      # rolled back to it while it was tried
()
"""

from __future__ import annotations

import math

import msgspec

from angelos.core.errors import Conflict, Refused
from angelos.core.ids import PrincipalId
from angelos.core.messages import Message
from angelos.core.models import (
    ArtefactKind,
    GateVerdict,
    ModelAliases,
    ModelProvenance,
    ModelVersion,
    PromotionView,
    RunState,
    RunView,
    ShadowReport,
)
from angelos.ml.gates import Gate, GateResult

REQUIRED = frozenset(Gate)
"""A version without the word of one of these is not registered."""
MAX_EARLIER = 100


class CanaryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What a version must answer before it is the champion."""

    min_inputs: int = 4
    tolerance: float = 1.0
    """Nats a character by which two answers differ."""
    max_differing: float = 0.25
    """Part of the inputs on which challenger and champion may differ."""


class TrainingRun(Message, frozen=True, kw_only=True):
    """A training run as it is kept: what a restarted server needs to go on with it."""

    id: str
    role: str
    kind: ArtefactKind
    by: PrincipalId
    at: float
    state: RunState
    provenance: ModelProvenance
    evidence: str = ""
    """SHA-256 of the texts that will judge it; no task has them."""
    base: str = ""
    """SHA-256 of the artefact that it starts from."""
    gates: tuple[GateVerdict, ...] = ()
    version: int | None = None
    reason: str = ""

    @property
    def open(self) -> bool:
        """Whether something is still to come."""
        return self.state in {"training", "judging"}

    def view(self) -> RunView:
        """Return what the API shows of it."""
        return RunView(
            id=self.id,
            role=self.role,
            kind=self.kind,
            by=self.by,
            at=self.at,
            state=self.state,
            data=self.provenance.data,
            task=self.provenance.task,
            version=self.version,
            gates=self.gates,
            reason=self.reason,
        )


def verdicts(results: tuple[GateResult, ...]) -> tuple[GateVerdict, ...]:
    """Return gates' results as data that JSON can carry."""
    return tuple(
        GateVerdict(
            gate=result.gate,
            passed=result.passed,
            measured=result.measured if math.isfinite(result.measured) else None,
            limit=result.limit,
            detail=result.detail,
        )
        for result in results
    )


def stopping(gates: tuple[GateVerdict, ...]) -> tuple[str, ...]:
    """Return the gates that stop a version: those that were not passed, and those not asked."""
    passed = {verdict.gate for verdict in gates if verdict.passed}
    failed = {verdict.gate for verdict in gates if not verdict.passed}
    return tuple(gate for gate in Gate if gate in failed or gate not in passed)


def check_gates(version: ModelVersion) -> None:
    """Raise `Refused` unless every gate has passed a version."""
    if gates := stopping(version.gates):
        raise Refused(
            f"{version.name} is stopped by {', '.join(gates)}.",
            hint="Train it on other data; a gate has no override.",
            gates=list(gates),
        )


def registered(aliases: ModelAliases, version: ModelVersion) -> ModelAliases:
    """Return the aliases after a version was registered; raise `Refused` where a gate stops it."""
    check_gates(version)
    return msgspec.structs.replace(aliases, challenger=version.version)


def check_proposable(aliases: ModelAliases, version: ModelVersion) -> None:
    """Raise `Conflict` or `Refused` unless a version may be proposed as the champion."""
    check_gates(version)
    if aliases.champion == version.version:
        raise Conflict(f"{version.name} is the champion already.")


def approved(
    aliases: ModelAliases, promotion: PromotionView, version: ModelVersion, digest: str
) -> ModelAliases:
    """Return the aliases after a person has approved a promotion by a digest.

    Raises:
        Conflict: It does not wait, the digest is of something else, or another version is tried.
        Refused: A gate stops the version.
    """
    if promotion.state != "waiting":
        raise Conflict(
            f"{promotion.id} does not wait for approval, it is {promotion.state}.",
            hint="Nothing was counted.",
        )
    if not digest == promotion.digest == version.digest:
        raise Conflict(
            f"The digest is not that of {version.name}: nothing was counted.",
            hint=f"`angelos model card {version.name}` shows what would be approved.",
        )
    check_proposable(aliases, version)
    if aliases.canary is not None:
        raise Conflict(f"{aliases.role}:{aliases.canary} is being tried; wait for its end.")
    return msgspec.structs.replace(aliases, canary=version.version)


def canary_fault(report: ShadowReport | None, limits: CanaryLimits) -> str:
    """Return why a canary has not answered well; empty if it has."""
    if report is None:
        return "It gave no answers."
    if report.inputs < limits.min_inputs:
        return f"It was asked {report.inputs} times; {limits.min_inputs} are needed."
    if report.answered != report.inputs or report.largest is None:
        return f"It answered {report.answered} of {report.inputs} inputs."
    if report.beside is not None and report.differing > limits.max_differing * report.inputs:
        return (
            f"It differs from the champion on {report.differing} of {report.inputs} inputs; "
            f"{limits.max_differing:.0%} may."
        )
    return ""


def promoted(aliases: ModelAliases, version: int) -> ModelAliases:
    """Return the aliases after a canary has answered well."""
    earlier = aliases.earlier
    if aliases.champion is not None and aliases.champion != version:  # as after a rollback to it
        earlier = (*earlier, aliases.champion)[-MAX_EARLIER:]
    return ModelAliases(
        role=aliases.role,
        champion=version,
        challenger=None if aliases.challenger == version else aliases.challenger,
        earlier=earlier,
    )


def canary_ended(aliases: ModelAliases) -> ModelAliases:
    """Return the aliases after a canary was given up."""
    return msgspec.structs.replace(aliases, canary=None)


def rolled_back(aliases: ModelAliases) -> ModelAliases:
    """Return the aliases with the champion before; raise `Conflict` where there was none."""
    if not aliases.earlier:
        raise Conflict(f"{aliases.role} has had no champion before this one; nothing was changed.")
    *earlier, champion = aliases.earlier
    return msgspec.structs.replace(aliases, champion=champion, earlier=tuple(earlier))
