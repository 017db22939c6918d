"""Proposals: created once, waited for, reviewed by exactly what was read."""

from __future__ import annotations

import msgspec
import pytest

from angelos.client import proposals
from angelos.core import errors
from angelos.core.api import SETTLED
from angelos.core.ids import HunkId, new_proposal_id
from angelos.core.pending import PartChoice
from angelos.core.repository import DeleteFile, NewText
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]

CREATE = "POST /repos/study/proposals"
VIEW = "GET /proposals/prop-1"


async def test_a_proposal_has_an_id_and_its_edits(world, angelos):
    world.answers[CREATE] = (202, world.proposal())
    edits = [NewText(path="a", text="b"), DeleteFile(path="c")]
    proposal = await angelos.proposals.create("study", edits, base="main", message="why")
    assert proposal.id == "prop-1"
    body = world.body()
    assert str(body.pop("proposal")).startswith("prop-")
    assert body == {
        "base": "main",
        "live": False,
        "message": "why",
        "edits": [{"kind": "text", "path": "a", "text": "b"}, {"kind": "delete", "path": "c"}],
    }


async def test_a_repository_proposes_to_itself(world, angelos):
    world.answers[CREATE] = (202, world.proposal())
    edit = NewText(path="a", text="b")
    proposal = await angelos.repos["study"].propose([edit], base="dev", message="why")
    assert proposal.id == "prop-1"
    assert world.body()["base"] == "dev"


async def test_an_id_of_ones_own_is_sent(world, angelos):
    world.answers[CREATE] = (202, world.proposal())
    own = new_proposal_id()
    edit = NewText(path="a", text="b")
    await angelos.proposals.create("study", [edit], base="main", message="why", proposal=own)
    assert world.body()["proposal"] == own


async def test_a_refusal_is_raised(world, angelos):
    refusal = errors.Stale("It changed.", conflicts=[{"path": "a"}])
    world.answers[CREATE] = (409, msgspec.json.encode(refusal.problem()))
    with pytest.raises(errors.Stale) as caught:
        await angelos.repos["study"].propose([NewText(path="a", text="b")], base="main", message="")
    assert caught.value.extra == {"conflicts": [{"path": "a"}]}


@pytest.mark.parametrize("state", sorted(SETTLED))
async def test_settled_waits_while_something_happens_by_itself(world, angelos, state):
    world.answers[VIEW] = [
        (200, world.proposal(state="pending")),
        (200, world.proposal(state="testing")),
        (200, world.proposal(state=state)),
    ]
    view = await angelos.proposals["prop-1"].settled()
    assert view.state == state
    assert world.sent() == [f"{VIEW}?wait=60.0"] * 3


async def test_settled_survives_a_restart_of_the_server(world, angelos, monkeypatch):
    monkeypatch.setattr(proposals, "_PAUSE_S", 0)
    world.answers[VIEW] = [(503, b""), (503, b""), (200, world.proposal(state="promoted"))]
    assert (await angelos.proposals["prop-1"].settled()).state == "promoted"


async def test_settled_gives_up_when_the_server_stays_away(world, angelos, monkeypatch):
    monkeypatch.setattr(proposals, "_PAUSE_S", 0)
    monkeypatch.setattr(proposals, "PATIENCE_S", 0)
    world.answers[VIEW] = (503, b"")
    with pytest.raises(errors.Unavailable):
        await angelos.proposals["prop-1"].settled()


async def test_a_view_is_of_now(world, angelos):
    world.answers[VIEW] = (200, world.proposal())
    assert (await angelos.proposals["prop-1"].view()).state == "testing"
    assert world.sent() == [VIEW]


@pytest.mark.parametrize("verdict", ["approve", "reject"])
async def test_a_review_is_bound_to_a_digest(world, angelos, verdict):
    world.answers[f"POST /proposals/prop-1/{verdict}"] = (200, world.proposal(state="approved"))
    proposal = angelos.proposals["prop-1"]
    review = proposal.approve if verdict == "approve" else proposal.reject
    assert (await review("d" * 64, "good")).state == "approved"
    assert world.body() == {"digest": "d" * 64, "comment": "good", "shown": ""}


async def test_proposals_are_listed_by_state_and_repository(world, angelos):
    world.answers["GET /proposals"] = (200, b'{"proposals": [' + world.proposal() + b"]}")
    (view,) = await angelos.proposals.list(state="testing", repo="study")
    assert view.id == "prop-1"
    assert world.sent() == ["GET /proposals?state=testing&repo=study&limit=50"]


async def test_a_part_is_named_by_its_hunks(world, angelos):
    proposal = angelos.proposals["prop-1"]
    part = PartChoice(cells=(("a.ipynb", "one"),), hunks=(HunkId("f" * 16),))
    for verdict in ("accept", "reject"):
        world.answers[f"POST /proposals/prop-1/{verdict}"] = (200, world.proposal())
        await getattr(proposal, verdict)("d" * 64, part=part)
        assert world.body() == {
            "digest": "d" * 64,
            "comment": "",
            "shown": "",
            "part": {"paths": [], "cells": [["a.ipynb", "one"]], "hunks": ["f" * 16]},
        }
