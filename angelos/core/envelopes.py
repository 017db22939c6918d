"""Envelopes: what the hub and its queues carry without looking into it.

A header says from whom, to whom and how; the body is bytes that only the consumer decodes, so a
later version's fields survive and no body can break the hub. `EnvelopeQueue` keeps them.

    >>> header = EnvelopeHeader(id="msg-1", source=PrincipalId("agent/ada"), lane=Lane.message,
    ...     destination=PrincipalId("node/exec1"), sequence=1, codec="msgpack")
    >>> check_envelope(RoutedEnvelope(header, b"body"))
    >>> [round(retry_delay_s(RetryPolicy(), nacks, 0.5), 1) for nacks in (1, 2, 3, 20)]
    [0.5, 1.0, 2.0, 60.0]
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from enum import StrEnum

import msgspec

from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.ids import Offset, PrincipalId, is_principal

MAX_BODY_BYTES = 8 * 1024 * 1024 - 1024
"""With its header an envelope fits into a frame of the wire."""
MAX_TRACE_BYTES = 128
_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_CODEC = re.compile(r"[a-z0-9][a-z0-9.+-]{0,31}")


class Lane(StrEnum):
    """What kind of traffic an envelope is; each lane has an order and a capacity of its own."""

    control = "control"
    """Cancel, pause, revoke: handed out before all others, and taken when those are full."""
    command = "command"
    message = "message"
    """From peer to peer."""
    log = "log"
    heartbeat = "heartbeat"
    dashboard = "dashboard"

    @property
    def lossy(self) -> bool:
        """Whether a full lane drops its oldest instead of refusing the newest."""
        return self in {Lane.log, Lane.heartbeat, Lane.dashboard}


class EnvelopeHeader(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """All that the hub knows of an envelope."""

    id: str
    """Chosen by the source, unique for it: who sends again uses it again."""
    source: PrincipalId
    """Established by the connection, never believed from the sender."""
    destination: PrincipalId
    """A name; a label such as `gpu` is resolved to one before the envelope is put."""
    lane: Lane
    sequence: int
    """Grows with each that the source sends to this destination in this lane."""
    codec: str
    """How the body is encoded, for its consumer: `msgpack`, `protobuf`, `json`, ..."""
    deadline: float | None = None
    """Unix seconds after which it is not handed out any more."""
    trace: str = ""


class RoutedEnvelope(msgspec.Struct, frozen=True, gc=False):
    """A header and bytes."""

    header: EnvelopeHeader
    body: bytes


class PutReceipt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An envelope was taken durably."""

    id: str
    position: Offset
    duplicate: bool = False
    """It had been put before; the first one counts, acknowledged or not."""
    dropped: int = 0
    """How many older envelopes a lossy lane dropped to make room for it."""


class QueueDelivery(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An envelope handed out, to be acknowledged or given back by its position."""

    envelope: RoutedEnvelope
    position: Offset
    attempt: int = 1
    """One more than how often it was given back."""


class QueueDepth(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for one destination."""

    waiting: dict[Lane, int]
    """Not acknowledged, handed out or not; lanes with none are left out."""
    waiting_bytes: int
    """Of their bodies."""
    dropped: dict[Lane, int]
    """By lossy lanes since the queue was made; lanes with none are left out."""
    dead: int


class DeadReason(StrEnum):
    """Why an envelope will not be handed out."""

    attempts = "attempts"
    """It was given back as often as the retry policy allows."""
    expired = "expired"
    """Its deadline passed before it was handed out."""
    refused = "refused"
    """Its consumer gave it back for good."""
    unreadable = "unreadable"
    """What is stored is not an envelope: damaged, of another version, of another writer."""


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope that will not be handed out, kept with the reason."""

    position: Offset
    """Where it was put."""
    reason: DeadReason
    detail: str
    """Words for people: the last reason it was given back with, or what could not be read."""
    at: float
    """Unix seconds at which it was set aside."""
    attempts: int
    envelope: RoutedEnvelope | None
    """None if it is unreadable."""
    raw: bytes = b""
    """The stored bytes, if it is unreadable."""


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When an envelope that was given back is handed out again."""

    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 60.0
    attempts: int = 8
    """Given back so often it is dead."""


def retry_delay_s(policy: RetryPolicy, nacks: int, jitter: float) -> float:
    """Return how long an envelope waits after it was given back for the `nacks`-th time.

    Args:
        policy: First delay, factor and longest delay.
        nacks: From 1.
        jitter: Random in [0, 1); 0.5 is the middle, the delay is spread by a half to each side.
    """
    growth = (nacks - 1) * math.log(policy.factor)
    reached = growth >= math.log(policy.most_s / policy.first_s)
    delay = policy.most_s if reached else policy.first_s * math.exp(growth)
    return delay * (0.5 + jitter)


def check_envelope(envelope: RoutedEnvelope) -> None:
    """Refuse an envelope that no queue takes.

    Raises:
        InvalidInput: A field of the header has the wrong form; `extra["field"]` names it.
        TooLarge: The body has more than `MAX_BODY_BYTES`.
    """
    if broken := _broken_field(envelope.header):
        raise InvalidInput(f"An envelope's {broken} has the wrong form.", field=broken)
    if len(envelope.body) > MAX_BODY_BYTES:
        raise TooLarge(
            f"A body has at most {MAX_BODY_BYTES} bytes, not {len(envelope.body)}.",
            hint="Put large content into a repository and send its hash.",
        )


def _broken_field(header: EnvelopeHeader) -> str:
    """Return the name of a field that has the wrong form, empty if there is none."""
    for name, holds in _RULES.items():
        if not holds(header):
            return name
    return ""


def _is_deadline(deadline: float | None) -> bool:
    return deadline is None or (math.isfinite(deadline) and deadline > 0)


def _is_trace(trace: str) -> bool:
    return not trace or (
        len(trace.encode(errors="replace")) <= MAX_TRACE_BYTES and trace.isprintable()
    )


_RULES: dict[str, Callable[[EnvelopeHeader], object]] = {
    "id": lambda header: _ID.fullmatch(header.id),
    "source": lambda header: is_principal(header.source),
    "destination": lambda header: is_principal(header.destination),
    "sequence": lambda header: 0 < header.sequence < 2**53,
    "codec": lambda header: _CODEC.fullmatch(header.codec),
    "deadline": lambda header: _is_deadline(header.deadline),
    "trace": lambda header: _is_trace(header.trace),
}
