"""Facts: what happened, as the journal keeps it. A common header, and the data of its kind.

Facts go up and are appended to the journal. A fact's `data` are bytes, MessagePack of the payload
of its kind, and stay as they came: hub, journal, audit log and export pass them on and never
encode them again. A reader asks for the payload:

    >>> fact = Fact.of(TaskCancelled(reason="asked"), at=1.0, actor=PrincipalId("person/ada"),
    ...     subject="task-1")
    >>> fact.kind
    'task.cancelled'
    >>> fact.payload()
    TaskCancelled(reason='asked', cause=<CancelCause.request: 'request'>)

Data that cannot be decoded never stop a reader: `payload` then returns `Unknown` with the reason.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self, TypedDict, TypeVar, Unpack

import msgspec

from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.findings import GateFinding, RiskFactor
from angelos.core.ids import (
    CommandId,
    FactId,
    HunkId,
    Offset,
    PrincipalId,
    ProposalId,
    Revision,
    TaskId,
    new_fact_id,
)
from angelos.core.messages import Message, Status, Tier, encode
from angelos.core.node_profile import NodeProfile
from angelos.core.reports import RunReport
from angelos.core.repository import Change
from angelos.core.sequences import FactSequence
from angelos.core.task_files import MimeBundle, OutputFile, OutputLeftOut

MAX_DATA_BYTES = 16 * 1024 * 1024
"""The most that a fact's data may have."""
EMPTY = b"\x80"
"""An empty MessagePack map: the data of a payload without fields."""
COMMAND_FIELD = "body"
"""Where a payload holds a whole command, which only the audit log shows."""


class Kind(StrEnum):
    """Kinds of facts. `subject` of each is named in its line."""

    system_started = "system.started"  # subject: system/<name>
    system_stopped = "system.stopped"
    system_restored = "system.restored"  # subject: system/restore
    part_restarted = "part.restarted"  # subject: system/<part>
    policy_loaded = "policy.loaded"
    letter_dead = "letter.dead"  # subject: whose queue, or system/journal
    message_refused = "message.refused"  # subject: who sent it

    audit_key = "audit.key"  # subject: the log's name
    audit_damaged = "audit.damaged"  # found; nothing is promoted until it is accepted
    outputs_expired = "outputs.expired"  # subject: the audit log's name
    audit_accepted = "audit.accepted"  # by a person; subject: the name of the log that goes on

    node_enrolled = "node.enrolled"  # subject: node/<name>
    node_connected = "node.connected"
    node_disconnected = "node.disconnected"
    node_load = "node.load"  # the hub keeps the last one, and the journal none
    agent_enrolled = "agent.enrolled"  # subject: agent/<name>
    agent_connected = "agent.connected"
    agent_disconnected = "agent.disconnected"
    principal_quarantined = "principal.quarantined"  # subject: the principal
    principal_released = "principal.released"
    principal_release_asked = "principal.release-asked"  # by the first of two people
    principal_paused = "principal.paused"  # subject: the agent, or system/agents for all
    principal_resumed = "principal.resumed"
    principal_flagged = "principal.flagged"  # an alarm; outcome: AlarmResponse
    access_refused = "access.refused"  # outcome: the error's code
    principal_ended = "principal.ended"  # outcome: EndCause
    person_added = "person.added"  # subject: person/<name>
    person_removed = "person.removed"
    person_changed = "person.changed"
    token_created = "token.created"  # noqa: S105 - subject: the principal whose it is
    token_revoked = "token.revoked"  # noqa: S105

    task_accepted = "task.accepted"  # subject: task id
    task_refused = "task.refused"
    task_started = "task.started"
    task_output = "task.output"  # not lasting
    task_finished = "task.finished"  # outcome: Status
    task_reported = "task.reported"  # by its node, after control had ended it; outcome: Status
    task_cancelled = "task.cancelled"
    network_requested = "network.requested"  # subject: the task; outcome: NetworkVerdict

    document_edited = "document.edited"  # subject: <repo>:<path>; not lasting

    proposal_received = "proposal.received"  # subject: proposal id
    proposal_refused = "proposal.refused"  # outcome: RefusalCause
    proposal_narrowed = "proposal.narrowed"  # a part was withdrawn
    proposal_merged = "proposal.merged"  # accepted into dev; revision: the dev commit
    proposal_testing = "proposal.testing"  # revision: the candidate
    proposal_tested = "proposal.tested"  # outcome: CandidateOutcome
    proposal_waiting = "proposal.waiting"  # for people
    proposal_approved = "proposal.approved"  # actor: the person, or the system by its policy
    proposal_rejected = "proposal.rejected"  # actor: the person or system
    proposal_promoted = "proposal.promoted"  # revision: the new main
    proposal_reverted = "proposal.reverted"  # outcome: RevertOutcome
    branch_advanced = "branch.advanced"  # subject: <repo>:<branch>; revision: its new head

    checkout_requested = "checkout.requested"  # subject: node id; revision
    checkout_healthy = "checkout.healthy"  # outcome: "ok"
    checkout_failed = "checkout.failed"  # outcome: Status or error code
    checkout_skipped = "checkout.skipped"  # the rollout goes round a silent canary
    rollback_done = "rollback.done"  # subject: <repo>:main; revision: its new head

    memory_remembered = "memory.remembered"  # subject: memory id; never its text
    memory_superseded = "memory.superseded"  # subject: the old one; outcome: SupersedeCause
    memory_forgotten = "memory.forgotten"  # subject: the namespace; outcome: ForgetCause
    memory_refused = "memory.refused"  # subject: the namespace; outcome: JunkCause

    model_training = "model.training"  # subject: the run
    model_refused = "model.refused"  # subject: the run; outcome: its gates, or its task's Status
    model_registered = "model.registered"  # subject: <role>:<version>, here and below
    model_proposed = "model.proposed"
    model_approved = "model.approved"  # actor: the person
    model_rejected = "model.rejected"
    model_tried = "model.tried"  # on the labs node; outcome: CanaryOutcome
    model_promoted = "model.promoted"
    model_rolled_back = "model.rolled-back"  # subject: the version that is the champion again


EPHEMERAL: frozenset[str] = frozenset({Kind.task_output, Kind.document_edited, Kind.node_load})
"""Kinds that the audit log does not keep; every other kind, known or not, lasts."""


# -- codes -----------------------------------------------------------------------------------


class CancelCause(StrEnum):
    """Why a task is cancelled."""

    request = "request"
    """Somebody asked for it."""
    principal_quarantined = "principal-quarantined"
    """Whoever it runs for is quarantined."""
    node_quarantined = "node-quarantined"
    """Its node is quarantined; a step of a proposal is tried again on another."""
    not_tested = "not-tested"
    """The proposal that it tests is not under test any more."""
    principal_ended = "principal-ended"
    """The generation is over under which it was asked for (`core.principals`)."""
    other_step_failed = "other-step-failed"
    """Another step of the same proposal failed first."""


class PauseCause(StrEnum):
    """Why an agent is paused."""

    request = "request"
    """A person asked for it."""
    budget = "budget"
    """It has used up its budget; a person is asked."""
    suspicion = "suspicion"
    """A statistical sign of it is odd; a person is asked."""


class AlarmSignal(StrEnum):
    """What about a principal raised an alarm."""

    commits = "commits"
    """Far more proposals than it usually makes."""
    system_calls = "system-calls"
    """Refused system calls that others of its role do not make."""
    cpu = "cpu"
    """Far more processor time than it usually takes."""
    self_change = "self-change"
    """A change to the policy, supervisor, hooks or sandbox, or to its own manifest or tests."""
    probing = "probing"
    """Refused system calls and routes, by weight."""
    egress = "egress"
    """A burst of attempts to reach a network."""
    canary = "canary"
    """A canary token, which opens nothing, was read or used."""
    budget = "budget"
    """Its budget is used up."""
    sequence = "sequence"
    """Facts that it counted are missing."""


class AlarmResponse(StrEnum):
    """What was done about an alarm."""

    observed = "observed"
    """It was reported; nothing was stopped."""
    paused = "paused"
    """What runs for it stands still, and a person is asked."""
    quarantined = "quarantined"


class RestartCause(StrEnum):
    """Why a part of the system was started again."""

    ended = "ended"
    frozen = "frozen"
    """It ran and did not answer."""
    unreachable = "unreachable"
    """Its socket was removed."""


class CandidateOutcome(StrEnum):
    """How the tests of a candidate ended: the outcome of `proposal.tested`."""

    passed = "passed"
    failed = "failed"
    divided = "divided"
    """The batch that it was part of failed: it is tested in a smaller one."""


class RefusalCause(StrEnum):
    """Why a proposal was refused: the outcome of `proposal.refused`."""

    stale = "stale"
    """The same lines have changed since its base."""
    policy = "policy"
    """The policy does not allow it."""
    invalid = "invalid"
    """Its edits have the wrong form."""


class CanaryOutcome(StrEnum):
    """How a version answered beside the champion: the outcome of `model.tried`."""

    ok = "ok"
    failed = "failed"


class RevertOutcome(StrEnum):
    """What became of a rejected proposal's edits: the outcome of `proposal.reverted`."""

    ok = "ok"
    """They are not in `dev`."""
    stay = "stay"
    """They stay in `dev`: others have changed the same lines since."""


# -- payloads --------------------------------------------------------------------------------


class FactPayload(Message, frozen=True, kw_only=True):
    """The data of one kind of facts; unknown fields are ignored."""

    kind: ClassVar[Kind]


class SystemStarted(FactPayload, frozen=True, kw_only=True):
    """A process of the system has started."""

    kind: ClassVar[Kind] = Kind.system_started
    version: str = ""
    pid: int | None = None


class SystemStopped(FactPayload, frozen=True, kw_only=True):
    """A process of the system has ended in order."""

    kind: ClassVar[Kind] = Kind.system_stopped
    version: str = ""
    pid: int | None = None


class SystemRestored(FactPayload, frozen=True, kw_only=True):
    """The system was restored from a backup; what came after that moment is not in it."""

    kind: ClassVar[Kind] = Kind.system_restored
    version: str = ""
    """Of the AngelOS that made the backup."""
    backup_at: float
    """The moment that it shows, in Unix seconds."""
    audit_size: int
    """Entries of the audit log that were signed then."""
    audit_root: str


class PolicyLoaded(FactPayload, frozen=True, kw_only=True):
    """Another policy is in force."""

    kind: ClassVar[Kind] = Kind.policy_loaded
    hash: str = ""
    files: tuple[str, ...] = ()


class AuditKey(FactPayload, frozen=True, kw_only=True):
    """The audit log is signed by other keys from now on."""

    kind: ClassVar[Kind] = Kind.audit_key
    digest: str
    """SHA-256 of the verifier keys, a line each, hex."""
    vkeys: tuple[str, ...] = ()
    lasting: bool = False
    """Whether the signer keeps them when it is started again."""


class OutputsExpired(FactPayload, frozen=True, kw_only=True):
    """The outputs of tasks that ended long ago are erased, as the settings say.

    Those of tasks that tested a proposal stay: a verdict rests on them.
    """

    kind: ClassVar[Kind] = Kind.outputs_expired
    upto: Offset
    """Of the last end of a task that this is about."""
    days: float
    """How long outputs are kept."""


class LetterDead(FactPayload, frozen=True, kw_only=True):
    """An entry of the journal or an envelope of a queue was set aside as a dead letter."""

    kind: ClassVar[Kind] = Kind.letter_dead
    position: str
    """Where it was, and by which the dead letter is named."""
    reason: str
    """A `DeadReason`."""
    detail: str = ""
    source: str = ""
    """Who had sent it, if that can be read."""
    envelope: str = ""
    """Its id, if that can be read."""


class MessageRefused(FactPayload, frozen=True, kw_only=True):
    """A peer may not send a message to another, or there is no such destination."""

    kind: ClassVar[Kind] = Kind.message_refused
    to: str
    lane: str
    code: str
    """Of the error that its sender got."""
    reason: str = ""


class AuditDamaged(FactPayload, frozen=True, kw_only=True):
    """The audit log was tampered with; it takes no more entries."""

    kind: ClassVar[Kind] = Kind.audit_damaged
    detail: str


class AuditAccepted(FactPayload, frozen=True, kw_only=True):
    """A person has looked at the damage; another log goes on with the entries that are sound."""

    kind: ClassVar[Kind] = Kind.audit_accepted
    previous: str
    """The name of the log that was damaged."""
    reason: str
    size: int
    """Entries that the new log begins with."""
    left_out: int
    """Entries that are only in the evidence."""
    evidence: str
    """The table that holds the damaged log."""


NodeRole = Literal["execution", "labs"]


class NodeEnrolled(FactPayload, frozen=True, kw_only=True):
    """A node has its first certificate."""

    kind: ClassVar[Kind] = Kind.node_enrolled
    role: NodeRole
    serial: str = ""


class NodeConnected(FactPayload, frozen=True, kw_only=True):
    """A node has connected."""

    kind: ClassVar[Kind] = Kind.node_connected
    role: NodeRole
    tier: Tier = Tier.none
    serial: str = ""
    pid: str = ""
    """As the node reports it; never trusted."""
    profile: NodeProfile = NodeProfile()
    """Likewise."""
    hub: str = ""
    """To which hub: empty for control's own, else the gateway's name."""


class NodeDisconnected(FactPayload, frozen=True, kw_only=True):
    """A node's connection was lost or ended."""

    kind: ClassVar[Kind] = Kind.node_disconnected
    code: str = ""
    hub: str = ""
    """From which hub."""


class NodeLoad(FactPayload, frozen=True, kw_only=True):
    """How busy a node is; what is 0 it may not be able to measure."""

    kind: ClassVar[Kind] = Kind.node_load
    cpu: float = 0.0
    """Share of the machine's processors that is busy, 0 to 1."""
    memory_bytes: int = 0
    """That the machine uses."""
    resident_bytes: int = 0
    """That the node's own process uses."""
    disk_free_bytes: int = 0
    slots: int = 0
    """Tasks that may run at the same time."""
    slots_busy: int = 0
    slots_waiting: int = 0
    """Tasks on the node that wait for a slot."""
    boxes_ready: int = 0
    """Boxes started ahead."""
    boxes_open: int = 0
    """Boxes with a program in them."""


class PartRestarted(FactPayload, frozen=True, kw_only=True):
    """A part of the system (a store, the server, a node) had failed and was started again."""

    kind: ClassVar[Kind] = Kind.part_restarted
    part: str
    cause: RestartCause
    exit_code: int | None = None
    """Negative: the number of the signal that killed it."""
    seconds: float = 0.0
    """From the failure until it answered again."""


class AgentEnrolled(FactPayload, frozen=True, kw_only=True):
    """An agent has its first certificate."""

    kind: ClassVar[Kind] = Kind.agent_enrolled
    role: str = ""
    serial: str = ""


class AgentConnected(FactPayload, frozen=True, kw_only=True):
    """An agent has connected."""

    kind: ClassVar[Kind] = Kind.agent_connected
    role: str = ""
    tier: str = ""
    serial: str = ""
    pid: str = ""


class AgentDisconnected(FactPayload, frozen=True, kw_only=True):
    """An agent's connection was lost or ended."""

    kind: ClassVar[Kind] = Kind.agent_disconnected
    code: str = ""


class PrincipalQuarantined(FactPayload, frozen=True, kw_only=True):
    """A principal is refused from now on."""

    kind: ClassVar[Kind] = Kind.principal_quarantined
    reason: str = ""


class PrincipalReleased(FactPayload, frozen=True, kw_only=True):
    """A quarantine has ended."""

    kind: ClassVar[Kind] = Kind.principal_released
    probation_until: float = 0.0
    """Unix seconds until which all that it proposes waits for a person."""
    new_key: bool = False
    """Its certificates stay void."""


class PrincipalReleaseAsked(FactPayload, frozen=True, kw_only=True):
    """A person wants a quarantine ended; a second one has to want the same."""

    kind: ClassVar[Kind] = Kind.principal_release_asked
    new_key: bool = False


class PrincipalPaused(FactPayload, frozen=True, kw_only=True):
    """What runs for an agent stands still, and nothing of it starts, until it is resumed."""

    kind: ClassVar[Kind] = Kind.principal_paused
    reason: str = ""
    cause: PauseCause = PauseCause.request


class PrincipalResumed(FactPayload, frozen=True, kw_only=True):
    """What was paused goes on; its budget begins anew."""

    kind: ClassVar[Kind] = Kind.principal_resumed
    reason: str = ""


class PrincipalFlagged(FactPayload, frozen=True, kw_only=True):
    """An alarm about a principal: what was seen, and what is done."""

    kind: ClassVar[Kind] = Kind.principal_flagged
    reason: str = ""
    evidence: dict[str, Any] = {}
    """Its figures."""
    signal: AlarmSignal | None = None
    severity: str = ""
    """notice, statistical or certain."""
    response: AlarmResponse = AlarmResponse.observed
    acts: tuple[FactId, ...] = ()
    """The facts that it rests on, the last ones."""


class AccessRefused(FactPayload, frozen=True, kw_only=True):
    """Calls of a principal were refused at a door (`core.refusals`)."""

    kind: ClassVar[Kind] = Kind.access_refused
    door: str
    act: str
    reason: str = ""
    count: int = 1
    """How many equal ones it stands for, since the last such fact."""


class PrincipalEnded(FactPayload, frozen=True, kw_only=True):
    """What a principal did under an older generation no longer counts (`core.principals`)."""

    kind: ClassVar[Kind] = Kind.principal_ended
    generation: int
    """The present one."""
    active: bool = True


class PersonAdded(FactPayload, frozen=True, kw_only=True):
    """A person may sign in."""

    kind: ClassVar[Kind] = Kind.person_added
    role: str = ""


class PersonRemoved(FactPayload, frozen=True, kw_only=True):
    """A person's token is void."""

    kind: ClassVar[Kind] = Kind.person_removed


class PersonChanged(FactPayload, frozen=True, kw_only=True):
    """A person has another role, or another token."""

    kind: ClassVar[Kind] = Kind.person_changed
    role: str = ""
    new_token: bool = False


class TokenCreated(FactPayload, frozen=True, kw_only=True):
    """A principal has one more token; its secret is in no fact."""

    kind: ClassVar[Kind] = Kind.token_created
    token: str
    """Its id."""
    session: str = "token"
    """One of `SessionKind`."""
    scopes: tuple[str, ...] = ()
    expires_at: float = 0.0
    canary: str = ""
    """SHA-256 of a canary's text, hex: it opens nothing, and is looked for in what agents say."""


class TokenRevoked(FactPayload, frozen=True, kw_only=True):
    """A token is void."""

    kind: ClassVar[Kind] = Kind.token_revoked
    token: str


class TaskAccepted(FactPayload, frozen=True, kw_only=True):
    """A task was decided on and has its grant."""

    kind: ClassVar[Kind] = Kind.task_accepted
    command: CommandId
    request: str
    """SHA-256 of the request."""
    node: PrincipalId
    label: str = ""
    wall_s: float
    deadline: float
    """Unix seconds after which it must not be started."""
    proposal: str = ""
    """The proposal that this task tests, if any."""
    step: str = ""
    """Depends on what is run and on which revision: equal steps have equal reports."""
    rule: str = ""
    policy: str = ""
    generation: int = 0
    """Of the actor."""
    body: bytes = b""
    """The encoded `Command`, shown by the audit log only."""


class TaskRefused(FactPayload, frozen=True, kw_only=True):
    """The policy does not allow a task."""

    kind: ClassVar[Kind] = Kind.task_refused
    reason: str = ""
    rules: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    """Rules of the network that would have to be allowed, for a person to judge."""


class TaskStarted(FactPayload, frozen=True, kw_only=True):
    """A task runs on its node."""

    kind: ClassVar[Kind] = Kind.task_started
    node: str = ""
    tier: Tier = Tier.none
    attempt: int = 1
    """2 or more: its node died, and its output starts again."""


class TaskOutput(FactPayload, frozen=True, kw_only=True):
    """A piece of a task's output."""

    kind: ClassVar[Kind] = Kind.task_output
    stream: Literal["stdout", "stderr"]
    text: str
    index: int = 0
    raw: str = ""
    """The bytes themselves in base64, where they are no UTF-8; `text` has U+FFFD in their place."""
    omitted: int = 0
    """Bytes of the stream that were left out right before this piece."""


class TaskResult(FactPayload, frozen=True, kw_only=True):
    """The end of a run, as `angelos run --json` prints it and `task.finished` carries it."""

    kind: ClassVar[Kind] = Kind.task_finished
    status: Status
    exit_code: int | None = None
    stdout: str = ""
    """Empty, as `stderr` and all below, once the output has expired."""
    stderr: str = ""
    duration_s: float
    node: str
    tier: Tier
    evidence: dict[str, Any] = {}
    """`source`, one of `core.runs.EvidenceSource`, and what it saw."""
    report: RunReport | None = None
    """What a runner saw of the cases that it asked for, where the task has some."""
    files: tuple[OutputFile, ...] = ()
    """The files that it left and that were asked for."""
    left_out: tuple[OutputLeftOut, ...] = ()
    """Those that were asked for and not taken."""
    displays: tuple[MimeBundle, ...] = ()
    """Its rich output, in the order in which it came."""


class TaskReported(TaskResult, frozen=True, kw_only=True):
    """How a task really ended, as its node reports it after control had given it up.

    Beside `task.finished`, which stays: what followed from that is not undone.
    """

    kind: ClassVar[Kind] = Kind.task_reported


_R = TypeVar("_R", bound=TaskResult)


def without_output(result: _R) -> _R:
    """Return how a task ended, without anything that its program wrote."""
    return msgspec.structs.replace(
        result, stdout="", stderr="", evidence={}, files=(), left_out=(), displays=()
    )


class TaskCancelled(FactPayload, frozen=True, kw_only=True):
    """Somebody wants a task stopped."""

    kind: ClassVar[Kind] = Kind.task_cancelled
    reason: str = ""
    cause: CancelCause = CancelCause.request


class NetworkRequested(FactPayload, frozen=True, kw_only=True):
    """A program in a box has asked for something of the network, by the node's broker."""

    kind: ClassVar[Kind] = Kind.network_requested
    by: PrincipalId
    """For whom the box runs."""
    method: str = ""
    """Empty for a connection of which no more can be read."""
    url: str
    """Scheme, host, port and the beginning of the path; never a query."""
    status: int = 0
    """Of the answer, 0 if there was none."""
    sent: int = 0
    """Bytes of bodies to the host, or of all that is said where it cannot be read."""
    received: int = 0
    allows: str = ""
    """The rule that allowed it; of a refused one the rule that would, for a person to judge."""
    reason: str = ""
    """Why it was refused."""


class DocumentEdited(FactPayload, frozen=True, kw_only=True):
    """A live document or its working file has changed."""

    kind: ClassVar[Kind] = Kind.document_edited
    bytes: int = 0
    """Of edits."""
    copy: str = ""
    """The path of the copy of what was on disk."""
    stays: str = ""
    """The path that was not deleted."""
    reason: str = ""


class ProposalReceived(FactPayload, frozen=True, kw_only=True):
    """A proposal was taken."""

    kind: ClassVar[Kind] = Kind.proposal_received
    repo: str
    base: Revision
    digest: str
    message: str = ""
    author: PrincipalId = PrincipalId("")
    paths: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    generation: int = 0
    """Of the author."""
    live: bool = False
    """It enters the live documents at once."""
    kernel: bool = False
    """Code in the author's kernel proposed it: it is judged as an agent's."""
    part_of: ProposalId | None = None
    """The proposal of which a person took this part."""
    hunks: tuple[HunkId, ...] = ()
    """Of a part: which of the proposal's hunks."""


class ProposalNarrowed(FactPayload, frozen=True, kw_only=True):
    """A person, the actor, withdrew a part of a proposal that waits; the rest goes on."""

    kind: ClassVar[Kind] = Kind.proposal_narrowed
    digest: str
    """Of what is left; approvals of what it was before lapse."""
    changes: tuple[Change, ...] = ()
    hunks: tuple[HunkId, ...] = ()
    """Which were withdrawn."""
    reason: str = ""


class ProposalRefused(FactPayload, frozen=True, kw_only=True):
    """A proposal was refused before it was taken."""

    kind: ClassVar[Kind] = Kind.proposal_refused
    repo: str = ""
    base: Revision = Revision("")
    message: str = ""
    reason: str = ""
    conflicts: tuple[Any, ...] = ()
    """Where it does not fit, with both texts, bounded."""
    policy_paths: tuple[str, ...] = ()
    """The paths of the policy itself that it wanted to change."""
    rules: tuple[str, ...] = ()


class ProposalMerged(FactPayload, frozen=True, kw_only=True):
    """A proposal is part of `dev`: a person, the actor, accepted it, or it was proposed live."""

    kind: ClassVar[Kind] = Kind.proposal_merged
    digest: str = ""
    """What the person approves by this; empty where they may not approve, or do it separately."""
    generation: int = 0
    """Of the person."""
    solo: bool = False
    """One person alone reviews (`review.solo`)."""


class ProposalTesting(FactPayload, frozen=True, kw_only=True):
    """A proposal has a candidate for `main`, which is tested."""

    kind: ClassVar[Kind] = Kind.proposal_testing
    main: Revision
    """The `main` that the candidate was made from."""
    tree: str = ""
    commit: Revision | None = None
    """Of exactly this proposal's edits, where the candidate holds several proposals."""
    batch: int = 1
    """How many proposals the candidate holds; each has such a fact."""
    apart: bool = False
    """It is tested behind the rest: a batch with it, or its author's last proposal, failed."""
    changes: tuple[Change, ...] = ()
    findings: tuple[GateFinding, ...] = ()
    """What a person has to look at, whatever its tests say."""
    factors: tuple[RiskFactor, ...] = ()
    fresh: dict[str, tuple[str, ...]] = {}
    """Cells of notebooks that are re-run first, so that the candidate holds their outputs."""


class StepResult(Message, frozen=True, kw_only=True):
    """One step of the pipeline: an ordinary task and how it ended."""

    name: str
    task: TaskId
    status: str
    seconds: float
    output: str
    """Last part of its output, bounded."""
    witnessed: bool = False
    """Whether its end is the word of somebody other than the judged code."""
    passed: int = 0
    """Cases that passed, where a runner asked for cases."""
    skipped: int = 0
    node: str = ""
    """Who ran it."""
    tier: Tier = Tier.none
    """The isolation that was in force."""
    runner: str = ""
    """What asked for its cases."""
    digest: str = ""
    """SHA-256 of what its node reported (`result_digest`)."""
    failed: tuple[str, ...] = ()
    """The first cases that failed."""
    stage: str = "unit"
    """One of unit, integration, security and static."""
    required: bool = True
    """Whether its failure rejects; if not it is only shown."""
    flaky: tuple[str, ...] = ()
    """The first cases that failed once, and then passed or failed on `main` too."""


def result_digest(result: TaskResult) -> str:
    """Return the SHA-256 of how a task ended and what its runner reported."""
    rows = (result.status, result.exit_code, result.stdout, result.stderr, result.report)
    return hashlib.sha256(encode(rows)).hexdigest()


class ProposalTested(FactPayload, frozen=True, kw_only=True):
    """All steps on a candidate have ended."""

    kind: ClassVar[Kind] = Kind.proposal_tested
    reason: str = ""
    steps: tuple[StepResult, ...] = ()
    findings: tuple[GateFinding, ...] = ()
    """What a person has to look at, beside what was seen before the tests."""
    group: str = ""
    """Those of a batch that failed which are tested together next."""


class ProposalWaiting(FactPayload, frozen=True, kw_only=True):
    """People have to approve a candidate."""

    kind: ClassVar[Kind] = Kind.proposal_waiting
    needs: int
    """How many people, in all."""
    reason: str = ""
    risk: int = 0
    factors: tuple[RiskFactor, ...] = ()
    rule: str = ""
    solo: bool = False
    """One person alone reviews (`review.solo`)."""
    approvals: tuple[PrincipalId, ...] | None = None
    """Those that count as of now; None leaves it to the reader."""
    actor_kind: Literal["person", "policy"] = "policy"
    policy_paths: tuple[str, ...] = ()


class ProposalApproved(FactPayload, frozen=True, kw_only=True):
    """A person, or the system by its policy, approved a candidate."""

    kind: ClassVar[Kind] = Kind.proposal_approved
    digest: str
    """Of the edits; an approval is for exactly these."""
    actor_kind: Literal["person", "policy", ""] = ""
    comment: str = ""
    reason: str = ""
    risk: int = 0
    factors: tuple[RiskFactor, ...] = ()
    rule: str = ""
    solo: bool = False
    """One person alone reviews (`review.solo`)."""
    needs: int | None = None
    """How many people it takes as of now, in all; None where the policy approves."""
    generation: int = 0
    """Of the person."""
    policy_paths: tuple[str, ...] = ()


class ProposalRejected(FactPayload, frozen=True, kw_only=True):
    """A proposal will not become part of `main`; its edits leave `dev`."""

    kind: ClassVar[Kind] = Kind.proposal_rejected
    reason: str = ""
    digest: str = ""


class ProposalPromoted(FactPayload, frozen=True, kw_only=True):
    """A candidate has become `main`."""

    kind: ClassVar[Kind] = Kind.proposal_promoted
    repo: str
    before: Revision | None = None
    commit: Revision | None = None
    """Of exactly this proposal's edits, where the candidate holds several proposals."""
    provenance: str = ""
    """A DSSE envelope of an in-toto statement (SLSA provenance v1), JSON."""


class ProposalReverted(FactPayload, frozen=True, kw_only=True):
    """A rejected proposal is closed: its edits are not in `dev`, or (outcome `stay`) stay there."""

    kind: ClassVar[Kind] = Kind.proposal_reverted
    was_in_dev: bool = False
    reason: str = ""


class BranchAdvanced(FactPayload, frozen=True, kw_only=True):
    """A branch has a new head."""

    kind: ClassVar[Kind] = Kind.branch_advanced
    before: str = ""
    """The head before; empty for a new branch."""
    cause: str = ""
    proposal: str = ""


class CheckoutRequested(FactPayload, frozen=True, kw_only=True):
    """A node is to check `main` out."""

    kind: ClassVar[Kind] = Kind.checkout_requested
    repo: str
    branch: str = "main"
    canary: bool
    attempt: int = 1
    command: CommandId = CommandId("")
    rule: str = ""
    no_canary: str = ""
    """Why there is no canary, in a sentence."""
    body: bytes = b""
    """The encoded `Command`, shown by the audit log only."""


class CheckoutHealthy(FactPayload, frozen=True, kw_only=True):
    """A node has a revision in force."""

    kind: ClassVar[Kind] = Kind.checkout_healthy
    repo: str
    branch: str = "main"
    canary: bool = False


class CheckoutFailed(FactPayload, frozen=True, kw_only=True):
    """A node did not put a revision in force."""

    kind: ClassVar[Kind] = Kind.checkout_failed
    repo: str
    branch: str = "main"
    canary: bool = False
    stayed_on: Revision | None = None
    detail: str = ""
    evidence: dict[str, Any] = {}


class CheckoutSkipped(FactPayload, frozen=True, kw_only=True):
    """A canary has been silent for too long; the rollout goes on without it."""

    kind: ClassVar[Kind] = Kind.checkout_skipped
    repo: str
    reason: str = ""


class RollbackDone(FactPayload, frozen=True, kw_only=True, rename={"origin": "from"}):
    """`main` has the tree of an earlier revision again."""

    kind: ClassVar[Kind] = Kind.rollback_done
    origin: str
    """The head before; `from` in the data."""
    to: Revision
    cause: Literal["health", "request"]
    reason: str = ""


class MemoryRemembered(FactPayload, frozen=True, kw_only=True):
    """A text is kept; what it says is in no fact, so that it can be forgotten."""

    kind: ClassVar[Kind] = Kind.memory_remembered
    namespace: str
    task: TaskId | None = None
    repo: str = ""
    expires_at: float | None = None


class MemorySuperseded(FactPayload, frozen=True, kw_only=True):
    """A memory is not recalled any more: another stands for it."""

    kind: ClassVar[Kind] = Kind.memory_superseded
    namespace: str
    by: str
    """Id of the memory that stands for it."""


class MemoryForgotten(FactPayload, frozen=True, kw_only=True):
    """The tombstone of memories; whoever replays the log deletes them again."""

    kind: ClassVar[Kind] = Kind.memory_forgotten
    ids: tuple[str, ...]


class MemoryRefused(FactPayload, frozen=True, kw_only=True):
    """A text was not worth remembering."""

    kind: ClassVar[Kind] = Kind.memory_refused


class ModelTraining(FactPayload, frozen=True, kw_only=True):
    """A task trains a model."""

    kind: ClassVar[Kind] = Kind.model_training
    role: str
    artefact: str
    """`base` or `adapter`."""
    data: str
    """For people to read; `repo` and the fact's revision name approved history."""
    data_sha256: str
    repo: str = ""
    task: TaskId | None = None


class ModelRefused(FactPayload, frozen=True, kw_only=True):
    """A training run has made no version: gates stopped it, or its task did not end well."""

    kind: ClassVar[Kind] = Kind.model_refused
    role: str
    gates: tuple[str, ...] = ()
    reason: str = ""


class ModelRegistered(FactPayload, frozen=True, kw_only=True):
    """A version is in the registry; every gate has passed it."""

    kind: ClassVar[Kind] = Kind.model_registered
    sha256: str
    """Of the artefact."""
    digest: str
    """Of artefact, card and gates: what a person approves."""
    run: str = ""


class ModelProposed(FactPayload, frozen=True, kw_only=True):
    """Somebody wants a version to become the champion."""

    kind: ClassVar[Kind] = Kind.model_proposed
    promotion: str
    digest: str


class ModelApproved(FactPayload, frozen=True, kw_only=True):
    """A person has approved exactly this digest; the labs node tries it now."""

    kind: ClassVar[Kind] = Kind.model_approved
    promotion: str
    digest: str
    solo: bool = False
    """One person alone reviews, and it may be their own."""
    generation: int = 0


class ModelRejected(FactPayload, frozen=True, kw_only=True):
    """A person does not want a version to become the champion."""

    kind: ClassVar[Kind] = Kind.model_rejected
    promotion: str
    reason: str = ""


class ModelTried(FactPayload, frozen=True, kw_only=True):
    """A version has answered beside the champion on the labs node."""

    kind: ClassVar[Kind] = Kind.model_tried
    promotion: str
    inputs: int = 0
    differing: int = 0
    reason: str = ""


class ModelPromoted(FactPayload, frozen=True, kw_only=True):
    """A version is the champion."""

    kind: ClassVar[Kind] = Kind.model_promoted
    promotion: str
    sha256: str
    previous: int | None = None


class ModelRolledBack(FactPayload, frozen=True, kw_only=True):
    """An earlier champion is the champion again."""

    kind: ClassVar[Kind] = Kind.model_rolled_back
    sha256: str
    previous: int
    reason: str = ""


PAYLOADS: dict[str, type[FactPayload]] = {
    payload.kind: payload
    for payload in (
        SystemStarted,
        SystemStopped,
        SystemRestored,
        PolicyLoaded,
        AuditKey,
        AuditDamaged,
        AuditAccepted,
        OutputsExpired,
        LetterDead,
        MessageRefused,
        NodeEnrolled,
        NodeConnected,
        NodeDisconnected,
        NodeLoad,
        PartRestarted,
        AgentEnrolled,
        AgentConnected,
        AgentDisconnected,
        PrincipalQuarantined,
        PrincipalReleased,
        PrincipalReleaseAsked,
        PrincipalPaused,
        PrincipalResumed,
        PrincipalFlagged,
        AccessRefused,
        PrincipalEnded,
        PersonAdded,
        PersonRemoved,
        PersonChanged,
        TokenCreated,
        TokenRevoked,
        TaskAccepted,
        TaskRefused,
        TaskStarted,
        TaskOutput,
        TaskResult,
        TaskReported,
        TaskCancelled,
        NetworkRequested,
        DocumentEdited,
        ProposalReceived,
        ProposalRefused,
        ProposalMerged,
        ProposalNarrowed,
        ProposalTesting,
        ProposalTested,
        ProposalWaiting,
        ProposalApproved,
        ProposalRejected,
        ProposalPromoted,
        ProposalReverted,
        BranchAdvanced,
        CheckoutRequested,
        CheckoutHealthy,
        CheckoutFailed,
        CheckoutSkipped,
        RollbackDone,
        MemoryRemembered,
        MemorySuperseded,
        MemoryForgotten,
        MemoryRefused,
        ModelTraining,
        ModelRefused,
        ModelRegistered,
        ModelProposed,
        ModelApproved,
        ModelRejected,
        ModelTried,
        ModelPromoted,
        ModelRolledBack,
    )
}
"""The payload of each kind; a kind that is not here is unknown."""
_DECODERS = {kind: msgspec.msgpack.Decoder(payload) for kind, payload in PAYLOADS.items()}
_plain_decoder = msgspec.msgpack.Decoder(dict[str, Any])
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
P = TypeVar("P", bound=FactPayload)


class Unreadable(StrEnum):
    """Why a reader cannot use the data of a fact."""

    kind = "kind"
    """No payload is known for its kind: a newer version wrote it."""
    data = "data"
    """The data do not fit the payload of its kind."""
    size = "size"
    """The data are larger than any payload may be."""


class Unknown(msgspec.Struct, frozen=True):
    """Data that could not be decoded, as they came."""

    kind: str
    data: bytes
    why: Unreadable


# -- facts -----------------------------------------------------------------------------------


class FactHeader(TypedDict, total=False):
    """The fields of a fact's header that its writer may leave out."""

    id: FactId
    on_behalf_of: PrincipalId | None
    revision: Revision | None
    outcome: str
    trace: str
    sequence: FactSequence | None


class Fact(Message, frozen=True, kw_only=True, gc=False):
    """Something that happened. `offset` is empty until the journal has it."""

    id: FactId
    at: float
    """Unix seconds, by the clock of its author."""
    actor: PrincipalId
    kind: str
    subject: str
    on_behalf_of: PrincipalId | None = None
    revision: Revision | None = None
    outcome: str = ""
    data: bytes = EMPTY
    """MessagePack of the payload of its kind, as its author encoded it."""
    trace: str = ""
    sequence: FactSequence | None = None
    """Its writer's count (`core.sequences`); None until that writer counts."""
    offset: Offset = Offset("")

    @classmethod
    def of(
        cls,
        payload: FactPayload,
        *,
        at: float,
        actor: PrincipalId,
        subject: str,
        **header: Unpack[FactHeader],
    ) -> Self:
        """Return the fact that `payload` is, with its kind; a fresh `id` by default.

        Raises:
            InvalidInput: The payload holds values that its own fields do not allow.
            TooLarge: It has more than `MAX_DATA_BYTES` bytes.
        """
        try:
            data = encode(payload)
            _DECODERS[payload.kind].decode(data)
        except (OverflowError, TypeError, *_UNREADABLE) as error:
            raise InvalidInput(f"Not the data of {payload.kind}: {error}") from error
        if len(data) > MAX_DATA_BYTES:
            raise TooLarge(
                f"The data of {payload.kind} have {len(data)} bytes; {MAX_DATA_BYTES} are allowed."
            )
        header.setdefault("id", new_fact_id(int(at * 1000)))
        return cls(
            at=at, actor=actor, kind=payload.kind.value, subject=subject, data=data, **header
        )

    def payload(self) -> FactPayload | Unknown:
        """Return the payload of this kind, or `Unknown` with the reason; never raise."""
        decoder = _DECODERS.get(self.kind)
        if decoder is None:
            return Unknown(self.kind, self.data, Unreadable.kind)
        if len(self.data) > MAX_DATA_BYTES:
            return Unknown(self.kind, self.data, Unreadable.size)
        try:
            return decoder.decode(self.data)
        except _UNREADABLE:
            return Unknown(self.kind, self.data, Unreadable.data)

    def read(self, payload: type[P]) -> P:
        """Return the payload of a fact whose kind is known to be this one.

        Raises:
            InvalidInput: The fact is of another kind, or its data do not fit.
        """
        value = self.payload()
        if isinstance(value, payload):
            return value
        why = value.why if isinstance(value, Unknown) else Unreadable.kind
        raise InvalidInput(
            f"Fact {self.id[:64]} of {self.actor[:80]} is no {payload.kind} ({why})."
        )

    def plain(self) -> dict[str, Any]:
        """Return the data as plain values, for people to read; empty if they cannot be read."""
        try:
            return _plain_decoder.decode(self.data)
        except _UNREADABLE:
            return {}


class FactView(Message, frozen=True, kw_only=True):
    """A fact as JSON shows it, with its data as an object.

    Bytes in the data are base64 (RFC 4648). The exact bytes of a fact are in the audit log.
    """

    id: FactId
    at: float
    actor: PrincipalId
    kind: str
    subject: str
    on_behalf_of: PrincipalId | None = None
    revision: Revision | None = None
    outcome: str = ""
    data: dict[str, Any] = {}
    trace: str = ""
    sequence: FactSequence | None = None
    offset: Offset = Offset("")

    @classmethod
    def of(cls, fact: Fact, *, commands: bool = False) -> Self:
        """Return the view of a fact; `commands` shows the command that it carries, too.

        A command holds the signed grant, and what a program is and reads: that is between control
        and the node. The audit log shows it to those who may read that.
        """
        data = fact.plain()
        if not commands:
            data.pop(COMMAND_FIELD, None)
        return cls(
            id=fact.id,
            at=fact.at,
            actor=fact.actor,
            kind=fact.kind,
            subject=fact.subject,
            on_behalf_of=fact.on_behalf_of,
            revision=fact.revision,
            outcome=fact.outcome,
            data=data,
            trace=fact.trace,
            sequence=fact.sequence,
            offset=fact.offset,
        )

    def fact(self) -> Fact:
        """Return the fact of this view; its data are encoded again."""
        return Fact(**{**msgspec.structs.asdict(self), "data": encode(self.data)})


def to_json(fact: Fact) -> bytes:
    """Return a fact as a reader of events gets it: one JSON object."""
    try:
        return msgspec.json.encode(FactView.of(fact))
    except (TypeError, *_UNREADABLE):  # MessagePack knows values that JSON does not
        return msgspec.json.encode(FactView.of(msgspec.structs.replace(fact, data=EMPTY)))


def from_json(message: str | bytes) -> Fact:
    """Return the fact in a message of `to_json`.

    Raises:
        InvalidInput: The message is no fact.
    """
    try:
        return msgspec.json.decode(message, type=FactView).fact()
    except _UNREADABLE as error:
        raise InvalidInput(f"Not a fact: {error}") from error
