"""Messages: strict from outside, tolerant between our own parts, deterministic on the wire."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core import messages
from angelos.core.errors import InvalidInput
from angelos.core.facts import Fact
from angelos.core.ids import FactId, PrincipalId, TaskId


def test_payloads_round_trip_by_their_kind() -> None:
    payloads: list[messages.Payload] = [
        messages.RunTask(task=TaskId("task-1"), code="print(1)"),
        messages.CancelTask(task=TaskId("task-1")),
        messages.Checkout(repo="study", branch="main", revision="0" * 64),
        messages.RevokeGrants(principal=PrincipalId("agent/eve")),
    ]
    for payload in payloads:
        assert messages.decode_payload(messages.encode(payload)) == payload


def test_an_unknown_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="launch_missiles"):
        messages.decode_payload(msgspec.msgpack.encode({"kind": "launch_missiles"}))


@given(st.binary(max_size=200))
def test_junk_is_invalid_input_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(InvalidInput):
        messages.decode_payload(junk)
    with pytest.raises(InvalidInput):
        messages.decode(junk, Fact)


def test_deep_nesting_is_invalid_input() -> None:
    with pytest.raises(InvalidInput):
        messages.decode(b"\x91" * 100_000, Fact)


def test_between_our_own_parts_an_unknown_field_is_ignored() -> None:
    fact = Fact(id=FactId("f"), at=1.0, actor=PrincipalId("system/x"), kind="k", subject="s")
    body = msgspec.msgpack.decode(messages.encode(fact)) | {"of_a_later_version": 1}
    assert messages.decode(msgspec.msgpack.encode(body), Fact) == fact


def test_from_outside_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="wall"):
        msgspec.json.decode(b'{"wall": 1}', type=messages.Limits)


@pytest.mark.parametrize(
    "limits",
    [b'{"wall_s": 0}', b'{"wall_s": 1e9}', b'{"pids": 0}', b'{"memory_mb": 1e6}',
     b'{"output_bytes": -1}', b'{"memory_mb": ' + b"9" * 400 + b"}",
     b'{"wall_s": "1"}', b'{"cpu_s": null}'],
)  # fmt: skip
def test_limits_have_bounds(limits: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(limits, type=messages.Limits)


def test_equal_facts_have_equal_bytes() -> None:
    def fact(data: dict) -> Fact:
        return Fact(
            id=FactId("f"),
            at=1.0,
            actor=PrincipalId("system/x"),
            kind="k",
            subject="s",
            data=messages.encode(data),
        )

    assert messages.encode(fact({"a": 1, "b": {"c": 2, "d": 3}})) == messages.encode(
        fact({"b": {"d": 3, "c": 2}, "a": 1})
    )
