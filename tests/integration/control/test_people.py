"""People in a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from angelos.control.identity.people import PeopleStore
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.permissions import Role


async def test_a_token_is_its_persons_until_they_are_removed(database):
    people = PeopleStore(database)
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
    view = await PeopleStore(database).create("ada", Role.viewer)
    async with database.transaction() as connection:
        rows = await (await connection.execute("select * from person")).fetchall()
    assert view.token not in repr(rows)
    assert view.token.encode() not in bytes(rows[0][2])


@pytest.mark.parametrize(
    "token", ["", "x", "x" * 33, "x" * 10_000, "\x00", "\ud800", "angel_' or 1=1 --"]
)
async def test_other_tokens_are_nobodys(database, token):
    people = PeopleStore(database)
    await people.create("ada", Role.viewer)
    assert await people.authenticate(token) is None


async def test_a_name_is_taken_once(database):
    people = PeopleStore(database)
    first = await people.create("ada", Role.viewer)
    with pytest.raises(Conflict):
        await people.create("ada", Role.admin)
    assert (await people.authenticate(first.token)).role == Role.viewer


@pytest.mark.parametrize("role", [Role.agent, Role.node])
async def test_people_are_no_agents_and_no_nodes(database, role):
    with pytest.raises(InvalidInput):
        await PeopleStore(database).create("ada", role)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "a" * 65, "a\n", "\u0430da"])
async def test_odd_names_are_refused(database, name):
    with pytest.raises(InvalidInput):
        await PeopleStore(database).create(name, Role.viewer)


async def test_nobody_is_called_like_the_owner(database):
    with pytest.raises(Conflict, match="server's own token"):
        await PeopleStore(database).create("owner", Role.admin)


async def test_the_last_admin_stays(database):
    people = PeopleStore(database)
    await people.create("ada", Role.admin)
    with pytest.raises(Conflict):
        await people.remove("ada")
    await people.create("bob", Role.admin)
    ended = await asyncio.gather(people.remove("ada"), people.remove("bob"), return_exceptions=True)
    assert [type(e) for e in ended if e] == [Conflict]
    assert len(await people.list()) == 2
