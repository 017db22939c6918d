"""Ids sort by time and are told apart from other text."""

from hypothesis import given
from hypothesis import strategies as st

from angelos.core import ids


@given(st.integers(0, 2**48 - 2), st.integers(1, 1000))
def test_later_ids_sort_behind_earlier_ones(ms: int, later: int) -> None:
    later_ms = min(ms + later, 2**48 - 1)
    assert ids.new_task_id(ms) < ids.new_task_id(later_ms)


@given(st.integers(0, 2**48 - 1))
def test_uuid7_has_version_and_variant(ms: int) -> None:
    value = int(ids.uuid7(ms), 16)
    assert value >> 76 & 0xF == 7
    assert value >> 62 & 0x3 == 2
    assert value >> 80 == ms


def test_ids_made_here_are_recognised_and_others_are_not() -> None:
    made = (ids.new_task_id(), ids.new_proposal_id(), ids.new_command_id(), ids.new_fact_id())
    assert all(ids.is_id(one) for one in (*made, ids.new_grant_id()))
    assert not any(ids.is_id(one) for one in ("", "task-", "task-xyz", made[0] + "\n"))


def test_principals() -> None:
    assert ids.is_principal("agent/ada")
    for bad in ("", "ada", "robot/ada", "agent/", "agent/../x", "agent/a b", "agent/" + "a" * 65):
        assert not ids.is_principal(bad)


def test_offsets_sort_by_number() -> None:
    assert ids.offset_key(ids.Offset("9-10")) > ids.offset_key(ids.Offset("9-9"))
    assert ids.is_offset(ids.START)
    assert not ids.is_offset("1-")
    assert not ids.is_offset("-1")
