"""Generations in PostgreSQL (`core.ports.Generations`): what ends a principal, ends it everywhere.

    generations = GenerationStore(database, journal, clock)
    await generations.begin(PrincipalId("person/ada"))                    # generation 1
    await generations.end(PrincipalId("person/ada"), Generation(1), EndCause.logged_out)

An end is committed first: from then on every check refuses. Its fact, `principal.ended`, follows,
and cuts what is open; it has a fixed id, so that `announce` may repeat it after a crash.
"""

from __future__ import annotations

import hashlib
from typing import Any

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.facts import Fact, Kind, PrincipalEnded
from angelos.core.ids import FactId, PrincipalId, is_principal
from angelos.core.ports import Clock, Journal
from angelos.core.principals import EndCause, Generation, Standing, ended

ME = PrincipalId("system/identity")
_Q = load_queries("angelos.control")


class GenerationStore:
    """Keeps the generation of each principal in a migrated database."""

    def __init__(self, database: Database, journal: Journal, clock: Clock) -> None:
        self._database = database
        self._journal = journal
        self._clock = clock
        self._owes = True

    async def begin(self, principal: PrincipalId) -> Standing:
        """Let a new principal act, or one whose quarantine has ended, and return its standing.

        Raises:
            Conflict: The principal was removed: its id is never used again.
            InvalidInput: This is no principal's id.
        """
        async with self._database.transaction() as connection:
            return await begin_in(connection, principal)

    async def standing(self, principal: PrincipalId) -> Standing:
        """Return how a principal stands.

        Raises:
            NotFound: Nobody has had this id.
        """
        async with self._database.transaction() as connection:
            return await standing_in(connection, principal, lock=False)

    async def end(
        self,
        principal: PrincipalId,
        generation: Generation,
        cause: EndCause,
        by: PrincipalId | None = None,
    ) -> Standing:
        """End a generation and return the standing of the next.

        Raises:
            NotFound: Nobody has had this id.
            InvalidInput: There has been no such generation yet.
        """
        async with self._database.transaction() as connection:
            standing = await end_in(connection, principal, generation, cause)
        await self.announce(by)
        return standing

    async def announce(self, by: PrincipalId | None = None) -> None:
        """Append the facts of ends that are not in the journal yet."""
        self._owes = True
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(_Q["silent_standings"])).fetchall()
        silent = [_row(row) for row in rows]
        if silent:
            await self._journal.append([self._fact(standing, by) for standing in silent])
            async with self._database.transaction() as connection:
                for standing in silent:
                    values = {"principal": standing.principal, "generation": standing.generation}
                    await connection.execute(_Q["announced_standing"], values)
        self._owes = False

    async def announce_owed(self) -> None:
        """Announce again if the last time failed, or none was tried since the start."""
        if self._owes:
            await self.announce()

    def _fact(self, standing: Standing, by: PrincipalId | None) -> Fact:
        name = f"{Kind.principal_ended}\0{standing.principal}\0{standing.generation}"
        return Fact.of(
            PrincipalEnded(generation=standing.generation, active=standing.active),
            id=FactId(f"fact-{hashlib.sha256(name.encode()).hexdigest()[:32]}"),
            at=self._clock.time(),
            actor=ME,
            subject=standing.principal,
            on_behalf_of=by,
            outcome=str(standing.cause or ""),
        )


async def begin_in(connection: Connection, principal: PrincipalId) -> Standing:
    """Begin a principal within a transaction; see `GenerationStore.begin`."""
    if not is_principal(principal):
        raise InvalidInput(f"{principal[:80]!r} is no principal's id.")
    rows = await connection.execute(_Q["begin_standing"], {"principal": principal})
    row = await rows.fetchone()
    if row is None:
        raise Conflict(f"{principal} was removed; its id is never used again.")
    return _row(row)


async def end_in(
    connection: Connection, principal: PrincipalId, generation: Generation, cause: EndCause
) -> Standing:
    """End a generation within a transaction; `GenerationStore.announce` has to follow."""
    before = await standing_in(connection, principal)
    after = ended(before, generation, cause)
    if after != before:
        values = {
            "principal": principal,
            "generation": after.generation,
            "active": after.active,
            "cause": after.cause,
        }
        await connection.execute(_Q["set_standing"], values)
    return after


async def standing_in(
    connection: Connection, principal: PrincipalId, *, lock: bool = True
) -> Standing:
    """Return how a principal stands, locked for this transaction; raise `NotFound`."""
    query = "lock_standing" if lock else "standing"
    row = await (await connection.execute(_Q[query], {"principal": principal})).fetchone()
    if row is None:
        raise NotFound(f"Nobody has had the id {principal[:100]}.")
    return _row(row)


def _row(row: tuple[Any, ...]) -> Standing:
    principal, generation, active, cause = row
    return Standing(
        principal=PrincipalId(principal),
        generation=Generation(generation),
        active=active,
        cause=None if cause is None else EndCause(cause),
    )
