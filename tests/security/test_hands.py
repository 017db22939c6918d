"""One pair of hands approves nothing alone, whatever it dresses up as."""

from __future__ import annotations

import pytest

from angelos.control.state.hands import distinct, same_hands
from angelos.core.api import Review
from angelos.core.errors import Forbidden
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import OWNER, Principal, Role
from angelos.testing import make_fact
from tests.unit.control.fakes import ADA, PERSON, REVIEWER, REVIEWER2, TOML, World, edit

ADAM, SOCK, SOCK2 = (PrincipalId(f"person/{name}") for name in ("adam", "sock", "sock2"))
BOT, EVE = PrincipalId("agent/bot"), PrincipalId("person/eve")
MAKERS = {
    ADAM: (OWNER.id,), EVE: (OWNER.id,), SOCK: (ADAM,), SOCK2: (SOCK,), BOT: (SOCK2, EVE),
}  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ADAM, ADAM, True),
        (ADAM, SOCK, True),
        (SOCK2, ADAM, True),
        (SOCK, SOCK2, True),
        (BOT, ADAM, True),
        (BOT, EVE, True),  # enrolled by one, and again by the other: either could hold its key
        (ADAM, EVE, False),  # the owner made both
        (OWNER.id, ADAM, False),
    ],
)
def test_who_counts_as_one(one, other, same):
    assert same_hands(MAKERS, one, other) is same
    assert same_hands(MAKERS, other, one) is same


def test_a_circle_of_makers_ends():
    assert same_hands({ADAM: (SOCK,), SOCK: (ADAM,)}, ADAM, SOCK)


def test_approvals_of_one_pair_of_hands_are_one():
    everybody = (SOCK, ADAM, SOCK2, EVE)
    assert distinct(MAKERS, everybody, OWNER.id, solo=False) == (SOCK, EVE)
    assert distinct(MAKERS, everybody, ADAM, solo=False) == (EVE,)
    assert distinct(MAKERS, (ADAM,), ADAM, solo=True) == (ADAM,)


@pytest.fixture
def world(clock):
    return World(clock)


async def waiting(world, author, path="protected/x.py"):
    text = f"{TOML.decode()}# 2\n" if path == "angelos.toml" else "2\n"
    view = await world.control.proposals.propose(author, "study", edit(path, text))
    view = await world.control.proposals.view(view.id, wait_s=10)
    assert view.state == "waiting", view.reason
    return view


async def approve(world, person, view):
    return await world.control.proposals.approve(person, view.id, Review(digest=view.digest))


async def say(world, kind, subject, by, **data):
    """Append a fact, and wait until control has it."""
    enrolled = kind == Kind.agent_enrolled
    actor, behalf = ("system/hub", by) if enrolled else (by, None)
    fact = make_fact(kind, subject, actor=actor, on_behalf_of=behalf, data=data)
    await world.control.projection.append(fact)


@pytest.mark.parametrize(
    ("kind", "subject", "by", "data", "author"),
    [
        (Kind.agent_enrolled, ADA.id, REVIEWER.id, {}, ADA),  # one's own agent
        (Kind.person_added, REVIEWER.id, PERSON.id, {}, PERSON),  # a reviewer for the purpose
        (Kind.person_changed, REVIEWER.id, PERSON.id, {"new_token": True}, PERSON),
    ],
)
async def test_nobody_approves_by_others_hands(world, kind, subject, by, data, author):
    async with world.running():
        await world.node()
        await say(world, kind, subject, by, **data)
        view = await waiting(world, author)
        with pytest.raises(Forbidden, match="not-ones-own"):
            await approve(world, REVIEWER, view)
        await approve(world, REVIEWER2, view)
        await world.reaches(view.id, "promoted")


async def test_a_change_of_role_makes_nobody_ones_own(world):
    async with world.running():
        await world.node()
        await say(world, Kind.person_changed, REVIEWER.id, PERSON.id, role="reviewer")
        view = await waiting(world, PERSON)
        await approve(world, REVIEWER, view)
        await world.reaches(view.id, "promoted")


async def test_two_of_one_pair_of_hands_are_not_two_people(world):
    async with world.running():
        await world.node()
        await say(world, Kind.person_added, REVIEWER2.id, REVIEWER.id)
        view = await waiting(world, PERSON, "angelos.toml")
        await approve(world, REVIEWER, view)
        with pytest.raises(Forbidden, match=r"approve\.once"):
            await approve(world, REVIEWER2, view)


async def test_an_end_ends_tasks_proposals_and_approvals(world):
    async with world.running():
        await world.node()
        own = await waiting(world, REVIEWER, "protected/own.py")
        view = await waiting(world, PERSON, "angelos.toml")
        await approve(world, REVIEWER, view)
        assert world.control.projection.state.proposals[view.id].approvals == (REVIEWER.id,)
        await say(world, Kind.principal_ended, REVIEWER.id, "system/identity", generation=2)
        await world.reaches(own.id, "rejected")
        assert world.control.projection.state.proposals[view.id].approvals == ()
        view = await world.control.proposals.view(view.id)
        assert view.state == "waiting"


async def test_an_approver_who_is_over_at_promotion_does_not_count(world):
    """Their end is in the database, and its fact still on the way."""
    async with world.running() as control:
        await world.node()
        view = await waiting(world, PERSON)
        async with control._context.locks["study"]:  # nothing is promoted meanwhile
            await approve(world, REVIEWER, view)
            del world.people.known[REVIEWER.id]
        await world.reaches(view.id, "waiting")
        assert control.projection.state.proposals[view.id].approvals == ()
        assert not [f for f in await world.facts(Kind.proposal_promoted) if f.subject == view.id]


async def test_an_approver_who_was_demoted_at_promotion_does_not_count(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, PERSON)
        async with control._context.locks["study"]:
            await approve(world, REVIEWER, view)
            world.people.known[REVIEWER.id] = Principal(id=REVIEWER.id, role=Role.researcher)
        await world.reaches(view.id, "waiting")


async def test_what_was_in_flight_when_a_generation_ended_does_not_count(world):
    async with world.running():
        await world.node()
        await say(world, Kind.principal_ended, PERSON.id, "system/identity", generation=2)
        view = await world.control.proposals.propose(PERSON, "study", edit("a.py", "2\n"))
        await world.reaches(view.id, "rejected")
