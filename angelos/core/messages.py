"""The messages of the system, defined once.

Commands go down and carry a grant; facts go up and are appended to the journal. A body on the
wire is MessagePack of one of these structs. Structs that come from outside (HTTP, CLI, files)
derive from `Input` and refuse unknown fields; structs between our own parts ignore them, so
that a later version may add some.

    >>> decode_payload(encode(CancelTask(task=TaskId("task-1"), reason="asked")))
    CancelTask(task='task-1', command='', reason='asked')
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeVar

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.grants import SignedGrant
from angelos.core.ids import CommandId, FactId, Offset, PrincipalId, Revision, TaskId

T = TypeVar("T")
_TELLABLE = 10**300
"""A whole number may be too large to become a float."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A struct between our own parts; unknown fields are ignored."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A struct from outside; unknown fields are refused."""


# -- runs ------------------------------------------------------------------------------------


class Status(StrEnum):
    """How a run ended; the only words for it."""

    ok = "ok"
    error = "error"
    """The program's own exit code was not zero."""
    timeout = "timeout"
    cpu = "cpu"
    oom = "oom"
    pids = "pids"
    output = "output"
    denied = "denied"
    """Refused before or by the box: guard, grant, policy, seccomp or Landlock."""
    killed = "killed"
    """Ended from outside: cancelled, node shut down or lost."""


class Tier(StrEnum):
    """The isolation that was in force (docs/explanation/isolation.md)."""

    full = "full"
    reduced = "reduced"
    landlock = "landlock"
    none = "none"


class Limits(Input, frozen=True, kw_only=True):
    """What a run may use; every field has a hard upper bound."""

    wall_s: float = 30.0
    cpu_s: float = 30.0
    memory_mb: int = 512
    pids: int = 64
    output_bytes: int = 1_000_000
    """Of standard output and error together."""
    disk_mb: int = 64
    """Of the writable /tmp inside."""

    def __post_init__(self) -> None:
        """Refuse limits outside their bounds."""
        bounds: dict[str, tuple[float, float]] = {
            "wall_s": (0.05, 3600), "cpu_s": (0.05, 3600), "memory_mb": (16, 65536),
            "pids": (1, 4096), "output_bytes": (1, 64_000_000), "disk_mb": (1, 16384),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                told = "a number of many digits" if abs(value) >= _TELLABLE else f"{value:g}"
                msg = f"{name} must lie between {low:g} and {high:g}, not {told}"
                raise ValueError(msg)


class RunTask(Message, frozen=True, kw_only=True, tag="run_task", tag_field="kind"):
    """Run this code in a sandbox.

    Either `code` (in `language`) or `argv` is given. With `revision`, the node first checks that
    revision of `repo` out (signature and hashes verified) and binds it read-only at `/work`,
    the working directory; without, the working directory is the writable `/tmp`.
    """

    task: TaskId
    language: Literal["python"] = "python"
    code: str = ""
    argv: tuple[str, ...] = ()
    stdin: bytes = b""
    repo: str = ""
    revision: Revision | None = None
    limits: Limits = Limits()
    guard: bool = True
    """Apply the language's guard to `code` before anything starts."""
    label: str = ""


class CancelTask(Message, frozen=True, kw_only=True, tag="cancel_task", tag_field="kind"):
    """Stop a task, wherever it is; it ends with status `killed`.

    The node says that end also of a command that it has not seen, and will not carry it out if
    it comes later. It acknowledges this command when the task has ended.
    """

    task: TaskId
    command: CommandId = CommandId("")
    """The command that asked for the task."""
    reason: str = ""


class Checkout(Message, frozen=True, kw_only=True, tag="checkout", tag_field="kind"):
    """Pull this revision, verify it, run the health command in it, then switch to it.

    If the health command fails the node stays on (or returns to) the revision it had.
    """

    repo: str
    branch: str
    revision: Revision
    health: tuple[str, ...] = ()
    limits: Limits = Limits()
    canary: bool = False


class RevokeGrants(Message, frozen=True, kw_only=True, tag="revoke_grants", tag_field="kind"):
    """Void every grant made out to this principal; running tasks under them are killed."""

    principal: PrincipalId
    reason: str = ""


Payload = RunTask | CancelTask | Checkout | RevokeGrants


class Command(Message, frozen=True, kw_only=True):
    """What control tells a node to do. `payload` is opaque to the hub: MessagePack of a `Payload`.

    `grant.what` is the SHA-256 of exactly these payload bytes.
    """

    id: CommandId
    to: PrincipalId
    grant: SignedGrant
    payload: bytes
    deadline: float | None = None
    """Unix seconds after which it must not be started."""
    trace: str = ""


# -- facts -----------------------------------------------------------------------------------


class Kind(StrEnum):
    """Kinds of facts. `subject` of each is named in its line."""

    system_started = "system.started"  # subject: system/<name>
    system_stopped = "system.stopped"
    policy_loaded = "policy.loaded"  # data: hash, files

    node_enrolled = "node.enrolled"  # subject: node/<name>; data: role, serial
    node_connected = "node.connected"  # data: role, tier, serial, pid
    node_disconnected = "node.disconnected"
    agent_enrolled = "agent.enrolled"  # subject: agent/<name>
    agent_connected = "agent.connected"
    agent_disconnected = "agent.disconnected"
    principal_quarantined = "principal.quarantined"  # data: reason, evidence
    principal_released = "principal.released"
    principal_flagged = "principal.flagged"  # suspicious, not stopped; data: reason, evidence
    person_added = "person.added"  # subject: person/<name>; data: role
    person_removed = "person.removed"

    task_accepted = "task.accepted"  # subject: task id; data: see control/tasks
    task_refused = "task.refused"
    task_started = "task.started"  # data: node, tier, attempt (2: its node died, output is anew)
    task_output = "task.output"  # data: stream ("stdout"|"stderr"), text, index; not lasting
    task_finished = "task.finished"  # outcome: Status; data: TaskResult
    task_cancelled = "task.cancelled"

    document_edited = "document.edited"  # subject: <repo>:<path>; data: bytes, kept; not lasting

    proposal_received = "proposal.received"  # subject: proposal id; data: repo, paths, digest...
    proposal_refused = "proposal.refused"  # outcome: "stale" | "policy" | "invalid"
    proposal_merged = "proposal.merged"  # into dev; revision: the dev commit
    proposal_testing = "proposal.testing"  # revision: the candidate
    proposal_tested = "proposal.tested"  # outcome: "passed" | "failed"; data: steps
    proposal_waiting = "proposal.waiting"  # data: reason, needs (number of people)
    proposal_approved = "proposal.approved"  # actor: the person; data: digest, solo
    proposal_rejected = "proposal.rejected"  # actor: the person or system; data: reason
    proposal_promoted = "proposal.promoted"  # revision: the new main
    proposal_reverted = "proposal.reverted"  # its edits were taken out of dev
    branch_advanced = "branch.advanced"  # subject: <repo>:<branch>; data: before, cause

    checkout_requested = "checkout.requested"  # subject: node id; revision
    checkout_healthy = "checkout.healthy"  # outcome "ok"; data: repo, branch, canary
    checkout_failed = "checkout.failed"  # outcome: Status or error code; data: detail, stayed_on
    rollback_done = "rollback.done"  # subject: <repo>:main; data: from, to, cause


EPHEMERAL: frozenset[str] = frozenset({Kind.task_output, Kind.document_edited})
"""Kinds that the audit log does not keep; every other kind, known or not, lasts."""


class Fact(Message, frozen=True, kw_only=True):
    """Something that happened. `offset` is empty until the journal has taken it."""

    id: FactId
    at: float
    """Unix seconds by the clock of the one who says so."""
    actor: PrincipalId
    kind: str
    subject: str
    on_behalf_of: PrincipalId | None = None
    revision: Revision | None = None
    outcome: str = ""
    data: dict[str, Any] = {}
    trace: str = ""
    offset: Offset = Offset("")


class TaskResult(Message, frozen=True, kw_only=True):
    """The end of a run, as `angelos run --json` prints it and `task.finished` carries it."""

    status: Status
    exit_code: int | None
    stdout: str
    stderr: str
    duration_s: float
    node: str
    tier: Tier
    evidence: dict[str, Any] = {}
    """`source`: "kernel", "sampler", "guard", "grant", "exit" or "node", and what it saw."""


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_payload_decoder = msgspec.msgpack.Decoder(Payload)


def encode(message: Any) -> bytes:
    """Return deterministic MessagePack of a struct: equal values give equal bytes."""
    return _encoder.encode(message)


def decode(body: bytes, as_type: type[T]) -> T:
    """Return the struct in `body`; raise `InvalidInput` if it is not one."""
    try:
        return msgspec.msgpack.decode(body, type=as_type)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Not a {as_type.__name__}: {error}") from error


def decode_payload(body: bytes) -> Payload:
    """Return the payload of a command; an unknown kind is refused by name."""
    try:
        return _payload_decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Not a known command: {error}") from error
