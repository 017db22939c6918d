"""People: who may sign in, in which role, with which token.

    people = PeopleStore(database, journal, clock)
    view = await people.create("ada", Role.reviewer)      # view.token is shown only this once
    await people.authenticate(view.token)                 # Principal(id="person/ada", ...)
    await people.remove("ada")                            # ends whatever ada has signed in

A name is free again when its person is removed; the id is not: the next `ada` is `person/ada~2`.
"""

from __future__ import annotations

import secrets
from typing import Any

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.control.identity.generations import (
    GenerationStore,
    begin_in,
    end_in,
    standing_in,
)
from angelos.control.identity.secrets import MAX_TOKEN, hash_token
from angelos.control.identity.tokens import PREFIX as TOKEN_PREFIX
from angelos.control.identity.tokens import TokenStore
from angelos.core.api import ChangePerson, PersonView
from angelos.core.errors import Conflict, Forbidden, InvalidInput, NotFound
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import OWNER, Principal, Role
from angelos.core.policy.access import permissions_of
from angelos.core.ports import Clock, Journal
from angelos.core.principals import EndCause, Generation, Standing

PREFIX = "angel_"
OWNER_NAME = "owner"
"""The person who signs in with the server's own token; the name is reserved."""
_NOT_PEOPLE = (Role.agent, Role.node)

QUERIES = load_queries("angelos.control")


class PeopleStore:
    """The people of a system, in the database.

    `generations` says how each stands, `tokens` holds what they made beside their own.
    """

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self.generations = GenerationStore(database, journal, clock)
        self.tokens = TokenStore(database, clock)

    async def start(self) -> None:
        """Let the owner act, and announce what a crash left without its fact."""
        await self.generations.begin(OWNER.id)
        await self.generations.announce()

    async def create(self, name: str, role: Role) -> PersonView:
        """Add a person and return the token, which is not stored and cannot be shown again.

        Raises:
            InvalidInput: The name or role cannot be a person's.
            Conflict: There is a person of that name, or the name is reserved.
        """
        _check_role(role)
        if not is_principal(f"person/{name}") or "~" in name:
            raise InvalidInput(
                f"{name!r} cannot be a person's name.",
                hint="Use letters, digits, dots and dashes.",
            )
        if name == OWNER_NAME:
            raise Conflict(
                f"{name!r} is the person who has the server's own token.",
                hint="Choose another name.",
            )
        token = PREFIX + secrets.token_urlsafe(32)
        async with self._database.transaction() as connection:
            await connection.execute(QUERIES["lock_name"], {"name": name})
            if await _one(connection, "person_by_name", name=name) is not None:
                raise Conflict(f"There is a person {name!r} already; nothing was changed.")
            standing = await begin_in(connection, await _free_id(connection, name))
            values = {
                "id": standing.principal,
                "name": name,
                "role": role,
                "token": hash_token(token),
            }
            await connection.execute(QUERIES["add_person"], values)
        return PersonView(
            id=standing.principal,
            name=name,
            role=role,
            generation=standing.generation,
            token=token,
        )

    async def authenticate(self, token: str) -> Principal | None:
        """Return the person whose token this is now; None if it is not valid (any more)."""
        if not token or len(token) > MAX_TOKEN:
            return None
        if token.startswith(TOKEN_PREFIX):
            return await self.tokens.authenticate(token)
        async with self._database.transaction() as connection:
            row = await _one(connection, "person_by_token", token=hash_token(token))
        return None if row is None else _principal(row[0], row[2], row[3])

    async def present(self, person: PrincipalId, generation: Generation) -> Principal | None:
        """Return a person as they may act now, if that generation of theirs still counts."""
        async with self._database.transaction() as connection:
            if person == OWNER.id:
                standing = await standing_in(connection, person, lock=False)
                row = (person, OWNER_NAME, OWNER.role, standing.generation, standing.active)
            else:
                row = await _one(connection, "person", id=person)
        if row is None or not row[4] or row[3] != generation:
            return None
        return _principal(row[0], row[2], row[3])

    async def list(self) -> tuple[PersonView, ...]:
        """Return the owner and all people, by name; without tokens."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(QUERIES["people"])).fetchall()
            owner = await standing_in(connection, OWNER.id, lock=False)
        return (
            PersonView(id=OWNER.id, name=OWNER_NAME, role=OWNER.role, generation=owner.generation),
            *(
                PersonView(id=PrincipalId(id_), name=name, role=Role(role), generation=generation)
                for id_, name, role, generation in rows
            ),
        )

    async def change(
        self, name: str, body: ChangePerson, by: PrincipalId | None = None
    ) -> PersonView:
        """Give a person another role or token; fewer rights or a new token end what was signed in.

        Raises:
            InvalidInput: There is nothing to change, or the role cannot be a person's.
            Conflict: It is the last admin's role.
            NotFound: There is no such person.
        """
        if body.role is None and not body.new_token:
            raise InvalidInput("Give a role, or ask for a new token.")
        token = PREFIX + secrets.token_urlsafe(32) if body.new_token else ""
        async with self._database.transaction() as connection:
            person, before = await _locked(connection, name, losing_admin=body.role)
            role = body.role or before
            _check_role(role)
            await connection.execute(QUERIES["set_role"], {"id": person, "role": role})
            if token:
                values = {"id": person, "token": hash_token(token)}
                await connection.execute(QUERIES["set_token"], values)
            standing = await standing_in(connection, person)
            if permissions_of(before) - permissions_of(role):
                standing = await _end(connection, standing, EndCause.demoted)
            elif token:
                standing = await _end(connection, standing, EndCause.credential_changed)
        await self.generations.announce(by)
        return PersonView(
            id=person, name=name, role=role, generation=standing.generation, token=token
        )

    async def sign_out(self, principal: Principal) -> None:
        """End everything that a person has signed in; they may sign in again."""
        await self.generations.end(
            principal.id, principal.generation, EndCause.logged_out, principal.id
        )

    async def remove(self, name: str, by: PrincipalId | None = None) -> PrincipalId:
        """Remove a person for good and return their id; everything that they signed in ends.

        Raises:
            Conflict: It is the last admin.
            NotFound: There is no such person.
        """
        async with self._database.transaction() as connection:
            person, _ = await _locked(connection, name, losing_admin=Role.viewer)
            await _end(connection, await standing_in(connection, person), EndCause.removed)
            await connection.execute(QUERIES["remove_person"], {"id": person})
        await self.generations.announce(by)
        return person


async def _locked(
    connection: Connection, name: str, *, losing_admin: Role | None
) -> tuple[PrincipalId, Role]:
    """Return a person's id and role, locked; refuse to take the role of the last admin.

    The admins are locked first, so that the last two cannot demote each other at the same time.
    """
    rows = await connection.execute(QUERIES["lock_admins"], {"role": Role.admin})
    admins = [row[0] for row in await rows.fetchall()]
    if admins == [name] and losing_admin not in {None, Role.admin}:
        raise Conflict(
            f"{name!r} is the last admin and stays one.",
            hint="Make somebody else an admin first.",
        )
    row = await _one(connection, "person_by_name", name=name)
    if row is None:
        if name == OWNER_NAME:
            raise Forbidden(
                "The owner is whoever has the server's own token.",
                hint="Start the system again to change that token.",
            )
        raise NotFound(f"There is no person {name!r}.")
    return PrincipalId(row[0]), Role(row[1])


async def _end(connection: Connection, standing: Standing, cause: EndCause) -> Standing:
    return await end_in(connection, standing.principal, standing.generation, cause)


async def _free_id(connection: Connection, name: str) -> PrincipalId:
    """Return an id that nobody has had: the name, or the name with a number."""
    plain = f"person/{name}"
    # `_` stands for any character in a pattern, which only finds more than it has to.
    rows = await connection.execute(QUERIES["ids_like"], {"id": plain, "pattern": f"{plain}~%"})
    used = {row[0] for row in await rows.fetchall()}
    number = 2
    while plain in used and f"{plain}~{number}" in used:
        number += 1
    return PrincipalId(f"{plain}~{number}" if plain in used else plain)


async def _one(connection: Connection, query: str, **values: Any) -> tuple[Any, ...] | None:
    return await (await connection.execute(QUERIES[query], values)).fetchone()


def _check_role(role: Role) -> None:
    if role in _NOT_PEOPLE:
        raise InvalidInput(
            f"A person cannot be {role}.", hint="Agents and nodes are enrolled, with a key."
        )


def _principal(person: str, role: str, generation: int) -> Principal | None:
    if role not in set(Role):
        return None
    return Principal(id=PrincipalId(person), role=Role(role), generation=Generation(generation))
