"""Attacks on review: approving oneself, twice, as an agent, or something else than was shown."""

from __future__ import annotations

import pytest

from angelos.control.routes import routes
from angelos.core.api import Review, SubmitTask
from angelos.core.errors import Conflict, Forbidden
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from tests.unit.control.fakes import (
    ADA,
    FILES,
    PERSON,
    REVIEWER,
    REVIEWER2,
    VIEWER,
    World,
    edit,
)


@pytest.fixture
def world(clock):
    return World(clock)


async def waiting(world, author=ADA, path="protected/x.py", text="2\n"):
    """Return a proposal that waits for people."""
    view = await world.control.proposals.propose(author, "study", edit(path, text))
    return await world.control.proposals.view(view.id, wait_s=10)


async def test_agents_cannot_approve(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, PERSON)
        for agent in (ADA, Principal(id=PrincipalId("agent/eve"), role=Role.reviewer)):
            for action in (control.proposals.approve, control.proposals.reject):
                with pytest.raises(Forbidden, match="agents-never"):
                    await action(agent, view.id, Review(digest=view.digest))
        assert control.projection.state.proposals[view.id].state == "waiting"


async def test_nobody_approves_what_they_wrote(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, REVIEWER)
        with pytest.raises(Forbidden, match=r"not-ones-own.*Ask somebody else"):
            await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        await control.proposals.approve(REVIEWER2, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")


async def test_one_person_is_not_two(world):
    async with world.running() as control:
        await world.node()
        toml = FILES["angelos.toml"].decode() + "#\n"
        view = await waiting(world, PERSON, "angelos.toml", toml)
        assert view.needs == 2
        await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        with pytest.raises(Forbidden, match=r"approve\.once"):
            await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        record = control.projection.state.proposals[view.id]
        assert (record.state, record.approvals) == ("waiting", (REVIEWER.id,))


@pytest.mark.parametrize("digest", ["", "0" * 64])
async def test_an_approval_of_something_else_is_void(world, digest):
    async with world.running() as control:
        await world.node()
        view = await waiting(world)
        for action in (control.proposals.approve, control.proposals.reject):
            with pytest.raises(Conflict, match="nothing was counted"):
                await action(REVIEWER, view.id, Review(digest=digest))
        assert control.projection.state.proposals[view.id].approvals == ()


async def test_an_approval_of_one_payload_does_not_carry_over_to_another(world):
    async with world.running() as control:
        await world.node()
        first = await waiting(world)
        second = await waiting(world, path="protected/y.py")
        assert first.digest != second.digest
        with pytest.raises(Conflict):
            await control.proposals.approve(REVIEWER, second.id, Review(digest=first.digest))


async def test_facts_that_others_forge_are_not_counted(world):
    """Should a forged approval ever reach the journal, the fold does not believe it either."""
    async with world.running() as control:
        node = await world.node()
        view = await waiting(world, PERSON)
        for actor in (ADA.id, PERSON.id, node.id):
            node.id, kept = actor, node.id
            await node.say(Kind.proposal_approved, view.id, data={"digest": view.digest})
            node.id = kept
        forged = {"digest": "0" * 64}
        node.id, kept = REVIEWER.id, node.id
        await node.say(Kind.proposal_approved, view.id, data=forged)
        node.id = kept
        await control.proposals.approve(REVIEWER2, view.id, Review(digest=view.digest))
        record = await world.reaches(view.id, "promoted")
        assert record.approvals == (REVIEWER2.id,)


async def test_what_a_base_on_dev_brings_along_is_judged_too(world):
    """A risky edit waits in dev; the next one, made on top of it, must not carry it to main."""
    async with world.running() as control:
        await world.node()
        payload = "x = '" + "A" * 600 + "'\n"
        risky = await waiting(world, path="a.py", text=payload)
        assert risky.state == "waiting"
        on_dev = edit("a.py", payload + "y = 1\n", base="dev")
        view = await control.proposals.propose(ADA, "study", on_dev)
        view = await control.proposals.view(view.id, wait_s=10)
        assert (view.state, view.needs) == ("waiting", 1)
        assert payload.strip() in view.changes[0].diff  # and whoever reviews it sees that


@pytest.mark.parametrize(
    "path",
    [
        "unittest.py",
        "UNITTEST.py",
        "unittest/__main__.py",
        "ruff.toml",
        "a/conftest.py",
        "health.py",
    ],
)
async def test_nobody_loosens_their_own_tests_without_a_person(world, path):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, path=path, text="pass\n")
        assert (view.state, view.needs) == ("waiting", 1), view.reason
        assert f"what it is tested with ({path})" in view.reason
        await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")


async def test_a_proposal_that_does_not_wait_takes_no_approval(world):
    async with world.running() as control:
        node = await world.node()
        node.program = lambda _: None
        view = await control.proposals.propose(ADA, "study", edit("protected/x.py"))
        with pytest.raises(Conflict, match="does not wait"):
            await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))


async def test_a_viewer_runs_nothing_even_past_the_route(world):
    async with world.running() as control:
        await world.node()
        with pytest.raises(Forbidden):
            await control.tasks.submit(VIEWER, SubmitTask(code="1"))
        with pytest.raises(Forbidden):
            await control.proposals.propose(VIEWER, "study", edit())


async def test_a_quarantined_reviewer_is_not_heard(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world)
        world.signals.refused.add(REVIEWER.id)
        with pytest.raises(Forbidden, match="quarantine"):
            await control.proposals.approve(REVIEWER, view.id, Review(digest=view.digest))


def test_every_route_names_its_permission(world):
    control = world.make()
    wanted = {
        ("GET", "/status"): Permission.status_read,
        ("GET", "/nodes"): Permission.nodes_read,
        ("POST", "/tasks"): Permission.tasks_run,
        ("GET", "/tasks"): Permission.tasks_read,
        ("GET", "/tasks/{task}"): Permission.tasks_read,
        ("POST", "/tasks/{task}/cancel"): Permission.tasks_cancel,
        ("POST", "/files"): Permission.tasks_run,
        ("GET", "/tasks/{task}/file"): Permission.tasks_read,
        ("GET", "/tasks/{task}/inputs/{content}"): Permission.tasks_serve,
        ("POST", "/tasks/{task}/outputs"): Permission.tasks_serve,
        ("POST", "/repos/{repo}/proposals"): Permission.proposals_create,
        ("GET", "/proposals"): Permission.proposals_read,
        ("GET", "/proposals/{proposal}"): Permission.proposals_read,
        ("POST", "/proposals/{proposal}/approve"): Permission.proposals_review,
        ("POST", "/proposals/{proposal}/accept"): Permission.documents_edit,
        ("POST", "/proposals/{proposal}/revert"): Permission.proposals_create,
        ("POST", "/proposals/{proposal}/reject"): Permission.proposals_review,
        ("POST", "/repos/{repo}/rollback"): Permission.revisions_rollback,
        ("POST", "/repos/{repo}/cherry-pick"): Permission.proposals_create,
        ("GET", "/repos/{repo}/tests"): Permission.proposals_read,
        ("GET", "/proposals/{proposal}/tests"): Permission.proposals_read,
        ("GET", "/proposals/{proposal}/diff"): Permission.proposals_read,
        ("GET", "/proposals/{proposal}/junit"): Permission.proposals_read,
        ("GET", "/proposals/{proposal}/sarif"): Permission.proposals_read,
        ("GET", "/principals/{kind}/{name}/quarantine"): Permission.principals_quarantine,
        ("POST", "/principals/{kind}/{name}/release"): Permission.principals_quarantine,
        ("POST", "/agents/pause"): Permission.principals_quarantine,
        ("POST", "/agents/resume"): Permission.principals_quarantine,
        ("POST", "/agents/{name}/pause"): Permission.principals_quarantine,
        ("POST", "/agents/{name}/resume"): Permission.principals_quarantine,
        ("GET", "/people"): Permission.people_manage,
        ("POST", "/people"): Permission.people_manage,
        ("PUT", "/people/{name}"): Permission.people_manage,
        ("DELETE", "/people/{name}"): Permission.people_manage,
        ("GET", "/tokens"): Permission.tokens_manage,
        ("POST", "/tokens"): Permission.tokens_manage,
        ("DELETE", "/tokens/{token}"): Permission.tokens_manage,
        ("GET", "/whoami"): Permission.status_read,
        ("GET", "/policy/explain"): Permission.policy_read,
        ("POST", "/policy/check"): Permission.proposals_review,
    }
    assert {(r.method, r.path): r.permission for r in routes(control)} == wanted
