"""A person takes or rejects a part of a proposal."""

from __future__ import annotations

import msgspec
import pytest

from angelos.control.state.models import SUPERVISOR
from angelos.core.api import PartReview, SubmitProposal
from angelos.core.errors import Conflict, Forbidden, InvalidInput, Stale
from angelos.core.facts import Kind
from angelos.core.findings import GateFinding, GateRule
from angelos.core.ids import HunkId, PrincipalId
from angelos.core.pending import PartChoice
from angelos.core.permissions import Principal, Role
from angelos.core.repository import NewText
from angelos.testing import make_fact
from tests.unit.control.fakes import ADA, PERSON, REVIEWER

PATHS = ("a.py", "b.py", "protected/x.py")


def whole(*paths):
    edits = tuple(NewText(path=path, text="changed\n") for path in paths or PATHS)
    return SubmitProposal(base="main", edits=edits, message="Change all")


def review(view, *paths, comment=""):
    part = PartChoice(hunks=tuple(map(HunkId, paths)))
    return PartReview(digest=view.digest, part=part, comment=comment)


async def test_a_part_is_tested_and_approved_for_itself_and_the_rest_stays_open(world):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(ADA, "study", whole())
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 1)
        part = await control.proposals.accept(REVIEWER, view.id, review(view, "protected/x.py"))
        assert (part.author, part.part_of, part.in_dev) == (ADA.id, view.id, True)
        assert part.digest != view.digest
        assert [change.path for change in part.changes] == ["protected/x.py"]
        record = await world.reaches(part.id, "promoted")
        assert record.approvals == (REVIEWER.id,)
        after = await control.proposals.view(view.id)
        assert (after.state, after.needs, after.digest) == ("waiting", 1, view.digest)
        main = await world.repository.head("study", "main")
        files = world.repository.files["study"][main]
        assert [files[path] for path in PATHS] == [b"one\n", b"two\n", b"changed\n"]
        with pytest.raises(Conflict, match="accepted already"):
            await control.proposals.accept(REVIEWER, view.id, review(view, "protected/x.py"))
        # All that is left is the proposal itself.
        last = await control.proposals.accept(REVIEWER, view.id, review(view, "a.py", "b.py"))
        assert last.id == view.id
        await world.reaches(view.id, "promoted")
    received = (await world.facts(Kind.proposal_received))[-1]
    assert (received.actor, received.on_behalf_of) == (REVIEWER.id, ADA.id)


async def test_a_part_is_approved_only_by_whoever_may_approve_it(world):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(PERSON, "study", whole())
        view = await control.proposals.view(view.id, wait_s=10)
        for person in (PERSON, Principal(id=PrincipalId("person/tim"), role=Role.researcher)):
            path = "protected/x.py" if person is PERSON else "a.py"
            part = await control.proposals.accept(person, view.id, review(view, path))
            assert part.approvals == ()
        parts = await control.proposals.view(part.id, wait_s=10)
        assert parts.part_of == view.id


async def test_an_acceptance_does_not_cover_what_the_tests_find_out(world):
    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", whole())
        part = await control.proposals.accept(REVIEWER, view.id, review(view, "b.py"))
        assert part.approvals == (REVIEWER.id,)
        finding = GateFinding(rule=GateRule.tests_fewer, reason="one is missing")
        data = {"findings": [msgspec.to_builtins(finding)]}
        testing = {"main": "0" * 64}
        for kind, outcome, body in (
            (Kind.proposal_testing, "", testing), (Kind.proposal_tested, "passed", data)
        ):  # fmt: skip
            fact = make_fact(
                kind, part.id, actor=SUPERVISOR, data=body, outcome=outcome, revision="1" * 64
            )
            await world.journal.append([fact])
        await world.settled(lambda s: s.proposals[part.id].outcome)
        record = control.projection.state.proposals[part.id]
        assert (record.merged, record.approvals) == (True, ())


async def test_what_is_rejected_of_a_proposal_changes_its_digest_and_its_approvals_lapse(world):
    async with world.running() as control:
        node = await world.node()
        view = await control.proposals.propose(ADA, "study", whole())
        view = await control.proposals.view(view.id, wait_s=10)
        ran = len(node.ran)
        body = review(view, "a.py", comment="not this file")
        with pytest.raises(Forbidden):
            await control.proposals.reject(ADA, view.id, body)
        with pytest.raises(InvalidInput, match="nothing of"):
            await control.proposals.reject(REVIEWER, view.id, review(view, "c.py"))
        rest = await control.proposals.reject(REVIEWER, view.id, body)
        assert rest.digest != view.digest
        (narrowed,) = await world.facts(Kind.proposal_narrowed)
        assert narrowed.plain()["reason"] == "not this file"
        assert {change.path for change in rest.changes} == {"b.py", "protected/x.py"}
        with pytest.raises(Conflict, match="not what"):
            await control.proposals.accept(REVIEWER, view.id, PartReview(digest=view.digest))
        record = await world.reaches(view.id, "waiting")
        assert len(node.ran) == ran + 2, "what is left is tested again"
        await control.proposals.reject(REVIEWER, view.id, review(record, "b.py", "protected/x.py"))
        await world.reaches(view.id, "rejected")


async def test_a_part_that_no_longer_fits_does_not_go_on_without_its_person(world, monkeypatch):
    async def stale(_):
        raise Stale("a.py changed.")

    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", whole())
        monkeypatch.setattr(world.repository, "merge", stale)
        with pytest.raises(Stale):
            await control.proposals.accept(REVIEWER, view.id, review(view, "a.py"))
        parts = [r for r in control.projection.state.proposals.values() if r.part_of == view.id]
        assert [r.state for r in parts] == ["rejected"]
        assert control.projection.state.proposals[view.id].undecided
