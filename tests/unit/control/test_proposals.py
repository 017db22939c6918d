"""The second road, from a proposal to main, on fakes."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from angelos.control.identity.tokens import KERNEL_SCOPES
from angelos.control.proposals.limits import AuthorLimits
from angelos.core.api import PartReview, Review
from angelos.core.errors import Busy, Conflict, Forbidden, InvalidInput, NotFound, Stale
from angelos.core.facts import Kind
from angelos.core.ids import new_proposal_id
from angelos.core.messages import Status
from tests.unit.control.fakes import (
    ADA,
    FILES,
    OPERATOR,
    PERSON,
    REVIEWER,
    REVIEWER2,
    FakeRepository,
    World,
    edit,
)


def failing(name):
    """Return a program in which the step of this name fails."""

    def program(task):
        if task.label.endswith(name):
            return Status.error, "Failed example: 1 + 1\n"
        return Status.ok, ""

    return program


async def test_a_good_proposal_is_tested_approved_by_policy_and_promoted(world):
    async with world.running() as control:
        node = await world.node()
        before = await world.repository.head("study", "main")
        view = await control.proposals.propose(ADA, "study", edit())
        assert view.state in ("pending", "testing", "approved", "promoted")
        view = await control.proposals.view(view.id, wait_s=10)
        assert view.state == "promoted", view.reason
        assert view.revision == await world.repository.head("study", "main") != before
        assert {(s.name, s.status) for s in view.steps} == {("unit", "ok"), ("static", "ok")}
        assert {(t.repo, t.revision, t.argv) for t in node.ran} == {
            ("study", view.candidate, ()),
            ("study", view.candidate, ("python", "-I", "-m", "ruff", "check")),
        }
        assert [t.revision for t in node.baselines] == [before]
    assert await world.kinds(view.id) == [
        Kind.proposal_received, Kind.proposal_testing, Kind.proposal_tested,
        Kind.proposal_approved, Kind.proposal_promoted,
    ]  # fmt: skip
    approved = (await world.facts(Kind.proposal_approved))[0]
    assert approved.actor == "system/supervisor"
    assert approved.plain()["rule"] == "promote.low-risk"
    assert approved.plain()["digest"] == view.digest


async def test_a_failing_proposal_is_rejected_and_was_never_in_dev(world):
    async with world.running() as control:
        node = await world.node()
        node.program = failing("unit")
        main = await world.repository.head("study", "main")
        view = await control.proposals.propose(ADA, "study", edit())
        view = await control.proposals.view(view.id, wait_s=10)
        assert view.state == "rejected"
        assert "unit" in view.reason
        assert "Failed example" in view.reason
        await world.settled(lambda s: s.proposals[view.id].reverted)
        assert world.repository.withdrawn == [view.id]
        assert world.repository.merged == world.repository.reverted == []
        assert await world.repository.head("study", "main") == main
    tested = (await world.facts(Kind.proposal_tested))[0]
    assert tested.outcome == "failed"
    assert (
        "Failed example"
        in next(s for s in tested.plain()["steps"] if s["name"] == "unit")["output"]
    )
    assert Kind.proposal_reverted in await world.kinds(view.id)


async def test_a_protected_path_waits_for_a_person_and_holds_nobody_up(world):
    async with world.running() as control:
        node = await world.node()
        first = await control.proposals.propose(ADA, "study", edit("protected/x.py"))
        first = await control.proposals.view(first.id, wait_s=10)
        assert (first.state, first.needs) == ("waiting", 1)
        second = await control.proposals.propose(ADA, "study", edit("b.py"))
        await world.reaches(second.id, "promoted")
        ran = len(node.ran)
        await control.proposals.approve(REVIEWER, first.id, Review(digest=first.digest))
        record = await world.reaches(first.id, "promoted")
        assert record.approvals == (REVIEWER.id,)
        assert len(node.ran) == ran + 2, "main had moved: the candidate was made and tested again"
        main = await world.repository.head("study", "main")
        files = world.repository.files["study"][main]
        assert files["b.py"] == files["protected/x.py"] == b"changed\n"


async def test_a_policy_path_needs_two_people(world):
    async with world.running() as control:
        await world.node()
        toml = FILES["angelos.toml"].decode() + "# more\n"
        view = await control.proposals.propose(PERSON, "study", edit("angelos.toml", toml))
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 2)
        view = await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        assert (view.state, view.needs) == ("waiting", 1)
        await control.proposals.approve(REVIEWER2, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")


async def test_an_agent_never_changes_the_policy(world):
    async with world.running() as control:
        for path in ("angelos.toml", ".angelos/rules.cedar", "Angelos.toml"):
            with pytest.raises(Forbidden, match="leave-policy-alone"):
                await control.proposals.propose(ADA, "study", edit(path))
        assert world.repository.merged == []
        assert {p.state for p in control.proposals.list().proposals} == {"refused"}
    facts = await world.facts(Kind.proposal_refused)
    assert [(f.outcome, f.actor) for f in facts] == [("policy", ADA.id)] * 3
    assert facts[0].plain()["policy_paths"] == ["angelos.toml"]


async def test_what_the_edits_really_touch_counts(world):
    """An edit may name one path and, by its diff, change another."""
    real = world.repository.propose

    async def lying(*args):
        from msgspec.structs import replace

        answer = await real(*args)
        hidden = replace(answer.changes[0], path="angelos.toml")
        return replace(answer, changes=(*answer.changes, hidden))

    world.repository.propose = lying
    async with world.running() as control:
        with pytest.raises(Forbidden):
            await control.proposals.propose(ADA, "study", edit("a.py"))
    assert world.repository.merged == []


async def test_a_stale_proposal_is_refused_with_both_texts(world):
    async with world.running() as control:
        await world.node()
        base = await world.repository.head("study", "main")
        first = await control.proposals.propose(ADA, "study", edit(text="mine\n"))
        await world.reaches(first.id, "promoted")
        with pytest.raises(Stale) as caught:
            await control.proposals.propose(ADA, "study", edit(text="x" * 9999, base=base))
        assert caught.value.extra["conflicts"][0]["theirs"] == "mine\n"
    fact = (await world.facts(Kind.proposal_refused))[0]
    assert fact.outcome == "stale"
    assert fact.plain()["conflicts"][0]["theirs"] == "mine\n"
    assert len(fact.plain()["conflicts"][0]["yours"]) == 4_000


async def test_going_stale_between_propose_and_merge_rejects(world):
    async def stale(_):
        raise Stale("line 1 has changed")

    world.repository.merge = stale
    async with world.running() as control:
        view = await control.proposals.propose(PERSON, "study", edit(live=True))
        assert view.state == "rejected"
        assert "line 1 has changed" in view.reason
        await world.settled(lambda s: s.proposals[view.id].reverted)


async def test_proposals_of_one_repository_take_turns(world):
    async with world.running() as control:
        node = await world.node()
        open_ = []

        def program(task):
            open_.append(task)

        node.program = program
        first = await control.proposals.propose(ADA, "study", edit("a.py"))
        second = await control.proposals.propose(PERSON, "study", edit("b.py"))
        await world.settled(lambda _: len(open_) == 2)
        assert control.projection.state.proposals[second.id].state == "pending"
        node.program = lambda _: (Status.ok, "")
        for task in open_:
            await node.finish(task, Status.ok)
        await world.reaches(first.id, "promoted")
        await world.reaches(second.id, "promoted")
        main = await world.repository.head("study", "main")
        assert world.repository.parents[main] == (
            control.projection.state.proposals[first.id].revision
        )


async def test_the_same_id_is_the_same_proposal(world):
    async with world.running() as control:
        await world.node()
        body = edit(proposal=new_proposal_id())
        first, second = await asyncio.gather(
            control.proposals.propose(ADA, "study", body),
            control.proposals.propose(ADA, "study", body),
        )
        assert first.id == second.id
        await world.reaches(first.id, "promoted")
        with pytest.raises(Conflict):
            await control.proposals.propose(PERSON, "study", body)
    assert (await world.kinds(first.id)).count(Kind.proposal_received) == 1


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (edit(base="nonsense"), InvalidInput),
        (edit(base="0" * 64), NotFound),
        (edit("../a.py"), InvalidInput),
        (edit(proposal="task-1"), InvalidInput),
    ],
)
async def test_proposals_of_the_wrong_form_are_refused(world, body, error):
    async with world.running() as control:
        with pytest.raises(error):
            await control.proposals.propose(ADA, "study", body)
        with pytest.raises(NotFound):
            await control.proposals.propose(ADA, "nowhere", edit())


async def test_too_many_open_proposals_are_refused(clock):
    world = World(clock, author_limits=AuthorLimits(open_proposals=1, proposals_per_hour=2))
    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", edit())
        with pytest.raises(Busy, match="1 open proposals"):
            await control.proposals.propose(ADA, "study", edit("b.py"))
        await control.proposals.propose(PERSON, "study", edit("b.py"))  # others are not affected
        await control.proposals.reject(REVIEWER, view.id, PartReview(digest=view.digest))
        view = await control.proposals.propose(ADA, "study", edit("a.py", "once more"))
        await control.proposals.reject(REVIEWER, view.id, PartReview(digest=view.digest))
        with pytest.raises(Busy, match="2 proposals in the last hour"):
            await control.proposals.propose(ADA, "study", edit("a.py", "a third"))
        clock.advance(3601)
        await control.proposals.propose(ADA, "study", edit("a.py", "a third"))


async def test_who_waits_too_long_for_people_is_rejected(world, clock):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(ADA, "study", edit("protected/x.py"))
        await world.reaches(view.id, "waiting")
        clock.advance(15 * 86_400)
        control.sweep()
        record = await world.reaches(view.id, "rejected")
        assert "Nobody decided" in record.reason


async def test_a_person_rejects_even_while_it_is_tested(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(lambda s: sum(t.state == "running" for t in s.tasks.values()) == 2)
        body = PartReview(digest=view.digest, comment="not now")
        view = await control.proposals.reject(REVIEWER, view.id, body)
        assert view.state == "rejected"
        assert "not now" in view.reason
        await world.settled(lambda s: s.proposals[view.id].reverted)
        await world.settled(lambda s: not any(t.open for t in s.tasks.values()))
        with pytest.raises(Conflict):
            await control.proposals.reject(REVIEWER, view.id, body)


async def test_what_is_main_cannot_be_rejected(world):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(view.id, "promoted")
        with pytest.raises(Conflict, match="rollback") as caught:
            await control.proposals.reject(REVIEWER, view.id, PartReview(digest=view.digest))
        assert "rollback" in caught.value.hint


async def test_a_repository_without_tests_needs_a_person(world):
    world.repository = FakeRepository({"a.py": b"one\n"})
    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", edit())
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 1)
        await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")


async def test_a_broken_configuration_of_main_can_be_mended_by_two_people_only(world):
    world.repository = FakeRepository({"a.py": b"one\n", "angelos.toml": b"[pipeline"})
    async with world.running() as control:
        view = await control.proposals.propose(ADA, "study", edit())
        view = await control.proposals.view(view.id, wait_s=10)
        assert view.state == "rejected"
        assert "angelos.toml cannot be read" in view.reason
        good = edit("angelos.toml", FILES["angelos.toml"].decode())
        view = await control.proposals.propose(PERSON, "study", good)
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 2)


async def test_a_configuration_that_cannot_be_read_does_not_become_main(world):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(PERSON, "study", edit("angelos.toml", "[pipe"))
        view = await control.proposals.view(view.id, wait_s=10)
        assert view.state == "rejected"
        assert "cannot be read" in view.reason


async def test_risky_changes_wait_for_a_person(world):
    async with world.running() as control:
        await world.node()
        view = await control.proposals.propose(ADA, "study", edit(text="x" * 600))
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 1)
        assert "risk" in view.reason


async def test_a_quarantined_agents_open_proposals_leave_dev(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit())
        other = await control.proposals.propose(PERSON, "study", edit("b.py"))
        await world.settled(lambda s: sum(t.state == "running" for t in s.tasks.values()) == 2)
        node.program = lambda _: (Status.ok, "")
        await node.say(Kind.principal_quarantined, ADA.id, data={"reason": "rogue"})
        record = await world.reaches(view.id, "rejected")
        assert "quarantined" in record.reason
        await world.settled(lambda s: s.proposals[view.id].reverted)
        await world.reaches(other.id, "promoted")


async def test_main_moved_by_somebody_else_means_a_new_candidate(world):
    async with world.running() as control:
        node = await world.node()
        view = await control.proposals.propose(ADA, "study", edit("protected/x.py"))
        view = await control.proposals.view(view.id, wait_s=10)
        main = await world.repository.head("study", "main")
        moved = world.repository._commit("study", {**FILES, "new.py": b"new\n"}, main)
        world.repository.heads["study", "main"] = moved
        await control.proposals.approve(OPERATOR, view.id, Review(digest=view.digest))
        record = await world.reaches(view.id, "promoted")
        assert world.repository.parents[record.revision] == moved
        assert len(node.ran) == 4


async def test_a_notebook_is_asked_for_by_a_runner(world):
    toml = b'[pipeline]\nsteps = [{ name = "nb", notebook = "a.ipynb" }]\n'
    world.repository = FakeRepository({"a.py": b"", "a.ipynb": b"{}", "angelos.toml": toml})
    async with world.running() as control:
        node = await world.node()
        view = await control.proposals.propose(ADA, "study", edit())
        await world.reaches(view.id, "promoted")
        assert node.ran[0].cases.arguments == ("a.ipynb",)
        assert not node.ran[0].code
        assert not node.ran[0].guard


async def test_what_cannot_be_taken_out_of_dev_stays_and_is_said(world):
    async def clash(proposal):
        raise Conflict("Others have changed lines 1 to 2 since.")

    world.repository.revert = clash
    async with world.running() as control:
        node = await world.node()
        node.program = lambda t: (
            (Status.error, "no") if t.label.endswith("unit") else (Status.ok, "")
        )
        view = await control.proposals.propose(PERSON, "study", edit(live=True))
        await world.settled(lambda s: s.proposals[view.id].reverted)
        view = await control.proposals.view(view.id)
        assert view.state == "rejected"
        assert "stay in dev" in view.reason


async def test_what_a_person_proposes_live_is_in_dev_at_once_and_leaves_it_when_rejected(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(PERSON, "study", edit(live=True))
        assert view.in_dev
        assert world.repository.merged == [view.id]
        await control.proposals.reject(REVIEWER, view.id, PartReview(digest=view.digest))
        await world.settled(lambda s: s.proposals[view.id].reverted)
        assert world.repository.reverted == [view.id]


async def test_an_agent_proposes_nothing_live(world):
    async with world.running() as control:
        with pytest.raises(Forbidden, match="may not edit live documents"):
            await control.proposals.propose(ADA, "study", edit(live=True))
        assert world.repository.proposed == {}
    (refused,) = await world.facts(Kind.proposal_refused)
    assert (refused.outcome, refused.actor) == ("policy", ADA.id)


async def test_a_person_accepts_into_dev_what_is_still_tested(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit())
        await world.settled(lambda s: s.proposals[view.id].state == "testing")
        with pytest.raises(Conflict, match="not what"):
            await control.proposals.accept(PERSON, view.id, PartReview(digest="0" * 64))
        view = await control.proposals.accept(PERSON, view.id, PartReview(digest=view.digest))
        assert (view.state, view.in_dev) == ("testing", True)
        await control.proposals.accept(PERSON, view.id, PartReview(digest=view.digest))
        assert world.repository.merged == [view.id]
        (accepted,) = await world.facts(Kind.proposal_merged)
        assert accepted.actor == PERSON.id
        await control.proposals.reject(REVIEWER, view.id, PartReview(digest=view.digest))
        with pytest.raises(Conflict, match="no longer be accepted"):
            await control.proposals.accept(PERSON, view.id, PartReview(digest=view.digest))
        await world.settled(lambda s: s.proposals[view.id].reverted)
        assert world.repository.reverted == [view.id]


async def test_a_token_that_may_not_review_does_not_approve_by_accepting(world):
    """Such as a kernel's: code that an agent wrote runs there."""
    kernel = msgspec.structs.replace(REVIEWER, scopes=KERNEL_SCOPES)
    async with world.running() as control:
        await world.node()
        toml = FILES["angelos.toml"].decode() + "# more\n"
        view = await control.proposals.propose(PERSON, "study", edit("angelos.toml", toml))
        view = await control.proposals.view(view.id, wait_s=10)
        view = await control.proposals.accept(kernel, view.id, PartReview(digest=view.digest))
        assert (view.state, view.needs, view.approvals) == ("waiting", 2, ())


async def test_whoever_may_approve_approves_by_accepting(world):
    async with world.running() as control:
        await world.node()
        toml = FILES["angelos.toml"].decode() + "# more\n"
        view = await control.proposals.propose(PERSON, "study", edit("angelos.toml", toml))
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 2)
        view = await control.proposals.accept(REVIEWER, view.id, PartReview(digest=view.digest))
        assert (view.needs, view.in_dev, view.approvals) == (1, True, (REVIEWER.id,))
        view = await control.proposals.accept(PERSON, view.id, PartReview(digest=view.digest))
        assert view.approvals == (REVIEWER.id,), "nobody approves their own"
