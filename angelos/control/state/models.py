"""The state of control: records of tasks, proposals, nodes and repositories, folded from facts.

>>> ControlState().tasks
{}
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from angelos.core.api import ProposalState
from angelos.core.facts import (
    AlarmResponse,
    CancelCause,
    CandidateOutcome,
    PauseCause,
    RestartCause,
    StepResult,
    TaskReported,
    TaskResult,
)
from angelos.core.findings import GateFinding, RiskFactor
from angelos.core.ids import (
    START,
    CommandId,
    FactId,
    Offset,
    PrincipalId,
    ProposalId,
    Revision,
    TaskId,
)
from angelos.core.messages import Message, Status, Tier
from angelos.core.node_profile import NodeProfile
from angelos.core.reports import CaseOutcome
from angelos.core.repository import Change

SUPERVISOR = PrincipalId("system/supervisor")
KEEP_TASKS = 500
KEEP_PROPOSALS = 2_000
KEEP_RESULT_BYTES = 16_000_000
KEEP_MAINS = 100

HEALTH: frozenset[str] = frozenset(set(Status) - {Status.ok, Status.killed})
"""Outcomes of a checkout that blame the revision. `killed` and error codes (`unavailable`,
`forbidden`, ...) only mean that this attempt did not finish."""


class TaskRecord(Message, frozen=True, kw_only=True):
    """A task; `body` is the encoded `Command`, kept until it is finished."""

    id: TaskId
    command: CommandId
    request: str
    """SHA-256 of the request: a command id belongs to one request."""
    by: PrincipalId
    on_behalf_of: PrincipalId | None
    node: PrincipalId
    label: str
    at: float
    offset: Offset
    generation: int = 0
    """Of `by`, when it was accepted."""
    wall_s: float
    deadline: float
    body: bytes
    proposal: str = ""
    step: str = ""
    """Which step it is, on which revision (`TaskAccepted.step`)."""
    state: Literal["accepted", "running", "finished"] = "accepted"
    started_at: float | None = None
    attempt: int = 0
    """How often it was started."""
    cancelled_at: float | None = None
    cancel_reason: str = ""
    cancel_cause: CancelCause | None = None
    result: TaskResult | None = None
    given_up: bool = False
    """Control has ended it, without a report of its node."""
    reported: TaskReported | None = None
    """What its node reported after that."""
    ended: Offset = START
    """Of its last report."""
    expired: bool = False
    """Its output is erased, as the settings say."""

    @property
    def open(self) -> bool:
        """Whether it has not finished."""
        return self.state != "finished"


class ProposalRecord(Message, frozen=True, kw_only=True):
    """A proposal on its way to `main`."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    changes: tuple[Change, ...]
    at: float
    state: ProposalState = "received"
    reason: str = ""
    merged: bool = False
    """Its edits are in `dev`, before `main` has them."""
    reverted: bool = False
    candidate: Revision | None = None
    candidate_main: Revision | None = None
    """The `main` that the candidate was made from."""
    tree: str = ""
    """Of the candidate."""
    commit: Revision | None = None
    """Of exactly its own edits, in the candidate."""
    batch: int = 1
    """How many proposals the candidate holds."""
    group: str = ""
    """Those of a failed batch with which it is tested next."""
    fresh: dict[str, tuple[str, ...]] = {}
    """Cells of notebooks that are re-run first, so that the candidate holds their outputs."""
    outcome: CandidateOutcome | None = None
    """Of the candidate's tests; None while they run."""
    steps: tuple[StepResult, ...] = ()
    tested_at: float = 0.0
    """When its last candidate went to be tested (Unix seconds)."""
    findings: tuple[GateFinding, ...] = ()
    """What a person has to look at in the candidate."""
    factors: tuple[RiskFactor, ...] = ()
    """What makes it risky."""
    needs: int = 0
    """How many people have to approve it in all."""
    generation: int = 0
    """Of its author, when it was received."""
    kernel: bool = False
    """Code in its author's kernel proposed it."""
    approvals: tuple[PrincipalId, ...] = ()
    rule: str = ""
    """By which the policy lets it become `main`."""
    solo: bool = False
    """One person alone reviews."""
    approved_under: dict[PrincipalId, int] = {}
    """The generation of each approver when they approved."""
    accepted_by: tuple[PrincipalId, ...] = ()
    """Who of the approvers approved by accepting it into `dev`, whatever its tests say."""
    revision: Revision | None = None
    trace: str = ""
    part_of: ProposalId | None = None
    """The proposal of which a person took this part."""

    @property
    def by_program(self) -> bool:
        """Whether no person wrote it with their own hands, as far as can be told."""
        return self.kernel or self.author.startswith("agent/")

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that it changes."""
        return tuple(change.path for change in self.changes)

    @property
    def open(self) -> bool:
        """Whether control still has to act on it."""
        if self.state == "rejected":
            return not self.reverted
        return self.state not in ("promoted", "refused", "rolled-back")

    @property
    def undecided(self) -> bool:
        """Whether it may still be rejected."""
        return self.open and self.state != "rejected"


class CheckoutRecord(Message, frozen=True, kw_only=True):
    """The last requested checkout of a repository on a node, and how it ended."""

    revision: Revision
    state: Literal["requested", "healthy", "failed"] = "requested"
    canary: bool = False
    attempt: int = 1
    outcome: str = ""
    body: bytes = b""
    """The encoded `Command`, kept while it is requested."""
    healthy: Revision | None = None
    """The last revision that the node reported as checked out and healthy."""


class NodeRecord(Message, frozen=True, kw_only=True):
    """An enrolled node."""

    id: PrincipalId
    role: Literal["execution", "labs"]
    connected: bool = False
    tier: Tier = Tier.none
    since: float = 0.0
    gone_at: float | None = None
    """When its connection was lost; None if it is connected or never was."""
    hub: str = ""
    """The hub that it is connected to; empty for control's own."""
    quarantined: bool = False
    profile: NodeProfile = NodeProfile()
    checkouts: dict[str, CheckoutRecord] = {}


class MainRecord(Message, frozen=True, kw_only=True):
    """One position of `main`."""

    revision: Revision
    restores: Revision | None = None
    """For a rollback: the revision whose tree it has."""
    failed: bool = False
    """A node's health command failed on it."""
    at: float = 0.0
    """Since when (Unix seconds)."""
    skipped: tuple[PrincipalId, ...] = ()
    """Canaries that were silent for too long; the rollout went round them."""


class RepoRecord(Message, frozen=True, kw_only=True):
    """Positions of a repository's `main`, oldest first, bounded."""

    name: str
    mains: tuple[MainRecord, ...]

    @property
    def main(self) -> MainRecord:
        """The present position."""
        return self.mains[-1]


class RestartRecord(Message, frozen=True, kw_only=True):
    """How often a part of the system was started again, and why the last time."""

    count: int
    at: float
    cause: RestartCause
    exit_code: int | None = None


class PauseRecord(Message, frozen=True, kw_only=True):
    """Whether an agent, or all of them, are paused, and since when."""

    fact: FactId
    """By which it became so."""
    paused: bool
    at: float
    reason: str = ""
    cause: PauseCause = PauseCause.request


class AgentUsage(Message, frozen=True, kw_only=True):
    """What the runs of an agent that ended in one minute have used."""

    at: float
    tasks: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    memory_gb_s: float = 0.0
    tokens: float = 0.0
    """Of models, where the run reported them."""
    money: float = 0.0


class QuarantineNote(Message, frozen=True, kw_only=True):
    """Why somebody is quarantined, and since when."""

    reason: str
    at: float


class ReleaseAsk(Message, frozen=True, kw_only=True):
    """Who asked to end a quarantine first."""

    by: PrincipalId
    at: float


class AlarmRecord(Message, frozen=True, kw_only=True):
    """An alarm about a principal."""

    id: FactId
    principal: PrincipalId
    at: float
    signal: str = ""
    severity: str = ""
    reason: str = ""
    figures: dict[str, Any] = {}
    acts: tuple[FactId, ...] = ()
    response: AlarmResponse = AlarmResponse.observed


class CaseRun(Message, frozen=True, kw_only=True):
    """How one test ended once, for whichever proposal."""

    at: float
    outcome: CaseOutcome
    seconds: float
    proposal: ProposalId


class ControlState(Message, frozen=True, kw_only=True):
    """The whole state of control; `offset` is that of the last fact folded."""

    offset: Offset = START
    policy: str = ""
    tasks: dict[TaskId, TaskRecord] = {}
    """Oldest first; so are the others."""
    outputs_expired: Offset = START
    """The outputs of tasks that ended up to there are erased, but those of proposals."""
    proposals: dict[ProposalId, ProposalRecord] = {}
    nodes: dict[PrincipalId, NodeRecord] = {}
    repos: dict[str, RepoRecord] = {}
    quarantined: dict[PrincipalId, FactId] = {}
    """By principal, the fact of its quarantine."""
    quarantine_notes: dict[PrincipalId, QuarantineNote] = {}
    """Why, of those who are quarantined."""
    release_asks: dict[PrincipalId, ReleaseAsk] = {}
    """By principal, who asked first to end its quarantine."""
    probation: dict[PrincipalId, float] = {}
    """Until when people look at everything that somebody proposes who was released."""
    alarms: tuple[AlarmRecord, ...] = ()
    """The last ones."""
    apart: frozenset[str] = frozenset()
    """The repositories whose last tests were of proposals apart from the rest."""
    pauses: dict[PrincipalId, PauseRecord] = {}
    """Agents (`ALL_AGENTS` for all of them) that are or were paused."""
    usage: dict[PrincipalId, tuple[AgentUsage, ...]] = {}
    """By agent and minute, of the last hour."""
    case_runs: dict[str, dict[str, tuple[CaseRun, ...]]] = {}
    """By repository and test, the newest run first."""
    restarts: dict[str, RestartRecord] = {}
    """By part of the system."""
    generations: dict[PrincipalId, int] = {}
    """The present one of each principal that ended one; what is older does not count."""
    makers: dict[PrincipalId, tuple[PrincipalId, ...]] = {}
    """Who made or enrolled each principal, or gave it a new credential."""
    log_damage: str = ""
    """How the audit log was damaged; nothing is promoted until a person has accepted it."""


def replace(record: ControlState, **changes: object) -> ControlState:
    """Return the state with other fields."""
    return msgspec.structs.replace(record, **changes)
