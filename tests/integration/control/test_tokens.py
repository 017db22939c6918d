"""Scoped, expiring tokens in a real PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest

from angelos.control.identity.people import PeopleStore
from angelos.control.identity.tokens import KERNEL_SCOPES, MAX_TOKENS
from angelos.core.api import ChangePerson
from angelos.core.errors import Busy, Forbidden, InvalidInput, NotFound, Unauthenticated
from angelos.core.ids import PrincipalId
from angelos.core.permissions import OWNER, Permission, Principal, Role, granted
from angelos.core.principals import SessionKind
from angelos.testing import ManualClock, MemoryJournal


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
async def people(database, clock):
    people = PeopleStore(database, MemoryJournal(), clock)
    await people.start()
    return people


async def person(people, name="ada", role=Role.reviewer):
    return await people.authenticate((await people.create(name, role)).token)


async def test_a_token_is_its_person_with_fewer_rights(people):
    ada = await person(people)
    view = await people.tokens.create(ada, scopes=(Permission.tasks_run,), label="nightly")
    acting = await people.authenticate(view.token)
    assert (acting.id, acting.role, acting.generation) == (ada.id, ada.role, ada.generation)
    assert granted(acting) == {Permission.anyone, Permission.tasks_run}
    (listed,) = await people.tokens.list(ada.id)
    assert (listed.id, listed.label, listed.token) == (view.id, "nightly", "")


async def test_only_a_hash_is_kept(people, database):
    view = await people.tokens.create(await person(people))
    async with database.transaction() as connection:
        rows = await (await connection.execute("select * from token")).fetchall()
    assert view.token not in repr(rows)
    assert all(view.token.encode() not in bytes(c) for c in rows[0] if isinstance(c, bytes))


async def test_it_ends_at_its_time_and_when_it_is_revoked(people, clock):
    ada = await person(people)
    first = await people.tokens.create(ada, ttl_s=60)
    second = await people.tokens.create(ada, ttl_s=3600)
    clock.advance(59)
    assert await people.authenticate(first.token)
    clock.advance(1)
    assert await people.authenticate(first.token) is None
    assert await people.authenticate(second.token)
    await people.tokens.revoke(ada.id, second.id)
    assert await people.authenticate(second.token) is None
    assert await people.tokens.list(ada.id) == ()
    with pytest.raises(NotFound):
        await people.tokens.revoke(ada.id, second.id)


async def test_nobody_revokes_anothers(people):
    ada, bob = await person(people), await person(people, "bob")
    view = await people.tokens.create(ada)
    with pytest.raises(NotFound):
        await people.tokens.revoke(bob.id, view.id)
    assert await people.authenticate(view.token)


@pytest.mark.parametrize("end", ["demoted", "new token", "signed out", "removed"])
async def test_what_ends_a_person_ends_their_tokens(people, end):
    ada = await person(people)
    view = await people.tokens.create(ada, ttl_s=3600)
    if end == "demoted":
        await people.change("ada", ChangePerson(role=Role.viewer))
    elif end == "new token":
        await people.change("ada", ChangePerson(new_token=True))
    elif end == "signed out":
        await people.sign_out(ada)
    else:
        await people.remove("ada")
        await people.create("ada", Role.admin)
    assert await people.authenticate(view.token) is None
    with pytest.raises(Unauthenticated):
        await people.tokens.create(ada)


async def test_a_token_makes_none_that_is_more(people, clock):
    ada = await person(people)
    scopes = (Permission.tokens_manage, Permission.tasks_run)
    acting = await people.authenticate(
        (await people.tokens.create(ada, scopes=scopes, ttl_s=600)).token
    )
    with pytest.raises(Forbidden, match="proposals:review"):
        await people.tokens.create(acting, scopes=(Permission.proposals_review,))
    child = await people.tokens.create(acting, ttl_s=3600)
    assert set(child.scopes) <= {*scopes, Permission.anyone}
    assert child.expires_at == clock.time() + 600


async def test_rights_that_the_role_lost_are_not_kept_by_a_token(people):
    """A promotion does not end a generation, and neither does it widen a token."""
    ada = await person(people, role=Role.viewer)
    view = await people.tokens.create(ada, ttl_s=3600)
    await people.change("ada", ChangePerson(role=Role.admin))
    acting = await people.authenticate(view.token)
    assert acting.role == Role.admin
    assert not acting.may(Permission.people_manage)


async def test_a_kernels_token_neither_reviews_nor_administers(people):
    owner = await people.present(OWNER.id, 1)
    view = await people.tokens.create(owner, kind=SessionKind.kernel)
    acting = await people.authenticate(view.token)
    assert acting.id == OWNER.id
    assert granted(acting) <= KERNEL_SCOPES
    for never in (Permission.proposals_review, Permission.people_manage, Permission.jupyter_use):
        assert not acting.may(never)
        with pytest.raises(Forbidden):
            await people.tokens.create(owner, kind=SessionKind.kernel, scopes=(never,))
    assert acting.may(Permission.tasks_run)


async def test_odd_tokens_are_not_made(people):
    ada = await person(people)
    agent = Principal(id=PrincipalId("agent/bot"), role=Role.agent)
    with pytest.raises(Forbidden, match="certificate"):
        await people.tokens.create(agent)
    for ttl_s in (0, -1, 10**9, float("nan")):
        with pytest.raises(InvalidInput):
            await people.tokens.create(ada, ttl_s=ttl_s)
    with pytest.raises(InvalidInput):
        await people.tokens.create(ada, kind=SessionKind.browser)


async def test_the_number_of_tokens_is_bounded_also_for_those_made_at_once(people, monkeypatch):
    monkeypatch.setattr("angelos.control.identity.tokens.MAX_TOKENS", 3)
    assert MAX_TOKENS > 3
    ada = await person(people)
    made = await asyncio.gather(
        *(people.tokens.create(ada) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(e, Busy) for e in made) == 5
    assert len(await people.tokens.list(ada.id)) == 3


async def test_somebody_whom_another_provider_signed_in_has_tokens_too(people):
    hub_user = Principal(id=PrincipalId("person/hub-user"), role=Role.viewer)
    view = await people.tokens.create(hub_user, kind=SessionKind.kernel)
    acting = await people.authenticate(view.token)
    assert (acting.id, acting.role) == (hub_user.id, Role.viewer)
