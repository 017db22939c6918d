"""Who stands still so that others run."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angelos.node.sandbox.shares import ProcessorShares, Reading

WINDOW = 0.2


def simulate(cores: float, boxes: dict[str, int], windows: int) -> dict[str, float]:
    """Return what boxes get that all want to run; the kernel divides by sessions."""
    shares = ProcessorShares[str](int(cores))
    got = dict.fromkeys(boxes, 0.0)
    held: frozenset[str] = frozenset()
    for _ in range(windows):
        runs = {name: sessions for name, sessions in boxes.items() if name not in held}
        left, total = cores * WINDOW, sum(runs.values())
        readings = dict.fromkeys(boxes, Reading(0.0, 0.0))
        for name, sessions in sorted(runs.items(), key=lambda item: item[1]):
            cpu = min(left * sessions / total, sessions * WINDOW)
            left, total = left - cpu, total - sessions
            got[name] += cpu
            readings[name] = Reading(cpu, sessions * WINDOW - cpu)
        held = shares.to_hold(readings, WINDOW)
    return {name: cpu / windows / WINDOW for name, cpu in got.items()}


def test_one_session_beside_fifty_has_two_fifths_of_its_part() -> None:
    got = simulate(2, {"crowd": 51, "single": 1}, 100)
    assert got["single"] >= 0.4
    assert got["crowd"] >= 0.9


@given(
    st.dictionaries(st.text(max_size=2), st.integers(1, 60), min_size=2, max_size=6),
    st.integers(1, 4),
)
def test_nobody_is_left_without(boxes: dict[str, int], cores: int) -> None:
    got = simulate(cores, boxes, 200)
    fair = cores / len(boxes)
    for name, sessions in boxes.items():
        assert got[name] >= 0.2 * min(fair, sessions), got


@given(st.lists(st.tuples(st.floats(0, 0.4), st.floats(0, 9)), min_size=1, max_size=40))
def test_nobody_stands_still_for_long(rows: list[tuple[float, float]]) -> None:
    shares = ProcessorShares[str](2)
    row = 0
    for cpu, wait in rows:
        held = shares.to_hold({"a": Reading(cpu, wait), "b": Reading(0.01, wait)}, WINDOW)
        row = row + 1 if "a" in held else 0
        assert row <= 4


def test_whoever_runs_alone_is_never_held() -> None:
    shares = ProcessorShares[str](2)
    assert not any(shares.to_hold({"a": Reading(0.4, 9.0)}, WINDOW) for _ in range(20))


def test_what_ended_meanwhile_counts_no_more() -> None:
    assert Reading(1.0, 2.0).since(Reading(3.0, 1.5)) == Reading(0.0, 0.5)
