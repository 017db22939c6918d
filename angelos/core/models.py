"""Role models as data: what the API of the registry takes and gives.

A version is one artefact of a role (`sentinel:3`), named by its content's hash, with everything
that is known of it: its provenance, its figures and the verdict of each gate. An alias names the
version that is in use (`champion`), that is tried (`canary`) or that may be (`challenger`).

>>> parse_model("sentinel:3"), parse_model("sentinel")
(('sentinel', 3), ('sentinel', None))
"""

from __future__ import annotations

import hashlib
import re
from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.ids import PrincipalId, Revision, TaskId
from angelos.core.messages import Input, Message

MAX_SETS = 500
"""Files of a data set that has a name."""
MAX_SET_CHARACTERS = 4_000_000
_MODEL = re.compile(r"([a-z][a-z0-9-]{0,31})(?::([1-9][0-9]{0,8}))?")

RoleName = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9-]{0,31}$(?!\n)")]
Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]
Version = Annotated[int, msgspec.Meta(ge=1, le=999_999_999)]
SetName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)")]
Comment = Annotated[str, msgspec.Meta(max_length=1_000, pattern=r"^[^\x00]*$")]


class Alias(StrEnum):
    """What a version is to its role."""

    champion = "champion"
    """It is in use."""
    canary = "canary"
    """It is approved, and answers beside the champion on the labs node."""
    challenger = "challenger"
    """The newest that passed every gate; nobody has to have seen it."""


class ArtefactKind(StrEnum):
    """What an artefact is."""

    base = "base"
    """A whole model."""
    adapter = "adapter"
    """A LoRA adapter, which is nothing without its base."""


RunState = Literal["training", "judging", "registered", "refused", "failed"]
PromotionState = Literal["waiting", "canary", "promoted", "rejected", "failed"]


class GateVerdict(Message, frozen=True, kw_only=True):
    """What one gate measured, and whether that is within its limit."""

    gate: str
    passed: bool
    measured: float | None
    """None: it could not be measured, which never passes."""
    limit: float
    detail: str = ""


class ModelMetric(Message, frozen=True, kw_only=True):
    """One figure with the ends of its 95 % interval, beside a simple thing's or the base's."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    baseline: float | None = None
    peer: str = ""


class ModelProvenance(Message, frozen=True, kw_only=True):
    """Where a version comes from."""

    data: str
    """For people to read."""
    data_sha256: str
    """Of what was trained on and what judged, as they were."""
    repo: str = ""
    """Of approved data: the repository and the revision of its `main`."""
    revision: Revision | None = None
    base: str = ""
    """SHA-256 of the artefact of its base."""
    code_sha256: str = ""
    """Of the program that trained it, all files of it."""
    config: dict[str, Any] = {}
    task: TaskId | None = None
    """The task that trained it."""
    by: PrincipalId = PrincipalId("")
    """Who asked for it."""


class ModelVersion(Message, frozen=True, kw_only=True):
    """One version of a role: its artefact and its card."""

    role: str
    version: int
    kind: ArtefactKind
    sha256: str
    """Of the artefact, safetensors."""
    size: int
    parameters: int
    at: float
    provenance: ModelProvenance
    gates: tuple[GateVerdict, ...]
    metrics: tuple[ModelMetric, ...] = ()
    limits: tuple[str, ...] = ()
    bad_at: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return it as `role:version`."""
        return f"{self.role}:{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of all of this: what a person approves."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


class ModelView(Message, frozen=True, kw_only=True):
    """A version, what it is to its role, and the digest by which it is approved."""

    version: ModelVersion
    aliases: tuple[Alias, ...]
    digest: str


class ModelList(Message, frozen=True, kw_only=True):
    """Versions, newest first."""

    models: tuple[ModelView, ...]


class ShadowReport(Message, frozen=True, kw_only=True):
    """How two versions answered the same inputs on the labs node."""

    inputs: int
    answered: int
    """Inputs for which the challenger gave a finite answer."""
    differing: int
    """Inputs on which they are further apart than `tolerance`."""
    tolerance: float
    largest: float | None
    """The largest difference; None: it is not finite."""
    beside: int | None = None
    """The version of the champion; None: there is none, and nothing to differ from."""
    task: TaskId | None = None


class PromotionView(Message, frozen=True, kw_only=True):
    """Somebody wants a version to become the champion."""

    id: str
    role: str
    version: int
    digest: str
    """What is approved: artefact, card and gates."""
    by: PrincipalId
    at: float
    state: PromotionState
    reason: str = ""
    decided_by: PrincipalId | None = None
    decided_at: float | None = None
    task: TaskId | None = None
    """The canary on the labs node."""
    shadow: ShadowReport | None = None


class RunView(Message, frozen=True, kw_only=True):
    """One training run, from its data to a version or to the gates that stopped it."""

    id: str
    role: str
    kind: ArtefactKind
    by: PrincipalId
    at: float
    state: RunState
    data: str
    task: TaskId | None = None
    version: int | None = None
    gates: tuple[GateVerdict, ...] = ()
    reason: str = ""


class RunList(Message, frozen=True, kw_only=True):
    """Training runs, newest first."""

    runs: tuple[RunView, ...]


class PromotionList(Message, frozen=True, kw_only=True):
    """Promotions of a role, newest first."""

    promotions: tuple[PromotionView, ...]


class DataFile(Input, frozen=True, kw_only=True):
    """One text of a data set."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f]*$")]
    text: Annotated[str, msgspec.Meta(max_length=MAX_SET_CHARACTERS)]


class NamedData(Input, frozen=True, kw_only=True):
    """A data set that somebody vouches for by name; a person alone may train on one."""

    name: SetName
    files: Annotated[tuple[DataFile, ...], msgspec.Meta(min_length=1, max_length=MAX_SETS)]


class StepSettings(Input, frozen=True, kw_only=True):
    """How long and how fast a run learns, and the shape of what it makes."""

    steps: Annotated[int, msgspec.Meta(ge=1, le=5_000)] = 200
    batch: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    rate: Annotated[float, msgspec.Meta(gt=0, le=0.1)] = 5e-3
    seed: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 1
    rank: Annotated[int, msgspec.Meta(ge=1, le=64)] = 8
    """Of an adapter."""
    width: Annotated[int, msgspec.Meta(ge=16, le=256, multiple_of=16)] = 96
    """Of a base."""
    layers: Annotated[int, msgspec.Meta(ge=1, le=8)] = 3
    """Of a base."""
    block: Annotated[int, msgspec.Meta(ge=16, le=512)] = 128
    """Of a base: characters that it sees at once."""


class StartTraining(Input, frozen=True, kw_only=True):
    """Train a base, or adapt the role's base, on approved history or on named data."""

    kind: ArtefactKind = ArtefactKind.adapter
    repo: Annotated[str, msgspec.Meta(max_length=64)] = ""
    revision: Revision | None = None
    """Of the history of `main`; by default its head."""
    data: NamedData | None = None
    settings: StepSettings = StepSettings()


class EvaluateModel(Input, frozen=True, kw_only=True):
    """Measure a version again, on the texts that judged it or on others."""

    repo: Annotated[str, msgspec.Meta(max_length=64)] = ""
    revision: Revision | None = None
    data: NamedData | None = None


class ModelEvaluation(Message, frozen=True, kw_only=True):
    """What a version was measured at just now."""

    role: str
    version: int
    sha256: str
    data: str
    metrics: tuple[ModelMetric, ...]
    gates: tuple[GateVerdict, ...] = ()
    """Asked again where it was measured on its own texts."""


class ProposePromotion(Input, frozen=True, kw_only=True):
    """Propose that a version become the champion."""

    version: Version


class ApprovePromotion(Input, frozen=True, kw_only=True):
    """Approve exactly what the digest names."""

    digest: Digest


class RejectPromotion(Input, frozen=True, kw_only=True):
    """Reject a promotion."""

    reason: Comment = ""


class RollbackModel(Input, frozen=True, kw_only=True):
    """Move the champion back to the version before it."""

    reason: Comment = ""


class ModelAliases(Message, frozen=True, kw_only=True):
    """What each alias of a role names, and the champions before this one, oldest first."""

    role: str
    champion: int | None = None
    canary: int | None = None
    challenger: int | None = None
    earlier: tuple[int, ...] = ()

    def of(self, version: int) -> tuple[Alias, ...]:
        """Return what a version is to its role."""
        return tuple(alias for alias in Alias if getattr(self, alias) == version)


def parse_model(text: str) -> tuple[str, int | None]:
    """Return role and version of `role` or `role:version`; raise `InvalidInput`."""
    match = _MODEL.fullmatch(text)
    if match is None:
        raise InvalidInput(
            f"{text[:60]!r} names no model.", hint="It is a role, or ROLE:VERSION, as sentinel:3."
        )
    return match[1], int(match[2]) if match[2] else None


def card_of(view: ModelView) -> str:
    """Return the card of a version as a page of Markdown."""
    model, origin = view.version, view.version.provenance
    parts = [
        f"# {model.name}",
        f"{model.kind}, {model.parameters:,} parameters, {model.size:,} bytes, `{model.sha256}`.",
        "Aliases: " + (", ".join(view.aliases) or "none") + ".",
        f"Trained on {origin.data} (`{origin.data_sha256}`)"
        + (f", from the base `{origin.base}`" if origin.base else "")
        + f", asked for by {origin.by}, task {origin.task}, code `{origin.code_sha256[:16]}`.",
        _table(
            ("metric", "value", "95 % interval", "beside"),
            [
                (
                    m.name,
                    _number(m.value),
                    f"{_number(m.low)} to {_number(m.high)}",
                    "" if m.baseline is None else f"{m.peer} {_number(m.baseline)}",
                )
                for m in model.metrics
            ],
        ),
        "## Gates",
        _table(
            ("gate", "verdict", "measured", "limit", "detail"),
            [
                (
                    v.gate,
                    "passed" if v.passed else "STOPPED",
                    _number(v.measured),
                    _number(v.limit),
                    v.detail,
                )
                for v in model.gates
            ],
        ),
        "## Limits\n\n" + "\n".join(f"- {line}" for line in model.limits),
        "## Bad at\n\n" + "\n".join(f"- {line}" for line in model.bad_at),
        f"Digest: `{view.digest}`",
    ]
    return "\n\n".join(parts) + "\n"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.3f}".removesuffix(".000")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)
