"""People in a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from angelos.adapters.host.clock import SystemClock
from angelos.control.identity.people import PeopleStore
from angelos.core.api import ChangePerson
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.permissions import Role
from angelos.core.principals import EndCause
from angelos.testing import MemoryJournal


def people_of(database):
    return PeopleStore(database, MemoryJournal(), SystemClock())


async def test_a_token_is_its_persons_until_they_are_removed(database):
    people = people_of(database)
    await people.start()
    view = await people.create("ada", Role.reviewer)
    principal = await people.authenticate(view.token)
    assert (principal.id, principal.role) == ("person/ada", Role.reviewer)
    assert [(p.id, p.role, p.token) for p in await people.list()] == [
        ("person/owner", Role.admin, ""),
        ("person/ada", Role.reviewer, ""),
    ]
    await people.remove("ada")
    assert await people.authenticate(view.token) is None
    with pytest.raises(NotFound):
        await people.remove("ada")


async def test_tokens_are_not_kept(database):
    view = await people_of(database).create("ada", Role.viewer)
    async with database.transaction() as connection:
        rows = await (await connection.execute("select * from person")).fetchall()
    assert view.token not in repr(rows)
    assert view.token.encode() not in bytes(rows[0][3])


@pytest.mark.parametrize(
    "token", ["", "x", "x" * 33, "x" * 10_000, "\x00", "\ud800", "angel_' or 1=1 --"]
)
async def test_other_tokens_are_nobodys(database, token):
    people = people_of(database)
    await people.create("ada", Role.viewer)
    assert await people.authenticate(token) is None


async def test_a_name_is_taken_once(database):
    people = people_of(database)
    first = await people.create("ada", Role.viewer)
    with pytest.raises(Conflict):
        await people.create("ada", Role.admin)
    assert (await people.authenticate(first.token)).role == Role.viewer


@pytest.mark.parametrize("role", [Role.agent, Role.node])
async def test_people_are_no_agents_and_no_nodes(database, role):
    with pytest.raises(InvalidInput):
        await people_of(database).create("ada", role)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 65, "a\n", "\u0430da"])
async def test_odd_names_are_refused(database, name):
    with pytest.raises(InvalidInput):
        await people_of(database).create(name, Role.viewer)


async def test_nobody_is_called_like_the_owner(database):
    with pytest.raises(Conflict, match="server's own token"):
        await people_of(database).create("owner", Role.admin)


async def test_the_last_admin_stays(database):
    people = people_of(database)
    await people.start()
    await people.create("ada", Role.admin)
    with pytest.raises(Conflict):
        await people.remove("ada")
    await people.create("bob", Role.admin)
    ended = await asyncio.gather(people.remove("ada"), people.remove("bob"), return_exceptions=True)
    assert [type(e) for e in ended if isinstance(e, Exception)] == [Conflict]
    assert len(await people.list()) == 2


async def test_a_name_may_be_used_again_and_an_id_never(database):
    people = people_of(database)
    ids = []
    for _ in range(3):
        view = await people.create("ann", Role.viewer)
        ids.append(view.id)
        assert await people.remove("ann") == view.id
    assert ids == ["person/ann", "person/ann~2", "person/ann~3"]
    assert await people.present(ids[0], view.generation) is None
    with pytest.raises(InvalidInput):
        await people.create("ann~4", Role.viewer)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (ChangePerson(role=Role.viewer), EndCause.demoted),
        (ChangePerson(new_token=True), EndCause.credential_changed),
        (ChangePerson(role=Role.admin), None),
    ],
)
async def test_fewer_rights_or_a_new_token_end_a_generation(database, change, cause):
    people = people_of(database)
    view = await people.create("ada", Role.reviewer)
    after = await people.change("ada", change)
    facts = await people.generations._journal.read("0-0")
    assert (after.generation, [f.outcome for f in facts]) == ((2, [cause]) if cause else (1, []))
    assert (await people.present(view.id, view.generation) is None) == bool(cause)
    assert (await people.authenticate(view.token) is None) == change.new_token
    if change.new_token:
        assert (await people.authenticate(after.token)).generation == 2


async def test_an_end_whose_fact_was_lost_is_announced_later_and_once(database):
    people = people_of(database)
    view = await people.create("ada", Role.reviewer)
    journal, people.generations._journal = people.generations._journal, None
    with pytest.raises(AttributeError):
        await people.change("ada", ChangePerson(new_token=True))
    assert await people.present(view.id, view.generation) is None, "it is over all the same"
    people.generations._journal = journal
    await people.generations.announce_owed()
    await people.generations.announce_owed()
    await people.generations.announce()
    assert [f.subject for f in await journal.read("0-0")] == [view.id]
