"""The sentinel's score as one weak factor of a proposal's risk."""

from __future__ import annotations

import pytest

from angelos.control.proposals.risk import (
    added_texts,
    change_factors,
    sentinel_factor,
    total,
    unscored_factor,
)
from angelos.core.errors import Unavailable
from angelos.core.findings import PatchScore, RiskKind
from angelos.core.repository import Change
from tests.unit.control.fakes import PERSON, edit

SCORE = PatchScore(
    model="sentinel:3",
    text=0,
    loss=4.25,
    unlike=1.0,
    pieces=40,
    entropy=5.5,
    zlib_ratio=0.75,
    longest_line=88,
    read=400,
)
LIKE = {"unlike": 0.5}


class FakeScorer:
    """Gives one answer, or raises it."""

    def __init__(self, answer: PatchScore | Exception | None) -> None:
        self.answer = answer
        self.texts: list[tuple[str, ...]] = []

    async def score(self, texts):
        self.texts.append(tuple(texts))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def _replaced(**fields):
    return PatchScore(**({f: getattr(SCORE, f) for f in SCORE.__struct_fields__} | fields))


def test_its_figure_stands_beside_those_that_need_no_model():
    factor = sentinel_factor(["a.py"], SCORE)
    assert (factor.kind, factor.points, factor.figure) == (RiskKind.sentinel, 100, 4.25)
    for part in (
        "a.py",
        "100%",
        "40",
        "4.25",
        "entropy 5.50",
        "zlib 0.75",
        "line 88",
        "sentinel:3",
    ):
        assert part in factor.reason
    cut = sentinel_factor(["a.py"], _replaced(skipped=7))
    assert "7 characters were not read" in cut.reason


@pytest.mark.parametrize("fields", [LIKE, {"pieces": 19}, {"pieces": 0, "unlike": 0.0}])
def test_what_is_like_history_or_cannot_be_compared_costs_nothing_and_is_shown(fields):
    assert sentinel_factor(["a.py"], _replaced(**fields)).points == 0


def test_it_never_lowers_a_risk_and_alone_asks_nobody():
    changes = (Change(path="a.py", before="1", after="2", diff="@@ -1 +1 @@\n+x = 1"),)
    plain = change_factors(changes)
    for factor in (sentinel_factor(["a.py"], SCORE), unscored_factor("it is loaded")):
        assert factor.points >= 0
        assert total([*plain, factor]) >= total(plain)
        assert factor.points < 400  # from which the policy asks (promote.low-risk)


def test_added_lines_alone_are_read_and_no_notebooks():
    diff = "--- a\n+++ b\n@@ -1,2 +1,2 @@\n same\n-old\n+new\n+++plus"
    changes = (
        Change(path="a.py", before="1", after="2", diff=diff),
        Change(path="b.ipynb", before="1", after="2", diff=diff),
        Change(path="c.py", before="1", after=None, diff="@@ -1 +0,0 @@\n-x"),
    )
    assert added_texts(changes) == {"a.py": "new\n++plus"}


async def _tested(world):
    async with world.running() as control:
        receipt = await control.proposals.propose(PERSON, "study", edit(text="changed\n"))
        record = await world.reaches(receipt.id, "testing", "waiting", "promoted", "rejected")
        return [f for f in record.factors if f.kind is RiskKind.sentinel]


async def test_a_proposal_shows_the_score(world):
    world.scorer = FakeScorer(SCORE)
    (factor,) = await _tested(world)
    assert factor.points == 100
    assert world.scorer.texts[0] == ("changed",)


async def test_an_error_is_no_score_which_is_said(world):
    world.scorer = FakeScorer(Unavailable("sentinel:3 took more than 10 s."))
    (factor,) = await _tested(world)
    assert factor.points == 0
    assert "no sentinel score: sentinel:3 took more than 10 s." in factor.reason


@pytest.mark.parametrize("scorer", [None, FakeScorer(None)])
async def test_without_a_model_nothing_is_said(world, scorer):
    world.scorer = scorer
    assert await _tested(world) == []
