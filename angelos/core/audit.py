r"""A fact as a leaf of the audit log: canonical JSON, and a commitment to what may be erased.

The leaf holds the fact's header, and of its data only what says how something was decided and how
it ended: ids, digests, rules, codes and numbers (`PUBLIC`). The data themselves (code, standard
input, grants, texts) stand beside the leaf with a random salt, and the leaf commits to them:

    commitment = SHA-256(salt || data)

So data can be erased, with their salt, and every proof stays as it was; while they are there
nobody can exchange them; and once they are gone nobody can guess them from the commitment.

The leaf's bytes are JSON in the one form of RFC 8785 (JCS): a verifier in any language computes
the same bytes.

    >>> from angelos.core.facts import TaskCancelled
    >>> fact = Fact.of(TaskCancelled(reason="a secret"), at=1.5, actor=PrincipalId("person/ada"),
    ...     subject="task-1", id=FactId("fact-1"))
    >>> body = leaf_body(fact, bytes(32))
    >>> body[:60]
    b'{"actor":"person/ada","at":1.5,"commitment":"3946999f8745f1b'
    >>> b"secret" in body
    False
    >>> fact_of(body, fact.data) == fact
    True
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import msgspec
import rfc8785

from angelos.core.errors import Tampered
from angelos.core.facts import EMPTY, Fact
from angelos.core.ids import FactId, Offset, PrincipalId, Revision
from angelos.core.sequences import MAX_NUMBER, FactSequence

VERSION = 2
SALT_BYTES = 32
MAX_LEAF_BYTES = 65_535
"""C2SP tlog-tiles writes the length of an entry as 16 bits."""

PUBLIC = frozenset({
    "actor_kind", "attempt", "author", "base", "before", "branch", "canary", "cause", "code",
    "command", "deadline", "digest", "duration_s", "exit_code", "generation", "hash", "label",
    "life", "main", "maker", "needs", "node", "origin", "policy", "proposal", "repo", "request",
    "risk", "role", "rule", "rules", "serial", "session", "size", "solo", "status", "stayed_on",
    "tier", "to", "tree", "version", "wall_s", "was_in_dev",
})  # fmt: skip
"""Fields of payloads that a leaf shows: every other one can be erased."""

EMPTY_LEAF = b"null"
"""Stands for a body that cannot be read; no entry has it."""

_MAX_TEXT = 200
_MAX_ITEMS = 32
_MIN_FRACTION = 1e-5  # below it msgspec writes an exponent, ECMAScript only below 1e-6
_SCALAR = str | int | float | bool | None
_encoder = msgspec.json.Encoder(order="sorted")


class LeafBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is hashed; empty fields are left out of the JSON."""

    v: int
    at: float
    id: FactId = FactId("")
    actor: PrincipalId = PrincipalId("")
    kind: str = ""
    subject: str = ""
    offset: Offset = Offset("")
    on_behalf_of: PrincipalId | None = None
    revision: Revision | None = None
    outcome: str = ""
    trace: str = ""
    sequence: FactSequence | None = None
    public: dict[str, Any] = {}
    commitment: str = ""
    """Hex; empty where the fact has no data."""


_decoder = msgspec.json.Decoder(LeafBody)


def canonical(value: Any) -> bytes:
    """Return JSON in the form of RFC 8785.

    Args:
        value: Built-in types; numbers are finite, integers within 2^53.

    Raises:
        ValueError: The value has no such form.
    """
    plain, simple = _plain(value)
    # Without exponents both write the same, and this one takes a fiftieth of the time.
    return _encoder.encode(plain) if simple else rfc8785.dumps(value)


def commitment(salt: bytes, data: bytes) -> str:
    """Return the commitment to a fact's data, hex."""
    return hashlib.sha256(salt + data).hexdigest()


def leaf_body(fact: Fact, salt: bytes) -> bytes:
    """Return the bytes that the log hashes for a fact that has its offset.

    Args:
        fact: Of any kind, readable or not.
        salt: 32 random bytes, for this fact alone.
    """
    header: dict[str, Any] = {
        "v": VERSION,
        "id": fact.id,
        "at": fact.at,
        "actor": fact.actor,
        "kind": fact.kind,
        "subject": fact.subject,
        "offset": fact.offset,
        "on_behalf_of": fact.on_behalf_of,
        "revision": fact.revision,
        "outcome": fact.outcome,
        "trace": fact.trace,
        "sequence": msgspec.to_builtins(fact.sequence),
        "public": public_fields(fact.data),
        "commitment": "" if fact.data == EMPTY else commitment(salt, fact.data),
    }
    return canonical({name: field for name, field in header.items() if field not in _EMPTY})


_EMPTY: tuple[Any, ...] = (None, "", {})


def public_fields(data: bytes) -> dict[str, Any]:
    """Return what a leaf shows of a fact's data; nothing of data that are not a map."""
    try:
        fields = msgspec.msgpack.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    shown = {name: _shown(value) for name, value in fields.items() if name in PUBLIC}
    return {name: value for name, value in shown.items() if value not in _EMPTY}


def read_leaf(body: bytes) -> LeafBody:
    """Return the content of a leaf.

    Raises:
        Tampered: The bytes are not a leaf, or are not in its one form.
    """
    try:
        leaf = _decoder.decode(body)
        same = canonical(msgspec.json.decode(body)) == body
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Tampered("An entry of the audit log cannot be read.") from error
    if not same or leaf.v != VERSION:
        raise Tampered("An entry of the audit log is not in its canonical form.")
    return leaf


def read_header(body: bytes) -> LeafBody:
    """Return the content of a leaf that the log holds; raise `Tampered` if it is none."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise Tampered("An entry of the audit log cannot be read.") from error


def fact_of(body: bytes, data: bytes | None) -> Fact:
    """Return the fact that a leaf was made from.

    Args:
        body: The leaf's bytes.
        data: The fact's data; None where they were erased, and then the fact has none.

    Raises:
        Tampered: The bytes are not a leaf.
    """
    leaf = read_header(body)
    return Fact(
        id=leaf.id,
        at=leaf.at,
        actor=leaf.actor,
        kind=leaf.kind,
        subject=leaf.subject,
        offset=leaf.offset,
        on_behalf_of=leaf.on_behalf_of,
        revision=leaf.revision,
        outcome=leaf.outcome,
        trace=leaf.trace,
        sequence=leaf.sequence,
        data=EMPTY if data is None else data,
    )


def shown_data(body: bytes) -> bytes:
    """Return what a leaf still says of data that were erased, in the form of a fact's data.

    So a fold reads how a task ended after its output has expired.

    Raises:
        Tampered: The bytes are not a leaf.
    """
    return msgspec.msgpack.encode(read_header(body).public)


def discloses(leaf: LeafBody, salt: bytes, data: bytes) -> bool:
    """Return whether `data` are what the leaf commits to, and its public fields are theirs."""
    if leaf.commitment:
        if len(salt) != SALT_BYTES or commitment(salt, data) != leaf.commitment:
            return False
    elif data != EMPTY:
        return False
    fields = public_fields(data)  # of which an earlier version may have shown fewer
    return all(
        name in fields and canonical(fields[name]) == canonical(value)
        for name, value in leaf.public.items()
    )


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return str(value) if len(value) <= _MAX_TEXT else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int):
        return value if abs(value) <= MAX_NUMBER else None
    if isinstance(value, list):
        items = [item for item in value if isinstance(item, str) and len(item) <= _MAX_TEXT]
        return items if len(items) == len(value) <= _MAX_ITEMS else None
    return None


def _plain(value: Any) -> tuple[Any, bool]:
    """Return a value with whole floats as integers, and whether no number needs an exponent."""
    if isinstance(value, dict):
        simple = all(map(str.isascii, value))
        result: dict[str, Any] = {}
        for key, item in value.items():
            if type(item) is str:  # most are
                result[key] = item
            else:
                result[key], ok = _plain(item)
                simple = simple and ok
        return result, simple
    if isinstance(value, list):
        items = [_plain(item) for item in value]
        return [item for item, _ in items], all(ok for _, ok in items)
    if isinstance(value, float):
        if value.is_integer() and abs(value) <= MAX_NUMBER:
            return int(value), True
        return value, _MIN_FRACTION <= abs(value) <= MAX_NUMBER
    if isinstance(value, int) and not isinstance(value, bool):
        return value, abs(value) <= MAX_NUMBER
    return value, True
