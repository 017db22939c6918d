"""Leaves of the audit log: one form, and data that can be erased but not exchanged."""

from __future__ import annotations

import json
import math
import os

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.audit import (
    MAX_LEAF_BYTES,
    PUBLIC,
    canonical,
    commitment,
    discloses,
    fact_of,
    leaf_body,
    read_leaf,
)
from angelos.core.errors import Tampered
from angelos.core.facts import EMPTY, PAYLOADS, Fact, Kind, ProposalApproved, TaskAccepted
from angelos.core.ids import CommandId, FactId, Offset, PrincipalId
from angelos.core.messages import encode
from angelos.core.sequences import FactSequence
from angelos.testing import make_fact

SALT = bytes(range(32))

numbers = (
    st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
)
values = st.recursive(
    st.none() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def facts():
    return st.builds(
        Fact,
        id=st.text(max_size=40).map(FactId),
        at=st.floats(0, 2**40),
        actor=st.text(max_size=40).map(PrincipalId),
        kind=st.sampled_from(list(Kind)) | st.text(max_size=20),
        subject=st.text(max_size=80),
        on_behalf_of=st.none() | st.just(PrincipalId("agent/eve")),
        outcome=st.text(max_size=20),
        trace=st.text(max_size=20),
        sequence=st.none()
        | st.builds(
            FactSequence,
            writer=st.just(PrincipalId("node/a")),
            life=st.integers(1, 2**53 - 1),
            number=st.integers(1, 2**53 - 1),
        ),
        data=st.just(EMPTY) | st.binary(max_size=60),
        offset=st.just(Offset("1-0")),
    )


def accepted(**fields):
    return Fact.of(
        TaskAccepted(
            command=CommandId("cmd-1"), request="r", node=PrincipalId("node/a"), label="main.py",
            wall_s=10.0, deadline=20.5, proposal="", rule="allow", policy="ab" * 32,
            body=b"print('secret')",
        ),
        at=1.5, actor=PrincipalId("person/ada"), subject="task-1", id=FactId("fact-1"),
        offset=Offset("7-0"), **fields,
    )  # fmt: skip


@given(values)
def test_the_form_is_that_of_rfc_8785(value):
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, 2**53, {"a": [-(2**60)]}])
def test_a_number_without_a_form_is_refused(value):
    with pytest.raises(ValueError, match=r".*"):
        canonical(value)


@given(facts(), st.binary(min_size=32, max_size=32))
def test_a_fact_comes_back_from_its_leaf(fact, salt):
    body = leaf_body(fact, salt)
    assert fact_of(body, fact.data) == fact
    leaf = read_leaf(body)
    assert discloses(leaf, salt, fact.data)
    assert fact_of(body, None) == msgspec.structs.replace(fact, data=EMPTY)


@given(facts(), st.binary(max_size=60))
def test_other_data_or_another_salt_do_not_fit(fact, other):
    leaf = read_leaf(leaf_body(fact, SALT))
    if other != fact.data:
        assert not discloses(leaf, SALT, other)
    if fact.data != EMPTY:
        assert not discloses(leaf, bytes(32), fact.data)
        assert not discloses(leaf, SALT[1:], fact.data[:0] + SALT[:1] + fact.data)


def test_code_is_committed_to_and_the_decision_is_shown():
    body = leaf_body(accepted(outcome="accepted"), SALT)
    assert b"secret" not in body
    shown = json.loads(body)
    assert shown["public"]["rule"] == "allow"
    assert shown["public"]["policy"] == "ab" * 32
    assert shown["outcome"] == "accepted"
    assert shown["commitment"] == commitment(SALT, accepted().data)


def test_public_fields_that_are_not_those_of_the_data_are_noticed():
    fact = accepted()
    forged = json.loads(leaf_body(fact, SALT))
    forged["public"]["rule"] = "another"
    assert not discloses(read_leaf(canonical(forged)), SALT, fact.data)


def test_what_is_written_in_another_way_is_refused():
    body = leaf_body(accepted(), SALT)
    for other in (
        body.replace(b'"at":1.5', b'"at":1.50'),
        body.replace(b",", b", ", 1),
        body.replace(b'"v":2', b'"v":3'),
        json.dumps(dict(reversed(json.loads(body).items())), separators=(",", ":")).encode(),
        body + b"\n",
        b"{}",
        b"[" * 100_000,
    ):
        with pytest.raises(Tampered):
            read_leaf(other)


def test_leaves_stay_small_whatever_the_data():
    huge = ProposalApproved(
        digest="d" * 10**6, actor_kind="person", comment="c" * 10**6, rule="r" * 10**6,
        policy_paths=tuple(f"p{i}" for i in range(10_000)),
    )  # fmt: skip
    fact = Fact.of(
        huge, at=1.0, actor=PrincipalId("person/" + "a" * 100), subject="s" * 200,
        offset=Offset("1-0"),
    )  # fmt: skip
    assert len(leaf_body(fact, SALT)) < 2_000 < MAX_LEAF_BYTES


def test_no_field_that_may_hold_text_or_code_is_public():
    free = {"body", "reason", "message", "comment", "stdout", "stderr", "text", "evidence",
            "detail", "changes", "conflicts", "steps", "paths", "policy_paths", "copy"}  # fmt: skip
    assert not PUBLIC & free
    names = {field for payload in PAYLOADS.values() for field in payload.__struct_fields__}
    assert free <= names


def test_the_same_data_twice_have_two_commitments():
    fact = make_fact(Kind.task_finished, "task-1", data={"n": 1})
    one, other = (leaf_body(fact, os.urandom(32)) for _ in range(2))
    assert one != other
    assert encode(fact_of(one, fact.data)) == encode(fact_of(other, fact.data))
