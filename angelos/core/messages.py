"""The commands of the system, and how every message is written.

Commands go down and carry a grant; facts (`core.facts`) go up and are appended to the journal. A
body on the wire is MessagePack of a struct. Structs that come from outside (HTTP, CLI, files)
derive from `Input` and refuse unknown fields; structs between our own parts ignore them, so
that a later version may add some.

    >>> decode_payload(encode(CancelTask(task=TaskId("task-1"), reason="asked")))
    CancelTask(task='task-1', command='', reason='asked')
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal, TypeVar, get_args

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.grants import SignedGrant
from angelos.core.ids import CommandId, PrincipalId, Revision, TaskId
from angelos.core.plans import CasePlan
from angelos.core.task_files import InputFile

T = TypeVar("T")
_TOO_LONG = 10**300
"""A whole number from here on may be too large to become a float."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A struct between our own parts; unknown fields are ignored."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A struct from outside; unknown fields are refused."""


# -- runs ------------------------------------------------------------------------------------


class Status(StrEnum):
    """How a run ended."""

    ok = "ok"
    error = "error"
    """The program's exit code was not zero."""
    timeout = "timeout"
    cpu = "cpu"
    oom = "oom"
    pids = "pids"
    output = "output"
    denied = "denied"
    """Refused by the guard, the grant, the policy, seccomp or Landlock."""
    killed = "killed"
    """Ended from outside: cancelled, or its node was shut down or lost."""


class Tier(StrEnum):
    """The isolation that was in force (docs/explanation/isolation.md)."""

    full = "full"
    reduced = "reduced"
    landlock = "landlock"
    none = "none"


MAX_OUTPUT_BYTES = 64_000_000
"""The most that `output_bytes` may be, which the reference reads as it stands below."""


class Limits(Input, frozen=True, kw_only=True):
    """The limits of a run; every field has a hard upper bound."""

    wall_s: float = 30.0
    cpu_s: float = 30.0
    memory_mb: int = 512
    pids: int = 64
    output_bytes: int = 1_000_000
    """Of standard output and error together, reported as they come.

    Of what is more the end is reported; 64 times as much (16 MB at least) ends the run.
    """
    disk_mb: int = 64
    """Of the writable /tmp in the box."""

    def __post_init__(self) -> None:
        """Refuse limits outside their bounds."""
        bounds: dict[str, tuple[float, float]] = {
            "wall_s": (0.05, 3600),
            "cpu_s": (0.05, 3600),
            "memory_mb": (16, 65536),
            "pids": (1, 4096),
            "output_bytes": (1, 64_000_000),
            "disk_mb": (1, 16384),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                text = "a number of many digits" if abs(value) >= _TOO_LONG else f"{value:g}"
                msg = f"{name} must lie between {low:g} and {high:g}, not {text}"
                raise ValueError(msg)


_COMPILER = Limits(wall_s=120, cpu_s=240, memory_mb=2048, pids=128, disk_mb=512)


def limits_for(language: str) -> Limits:
    """Return the limits of a task for which none were named: a compiler needs more than Python.

    >>> limits_for("python").memory_mb, limits_for("rust").memory_mb
    (512, 2048)
    """
    return Limits() if language == "python" else _COMPILER


Language = Literal["python", "javascript", "typescript", "rust", "go", "csharp", "swift"]
Priority = Literal["normal", "background"]
"""Whether it waits for its turn like others, or until no other waits."""
TaskAction = Literal["run", "check", "test"]
"""Run it, only check it as a compiler does, or run its tests."""


class RunTask(Message, frozen=True, kw_only=True, tag="run_task", tag_field="kind"):
    """Run this code in a sandbox.

    `code` (in `language`) is given, and `argv` are its arguments, or `argv` alone. With `revision`,
    the node first checks that revision of `repo` out (signature and hashes verified) and binds it
    read-only at `/work`, the working directory; without, the working directory is the writable
    `/tmp`.
    """

    task: TaskId
    language: Language = "python"
    action: TaskAction = "run"
    code: str = ""
    argv: tuple[str, ...] = ()
    stdin: bytes = b""
    repo: str = ""
    revision: Revision | None = None
    limits: Limits = Limits()
    guard: bool = True
    """Apply the language's guard to `code` before anything starts."""
    label: str = ""
    cases: CasePlan | None = None
    """Tests that a runner in a box of its own asks for, in place of `code` or `argv`."""
    inputs: tuple[InputFile, ...] = ()
    """Files that stand read-only at `/in`, with links to them in `/tmp`."""
    outputs: tuple[str, ...] = ()
    """Patterns of files in `/tmp` that are kept when it has ended (`core.paths.matches`)."""
    network: tuple[str, ...] = ()
    """What its box may reach (`core.network.parse_rule`); nothing by default."""
    packages: tuple[str, ...] = ()
    """Python packages that it can import beside the node's own (`core.requirements`)."""
    lock: str = ""
    """A file of the checkout that names more of them."""
    priority: Priority = "normal"


class CancelTask(Message, frozen=True, kw_only=True, tag="cancel_task", tag_field="kind"):
    """Stop a task, queued or running; it ends with status `killed`.

    The node reports that end also for a command that it has not received, and does not carry it
    out if it arrives later. It acknowledges this command when the task has ended.
    """

    task: TaskId
    command: CommandId = CommandId("")
    """The command of the task."""
    reason: str = ""


class Checkout(Message, frozen=True, kw_only=True, tag="checkout", tag_field="kind"):
    """Pull this revision, verify it, run the health command in it, then switch to it.

    If the health command fails, the node keeps the revision that it had.
    """

    repo: str
    branch: str
    revision: Revision
    health: tuple[str, ...] = ()
    limits: Limits = Limits()
    canary: bool = False


class RevokeGrants(Message, frozen=True, kw_only=True, tag="revoke_grants", tag_field="kind"):
    """Void every grant of this principal; running tasks under them are killed."""

    principal: PrincipalId
    reason: str = ""


class PauseTasks(Message, frozen=True, kw_only=True, tag="pause_tasks", tag_field="kind"):
    """Stop every process that runs for a principal where it is, or let all of them go on.

    What has not started does not start before. Certificates and grants stay as they are.
    """

    principal: PrincipalId
    """An agent, or `ALL_AGENTS`."""
    paused: bool


Payload = RunTask | CancelTask | Checkout | RevokeGrants | PauseTasks
COMMANDS: dict[str, type[Payload]] = {
    str(payload.__struct_config__.tag): payload for payload in get_args(Payload)
}
"""The commands by their kind."""


class Command(Message, frozen=True, kw_only=True):
    """What a node is to do. `payload` is opaque to the hub: MessagePack of a `Payload`.

    `grant.what` is the SHA-256 of exactly these payload bytes.
    """

    id: CommandId
    to: PrincipalId
    grant: SignedGrant
    payload: bytes
    deadline: float | None = None
    """Unix seconds after which it must not be started."""
    trace: str = ""


class _Named(Message, frozen=True, kw_only=True):
    kind: str = ""


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_payload_decoder = msgspec.msgpack.Decoder(Payload)
_named_decoder = msgspec.msgpack.Decoder(_Named)


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
    """Return the payload of a command.

    Raises:
        InvalidInput: There is no command of its kind, which the error names, or it has the wrong
            form.
    """
    try:
        kind = _named_decoder.decode(body).kind
        if kind not in COMMANDS:
            raise InvalidInput(
                f"There is no command {kind[:64]!r}.", hint=f"Known are {', '.join(COMMANDS)}."
            )
        return _payload_decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Not a command: {error}") from error
