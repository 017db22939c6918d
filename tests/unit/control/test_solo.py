"""One person alone: what they may approve, what the facts say, and when it ends."""

from __future__ import annotations

import pytest

from angelos.control.proposals.repo_config import ReviewRules, parse
from angelos.control.proposals.solo import alone
from angelos.control.state.hands import distinct
from angelos.core.api import PersonView, Review
from angelos.core.errors import Forbidden
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal, Role
from tests.unit.control.fakes import (
    ADA,
    FILES,
    OWNER,
    TOML,
    VIEWER,
    FakePeople,
    FakeRepository,
    World,
    edit,
)

BOB = Principal(id=PrincipalId("person/bob"), role=Role.reviewer)
SOLO = TOML + b"hold_agents = true\nsolo = true\n"
NOT_SOLO = TOML + b"hold_agents = true\n"


def person(name: str, role: Role) -> PersonView:
    return PersonView(id=PrincipalId(f"person/{name}"), role=role)


@pytest.fixture
def people() -> FakePeople:
    return FakePeople(VIEWER)


class Study(World):
    """A study whose `angelos.toml` is given, and the people who are there now."""

    def __init__(self, clock, people: FakePeople, toml: bytes = SOLO) -> None:
        super().__init__(clock)
        self.people = people
        self.repository = FakeRepository(FILES | {"angelos.toml": toml})


@pytest.fixture
def world(clock, people):
    return Study(clock, people)


async def waiting(world, author, path="protected/x.py", text="2\n"):
    view = await world.control.proposals.propose(author, "study", edit(path, text))
    view = await world.control.proposals.view(view.id, wait_s=10)
    assert view.state == "waiting", view.reason
    return view


async def approvals(world, view):
    return [f for f in await world.facts(Kind.proposal_approved) if f.subject == view.id]


@pytest.mark.parametrize(
    ("solo", "others", "expected"),
    [
        (True, [], True),
        (True, [Role.viewer, Role.researcher], True),
        (True, [Role.reviewer], False),
        (True, [Role.operator], False),
        (True, [Role.admin], False),
        (False, [], False),
    ],
)
def test_it_lasts_until_somebody_else_may_review(solo, others, expected):
    views = [person("owner", Role.admin), *(person(f"p{n}", r) for n, r in enumerate(others))]
    assert alone(ReviewRules(solo=solo), views) is expected


def test_somebody_who_was_removed_a_moment_ago_is_not_the_one_who_works_alone():
    views = [person("owner", Role.admin)]
    assert alone(ReviewRules(solo=True), views, PrincipalId("person/owner"))
    assert not alone(ReviewRules(solo=True), views, PrincipalId("person/bob"))


def test_an_authors_own_approval_counts_only_while_they_work_alone():
    both = (OWNER.id, BOB.id)
    assert distinct({}, both, OWNER.id, solo=True) == both
    assert distinct({}, both, OWNER.id, solo=False) == (BOB.id,)


async def test_one_person_approves_their_own_and_the_fact_says_so(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER)
        await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))
        record = await world.reaches(view.id, "promoted")
        assert record.approvals == (OWNER.id,)
        (fact,) = await approvals(world, view)
        assert (fact.actor, fact.plain()["solo"]) == (OWNER.id, True)


async def test_an_agents_proposal_waits_and_its_approval_says_solo_too(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, ADA, "a.py")
        assert "hold_agents" in view.reason
        await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")
        (fact,) = await approvals(world, view)
        assert fact.plain()["solo"] is True


async def test_their_own_low_risk_proposal_waits_for_nobody(world):
    async with world.running():
        await world.node()
        view = await world.control.proposals.propose(OWNER, "study", edit("a.py"))
        await world.reaches(view.id, "promoted")


async def test_one_person_is_enough_to_change_the_rules_and_so_to_end_it(world):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER, "angelos.toml", NOT_SOLO.decode())
        assert view.needs == 1
        await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")
        view = await waiting(world, OWNER)
        with pytest.raises(Forbidden, match="not-ones-own"):
            await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))


async def test_with_a_second_reviewer_it_is_over_and_facts_say_so(world, people):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER)
        people.known[BOB.id] = BOB
        with pytest.raises(Forbidden, match="not-ones-own"):
            await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))
        await control.proposals.approve(BOB, view.id, Review(digest=view.digest))
        await world.reaches(view.id, "promoted")
        (fact,) = await approvals(world, view)
        assert fact.plain()["solo"] is False


async def test_what_one_was_enough_for_takes_two_when_a_second_comes_meanwhile(world, people):
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER, "angelos.toml", NOT_SOLO.decode())
        people.known[BOB.id] = BOB
        view = await control.proposals.approve(BOB, view.id, Review(digest=view.digest))
        assert (view.state, view.needs) == ("waiting", 1)


async def test_the_candidates_own_word_does_not_count(clock, people):
    world = Study(clock, people, NOT_SOLO)
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER, "angelos.toml", SOLO.decode())
        assert view.needs == 2
        with pytest.raises(Forbidden, match="not-ones-own"):
            await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))


async def test_ones_own_approval_is_void_when_the_candidate_is_made_anew_after_it(world, people):
    """`main` moves and a second reviewer comes between an approval and the promotion."""
    async with world.running() as control:
        await world.node()
        view = await waiting(world, OWNER)
        hold = control._context.locks["study"]
        async with hold:  # nothing is promoted meanwhile
            await control.proposals.approve(OWNER, view.id, Review(digest=view.digest))
            people.known[BOB.id] = BOB
            repository = world.repository
            main = repository.heads["study", "main"]
            files = repository.files["study"][main] | {"b.py": b"moved\n"}
            repository.heads["study", "main"] = repository._commit("study", files, main)
        await world.settled(lambda s: s.proposals[view.id].approvals == ())
        await world.reaches(view.id, "waiting")
        record = control.projection.state.proposals[view.id]
        assert (record.needs, record.approvals) == (1, ())


def test_the_words_of_angelos_toml():
    review = parse(SOLO).review
    assert (review.solo, review.hold_agents) == (True, True)
    assert parse(b"").review == ReviewRules()
