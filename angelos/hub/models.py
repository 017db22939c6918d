"""What the hub decides without waiting: which facts a peer may report, and as what it acts.

>>> from angelos.core.facts import Kind
>>> fact = Fact(id=FactId("fact-" + "0" * 32), at=1.0, actor=PrincipalId("node/exec1"),
...     kind=Kind.task_started, subject="task-1")
>>> check_fact(fact, PrincipalId("node/exec1"), Role.node)
>>> check_fact(fact, PrincipalId("agent/ada"), Role.agent)
Traceback (most recent call last):
...
angelos.core.errors.Forbidden: agent/ada may not report task.started.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import inspect

from angelos.core.errors import Forbidden
from angelos.core.facts import MAX_DATA_BYTES, PAYLOADS, Fact, Kind, Unknown
from angelos.core.ids import FactId, PrincipalId, is_fact_id
from angelos.core.permissions import Principal, Role
from angelos.core.sequences import FactSequence, is_sequence

REPORTS: dict[Role, frozenset[str]] = {
    Role.node: frozenset(
        {
            Kind.task_started,
            Kind.task_output,
            Kind.task_finished,
            Kind.network_requested,
            Kind.checkout_healthy,
            Kind.checkout_failed,
            Kind.node_load,
        }
    ),
}
"""Kinds of facts that a role may report through its channel; other roles may report none."""
_NOTHING: frozenset[str] = frozenset()
_MAX_TEXT = 512
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
_decode_data = msgspec.msgpack.Decoder(dict[str, Any]).decode
MAX_FACT_BYTES = 2 * 1024 * 1024
"""The largest fact of a peer; as JSON it may be six times as long, and readers accept 16 MB."""
_SCALARS = frozenset({str, int, bool, type(None)})
_MAX_DEPTH = 16
"""How deep the data of a fact may be nested."""
_PLAIN_TYPES = (
    inspect.StrType,
    inspect.IntType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.LiteralType,
    inspect.EnumType,
)


def _has_scalars_only(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return all(map(_has_scalars_only, info.types))
    return isinstance(info, _PLAIN_TYPES)


def _simple_decoders() -> dict[str, Callable[[bytes], object]]:
    """Return what decodes each kind of a peer whose fields are all scalars, unknown ones refused.

    One decoding answers for those what else takes a second one and a walk over every value.
    """
    decoders: dict[str, Callable[[bytes], object]] = {}
    for kind in frozenset().union(*REPORTS.values()):
        payload = PAYLOADS[Kind(kind)]
        info = inspect.type_info(payload)
        assert isinstance(info, inspect.StructType)  # noqa: S101 - every payload is one
        if all(_has_scalars_only(field.type) for field in info.fields):
            fields = [
                (field.name, field.type, msgspec.field(default=field.default))
                if field.default is not msgspec.NODEFAULT
                else (field.name, field.type)
                for field in msgspec.structs.fields(payload)
            ]
            strict = msgspec.defstruct(
                payload.__name__, fields, kw_only=True, forbid_unknown_fields=True, gc=False
            )
            decoders[kind] = msgspec.msgpack.Decoder(strict).decode
    return decoders


_SIMPLE = _simple_decoders()


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A node or agent, authenticated by its certificate."""

    principal: Principal
    node_role: str
    not_after: float
    """Unix seconds at which its certificate ends."""


class QuarantineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A quarantined principal, and the id of the fact that announces it."""

    principal: PrincipalId
    reason: str
    at: float
    fact: FactId
    announced: bool


def role_of(principal: PrincipalId) -> Role:
    """Return the role of a certificate's owner."""
    return Role.node if principal.startswith("node/") else Role.agent


def check_fact(fact: Fact, peer: PrincipalId, role: Role) -> None:
    """Raise `Forbidden` unless `peer` may report `fact` in its own name."""
    if fact.kind not in REPORTS.get(role, _NOTHING):
        raise Forbidden(f"{peer} may not report {fact.kind[:64]}.")
    if fact.actor != peer or fact.on_behalf_of is not None:
        raise Forbidden(f"{peer} may not speak for {fact.on_behalf_of or fact.actor}.")
    if fact.sequence is not None and not _counts(fact.sequence, peer):
        raise Forbidden(f"A fact of {peer} has a sequence that is not its own.")
    if not is_fact_id(fact.id) or fact.offset:
        raise Forbidden(f"A fact of {peer} has an id or offset of the wrong form.")
    if _is_long(fact):
        raise Forbidden(
            f"A fact of {peer} has a subject, outcome, trace or revision that is too long."
        )
    if not math.isfinite(fact.at):
        raise Forbidden(f"A fact of {peer} has a time that is not finite.")
    if not _is_simple(fact):
        _check_data(fact, peer)


def _is_simple(fact: Fact) -> bool:
    """Return whether the data have the fields of their kind and no other, all of them scalars."""
    decode = _SIMPLE.get(fact.kind)
    if decode is None or len(fact.data) > MAX_DATA_BYTES:
        return False
    try:
        decode(fact.data)
    except _UNREADABLE:
        return False
    return True


def _check_data(fact: Fact, peer: PrincipalId) -> None:
    if isinstance(payload := fact.payload(), Unknown):
        raise Forbidden(f"A fact of {peer} does not hold the data of {fact.kind} ({payload.why}).")
    try:
        # All of it: a typed payload skips fields that it does not know without looking at them.
        data = _decode_data(fact.data)
    except _UNREADABLE as error:
        raise Forbidden(f"A fact of {peer} holds data that cannot be read.") from error
    if not _are_plain(data.values(), 1):
        raise Forbidden(
            f"A fact of {peer} holds a value that JSON does not have: a number that is not finite, "
            "something other than text, number, list or map, or one nested too deeply."
        )


def _counts(sequence: FactSequence, peer: PrincipalId) -> bool:
    """Return whether a count is the peer's own."""
    return sequence.writer == peer and is_sequence(sequence)


def _is_long(fact: Fact) -> bool:
    return (
        len(fact.subject) > _MAX_TEXT
        or len(fact.outcome) > _MAX_TEXT
        or len(fact.trace) > _MAX_TEXT
        or len(fact.revision or "") > _MAX_TEXT
    )


def _are_plain(values: Iterable[Any], depth: int) -> bool:
    """Return whether values are plain JSON, nested no deeper than `_MAX_DEPTH`."""
    for value in values:
        kind = type(value)
        if kind in _SCALARS:
            continue
        if kind is float:
            if not math.isfinite(value):
                return False
        elif kind is dict:
            if depth >= _MAX_DEPTH or not all(isinstance(key, str) for key in value):
                return False
            if not _are_plain(value.values(), depth + 1):
                return False
        elif kind is not list or depth >= _MAX_DEPTH or not _are_plain(value, depth + 1):
            return False
    return True


def released_id(quarantined: FactId) -> FactId:
    """Return the id of the fact that ends a quarantine: the same at every attempt."""
    return FactId("fact-" + hashlib.sha256(f"released {quarantined}".encode()).hexdigest()[:32])
