"""Facts: typed where they are read, bytes everywhere else, and never a reason to stop."""

import ast
import enum
import inspect
import types
import typing
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import angelos
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.facts import (
    EMPTY,
    MAX_DATA_BYTES,
    PAYLOADS,
    Fact,
    FactView,
    Kind,
    TaskCancelled,
    TaskOutput,
    TaskRefused,
    TaskStarted,
    Unknown,
    Unreadable,
    from_json,
    to_json,
)
from angelos.core.ids import FactId, PrincipalId
from angelos.core.messages import decode, encode
from angelos.core.sequences import FactSequence
from angelos.testing import MemoryJournal

ADA = PrincipalId("agent/ada")
KINDS = st.one_of(st.sampled_from([*Kind]), st.text(max_size=20))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
NAMES = st.sampled_from(
    sorted({f.name for p in PAYLOADS.values() for f in msgspec.structs.fields(p)})
)
DATA = st.one_of(
    st.binary(max_size=200), VALUES.map(encode), st.dictionaries(NAMES, VALUES).map(encode)
)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy:
    """Values of a struct, by the types of its fields."""
    hints = get_type_hints(cls)
    fields = {f.name: values(hints[f.name]) for f in msgspec.structs.fields(cls)}
    return st.builds(cls, **fields)


def values(hint: Any) -> st.SearchStrategy:
    """Values of a field's type."""
    hint = getattr(hint, "__supertype__", hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in {types.UnionType, typing.Union}:
        return st.one_of([values(arg) for arg in args])
    if origin is not None:
        return {
            Literal: lambda: st.sampled_from(args),
            tuple: lambda: st.lists(values(args[0]), max_size=2).map(tuple),
            dict: lambda: st.dictionaries(st.text(max_size=5), values(args[1]), max_size=3),
        }[origin]()
    if inspect.isclass(hint) and issubclass(hint, msgspec.Struct):
        return structs(hint)
    if inspect.isclass(hint) and issubclass(hint, enum.Enum):
        return st.sampled_from(hint)
    simple = {
        Any: PLAIN,
        str: st.text(max_size=20), bytes: st.binary(max_size=20), bool: st.booleans(),
        int: st.integers(-(2**63), 2**63), float: st.floats(allow_nan=False),
        type(None): st.none(),
    }  # fmt: skip
    return simple[hint]


def fact(kind: str, data: bytes) -> Fact:
    return Fact(id=FactId("fact-1"), at=1.0, actor=ADA, kind=kind, subject="x", data=data)


def test_every_kind_has_its_own_payload() -> None:
    assert set(PAYLOADS) == set(Kind)
    assert len(set(PAYLOADS.values())) == len(Kind)


@given(KINDS, DATA)
def test_no_data_stop_a_reader(kind: str, data: bytes) -> None:
    it = fact(kind, data)
    payload = it.payload()
    if isinstance(payload, Unknown):
        assert (payload.kind, payload.data) == (kind, data)
        assert payload.why is (Unreadable.data if kind in PAYLOADS else Unreadable.kind)
    else:
        assert payload.kind == kind
    shown = from_json(to_json(it))
    assert (shown.kind, shown.id, shown.subject) == (it.kind, it.id, it.subject)
    assert decode(encode(it), Fact) == it


def test_deep_nesting_does_not_stop_a_reader() -> None:
    deep = fact(Kind.task_finished, b"\x81\xa8evidence" + b"\x81\xa1x" * 100_000 + b"\xc0")
    assert isinstance(deep.payload(), Unknown)
    assert FactView.of(deep).data == {}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
@given(st.data())
@pytest.mark.parametrize("kind", [*Kind])
def test_every_payload_round_trips(kind: Kind, data: st.DataObject) -> None:
    payload = data.draw(structs(PAYLOADS[kind]))
    it = Fact.of(payload, at=1.0, actor=ADA, subject="x")
    assert it.kind == kind
    assert it.payload() == it.read(type(payload)) == payload
    assert Fact.of(payload, at=1.0, actor=ADA, subject="x").data == it.data
    assert from_json(to_json(it)).kind == kind


def test_a_payload_of_values_it_does_not_allow_is_not_written() -> None:
    with pytest.raises(InvalidInput, match=r"task\.output"):
        Fact.of(TaskOutput(stream="both", text="x"), at=1.0, actor=ADA, subject="x")  # pyright: ignore[reportArgumentType]
    reason = "x" * MAX_DATA_BYTES
    with pytest.raises(TooLarge):
        Fact.of(TaskRefused(reason=reason), at=1.0, actor=ADA, subject="x")


def test_a_writers_count_stands_in_the_header() -> None:
    sequence = FactSequence(writer=ADA, life=2, number=7)
    fact = Fact.of(TaskCancelled(), at=1.0, actor=ADA, subject="task-1", sequence=sequence)
    assert decode(encode(fact), Fact).sequence == sequence
    assert FactView.of(fact).sequence == from_json(to_json(fact)).sequence == sequence
    assert Fact.of(TaskCancelled(), at=1.0, actor=ADA, subject="task-1").sequence is None


def test_data_that_are_too_large_are_not_decoded() -> None:
    huge = encode({"reason": "x" * MAX_DATA_BYTES})
    payload = fact(Kind.task_refused, huge).payload()
    assert isinstance(payload, Unknown)
    assert payload.why is Unreadable.size


def test_reading_as_another_kind_is_refused() -> None:
    started = Fact.of(TaskStarted(), at=1.0, actor=ADA, subject="task-1")
    with pytest.raises(InvalidInput, match=r"task\.cancelled"):
        started.read(TaskCancelled)
    with pytest.raises(InvalidInput, match="data"):
        fact(Kind.task_output, EMPTY).read(TaskOutput)


async def test_the_journal_keeps_the_bytes_as_they_came() -> None:
    odd = b"\xde\x00\x01\xa6reason\xd9\x02hi"  # a map16 and a str8, where our encoder writes less
    journal = MemoryJournal()
    await journal.append([fact(Kind.task_cancelled, odd), fact("of.a.later.version", b"\xc1")][:1])
    (kept,) = await journal.read("0-0")  # pyright: ignore[reportArgumentType]
    assert kept.data == odd
    assert kept.read(TaskCancelled).reason == "hi"


def test_only_the_constructor_writes_facts() -> None:
    """`Fact(...)` takes any bytes: code of the system makes facts of payloads instead."""
    root = Path(angelos.__file__).parent
    allowed = {
        root / "core" / "facts.py",
        root / "core" / "audit.py",  # reads one back from its leaf
        root / "testing" / "fixtures.py",
    }
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "Fact" or path in allowed, f"{path}:{node.lineno}"
