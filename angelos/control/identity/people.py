"""People: who may sign in, in which role, with which token.

    people = PeopleStore(database)
    view = await people.create("ada", Role.reviewer)      # view.token is shown only this once
    await people.authenticate(view.token)                 # Principal(id="person/ada", ...)

Tokens are 256 random bits, so a plain SHA-256 of them is stored: nobody can guess a token, which
is what a slow hash would guard against, and an index finds the hash.
"""

from __future__ import annotations

import hashlib
import secrets

from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.api import PersonView
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import Principal, Role

PREFIX = "angel_"
MAX_TOKEN = 512
OWNER = "owner"
"""The person who signs in with the server's own token; the name is reserved."""
_NOT_PEOPLE = (Role.agent, Role.node)

QUERIES = load_queries("angelos.control")


class PeopleStore:
    """The people of a system, in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, role: Role) -> PersonView:
        """Add a person and return the token, which is not stored and cannot be shown again.

        Raises:
            InvalidInput: The name or role cannot be a person's.
            Conflict: There is a person of that name, or the name is reserved.
        """
        principal = _principal(name)
        if role in _NOT_PEOPLE:
            raise InvalidInput(
                f"A person cannot be {role}.", hint="Agents and nodes are enrolled, with a key."
            )
        if name == OWNER:
            raise Conflict(
                f"{name!r} is the person who has the server's own token.",
                hint="Choose another name.",
            )
        token = PREFIX + secrets.token_urlsafe(32)
        async with self._database.transaction() as connection:
            result = await connection.execute(
                QUERIES["add_person"], {"name": name, "role": role, "token": hash_token(token)}
            )
            if result.rowcount == 0:
                raise Conflict(f"There is a person {name!r} already; nothing was changed.")
        return PersonView(id=principal, role=role, token=token)

    async def authenticate(self, token: str) -> Principal | None:
        """Return the person whose token this is now; None if it is not valid (any more)."""
        if not token or len(token) > MAX_TOKEN:
            return None
        async with self._database.transaction() as connection:
            rows = await connection.execute(
                QUERIES["person_by_token"], {"token": hash_token(token)}
            )
            row = await rows.fetchone()
        if row is None or row[1] not in Role.__members__:
            return None
        return Principal(id=PrincipalId(f"person/{row[0]}"), role=Role(row[1]))

    async def list(self) -> tuple[PersonView, ...]:
        """Return the owner and all people, by name; without tokens."""
        async with self._database.transaction() as connection:
            rows = await connection.execute(QUERIES["people"])
            people = await rows.fetchall()
        return (
            PersonView(id=PrincipalId(f"person/{OWNER}"), role=Role.admin),
            *(
                PersonView(id=PrincipalId(f"person/{name}"), role=Role(role))
                for name, role in people
            ),
        )

    async def remove(self, name: str) -> None:
        """Remove a person; the token is void at once.

        Raises:
            Conflict: It is the last admin.
            NotFound: There is no such person.
        """
        async with self._database.transaction() as connection:
            # Locks the admins, so that the last two cannot remove each other at the same time.
            rows = await connection.execute(QUERIES["lock_admins"], {"role": Role.admin})
            admins = [row[0] for row in await rows.fetchall()]
            if admins == [name]:
                raise Conflict(
                    f"{name!r} is the last admin and was not removed.",
                    hint="Make somebody else an admin first.",
                )
            result = await connection.execute(QUERIES["remove_person"], {"name": name})
            if result.rowcount == 0:
                raise NotFound(f"There is no person {name!r}.")


def hash_token(token: str) -> bytes:
    """Return the SHA-256 by which a token is stored."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _principal(name: str) -> PrincipalId:
    principal = PrincipalId(f"person/{name}")
    if not is_principal(principal):
        raise InvalidInput(
            f"{name!r} cannot be a person's name.", hint="Use letters, digits, dots and dashes."
        )
    return principal
