"""One person alone on a real PostgreSQL and Valkey: it ends when a second reviewer is added."""

from __future__ import annotations

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.control.identity.people import PeopleStore
from angelos.core.api import Review
from angelos.core.errors import Forbidden
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal, Role
from tests.unit.control.fakes import FILES, TOML, FakeRepository, World, edit

OWNER = Principal(id=PrincipalId("person/owner"), role=Role.admin, generation=1)


@pytest.fixture
def world(journal, queue, database):
    world = World(SystemClock())
    world.people = PeopleStore(database, journal, SystemClock())
    world.journal, world.queue = journal, queue
    world.repository = FakeRepository(FILES | {"angelos.toml": TOML + b"solo = true\n"})
    return world


async def test_until_a_second_reviewer_is_added(world):
    people = world.people
    await people.create("vic", Role.viewer)
    async with world.running() as control:
        await world.node()
        for text, refused in (("1st\n", False), ("2nd\n", True)):
            view = await control.proposals.propose(OWNER, "study", edit("protected/x.py", text))
            view = await control.proposals.view(view.id, wait_s=20)
            assert view.state == "waiting", view.reason
            review = Review(digest=view.digest)
            if refused:
                with pytest.raises(Forbidden, match="not-ones-own"):
                    await control.proposals.approve(OWNER, view.id, review)
            else:
                await control.proposals.approve(OWNER, view.id, review)
                await world.reaches(view.id, "promoted")
                await people.create("bob", Role.reviewer)
    (fact,) = [f for f in await world.facts(Kind.proposal_approved) if f.actor == OWNER.id]
    assert fact.plain()["solo"] is True
