"""Provenance: what an export says of a merge is made again from it, and any change shows."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.proposals.provenance import opened
from angelos.control.proposals.replay import ProvenanceReplay
from angelos.core.api import Review
from angelos.core.errors import Tampered
from angelos.core.facts import Fact, Kind, ProposalPromoted, ProposalTested, TaskResult
from angelos.core.signing import SigningKey
from tests.unit.control.fakes import ADA, REVIEWER, edit


@pytest.fixture
async def merges(world):
    """Two merges, one approved by policy and one by a person: the facts, and the proposals."""
    async with world.running() as control:
        await world.node()
        one = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(one.id, "promoted")
        two = await control.proposals.propose(ADA, "study", edit("protected/x.py"))
        two = await control.proposals.view(two.id, wait_s=10)
        await control.proposals.approve(REVIEWER, two.id, Review(digest=two.digest))
        await world.reaches(two.id, "promoted")
        views = [await control.proposals.view(view.id) for view in (one, two)]
    return await world.journal.read("0-0", 10_000), views


def replayed(facts, revision, key=None):
    replay = ProvenanceReplay(revision, key)
    for fact in facts:
        replay.take(fact)
    return replay


def changed(facts, payload, **fields):
    """Return facts in which the last one of a kind says something else."""
    last = [fact for fact in facts if fact.kind == payload.kind][-1]
    data = msgspec.structs.replace(last.read(payload), **fields)
    other = Fact.of(data, at=last.at, actor=last.actor, subject=last.subject)
    return [
        msgspec.structs.replace(fact, data=other.data) if fact is last else fact for fact in facts
    ]


async def test_a_statement_says_who_what_where_and_is_made_again_from_facts(world, merges):
    facts, (one, two) = merges
    for view, approvals in ((one, []), (two, [REVIEWER.id])):
        replay = replayed(facts, view.revision, world.key.public)
        assert replay.problems == []
        (made,) = replay.statements
        assert made["subject"][0]["digest"]["angelosRevision"] == view.revision
        asked = made["predicate"]["buildDefinition"]["externalParameters"]
        assert (asked["author"], asked["proposal"]) == (ADA.id, view.id)
        judged = made["predicate"]["buildDefinition"]["internalParameters"]
        assert (judged["approvals"], len(judged["policy"])) == (approvals, 64)
        steps = made["predicate"]["runDetails"]["byproducts"]
        assert {(s["name"], s["annotations"]["node"]) for s in steps} == {
            ("unit", "node/exec1"), ("static", "node/exec1"),
        }  # fmt: skip
        assert all(len(step["digest"]["sha256"]) == 64 for step in steps)
    assert replayed(facts, one.commit[:12]).statements, "a proposal's own commit names it too"
    assert not replayed(facts, "f" * 64).statements


async def test_any_change_of_what_it_rests_on_shows(world, merges):
    facts, (_, two) = merges
    steps = tuple(
        msgspec.structs.replace(step, passed=99)
        for step in [f for f in facts if f.kind == Kind.proposal_tested][-1]
        .read(ProposalTested)
        .steps
    )
    others = {
        "steps": changed(facts, ProposalTested, steps=steps),
        "results": changed(facts, TaskResult, stdout="another"),
        "no statement": changed(facts, ProposalPromoted, provenance=""),
        "no tests": [f for f in facts if f.kind != Kind.proposal_tested],
        "no approval": [
            f for f in facts if f.kind != Kind.proposal_approved or f.actor != REVIEWER.id
        ],
    }
    for name, rows in others.items():
        assert replayed(rows, two.revision).problems, name
    key = SigningKey.generate().public
    assert replayed(facts, two.revision, key).problems


def test_garbage_is_no_provenance():
    for text in ("", "{}", '{"payloadType":"x","payload":"e30=","signatures":[]}', "[" * 9_999):
        with pytest.raises(Tampered):
            opened(text)
