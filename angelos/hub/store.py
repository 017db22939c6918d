"""Identities in PostgreSQL: principals, certificates, enrolment tokens, quarantines.

    identities = Identities(database, clock)
    peer = await identities.check(PrincipalId("node/exec1"), serial)

Every change to a principal holds the same advisory lock, so that an enrolment and a quarantine of
it cannot interleave. Nothing is cached: what PostgreSQL does not confirm is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

from angelos.adapters.identity.authority import Issued
from angelos.adapters.stores.gather import Gather
from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import Conflict, Unauthenticated
from angelos.core.ids import FactId, PrincipalId, new_fact_id
from angelos.core.permissions import Principal
from angelos.core.ports import Clock
from angelos.hub.models import Peer, QuarantineRecord, role_of

_Q = load_queries("angelos.hub")
_KEEP_USED_S = 24 * 3600
QUARANTINED = "quarantined"
_QUESTIONS = 256
"""At most so many certificates are asked for at once."""


class _Question:
    """Somebody who asks whether a certificate is valid."""

    def __init__(self, principal: PrincipalId, serial: str) -> None:
        self.principal, self.serial = principal, serial
        self.row: asyncio.Future[tuple[Any, ...] | None]
        self.row = asyncio.get_running_loop().create_future()


class Identities:
    """The principals that may connect, in a migrated database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._questions = Gather(self._ask, lambda _: 1, _QUESTIONS, 1)

    async def check(self, principal: PrincipalId, serial: str) -> Peer:
        """Return the peer if its certificate is valid; raise `Unauthenticated` otherwise."""
        row = await self._row_of(principal, serial)
        if row is None:
            raise Unauthenticated(f"No certificate with this serial was issued to {principal}.")
        node_role, not_after, denied, reason = row
        if reason is not None:
            raise _refused(principal, reason)
        if denied or not_after < self._clock.time():
            raise Unauthenticated(
                f"The certificate of {principal} is {'revoked' if denied else 'expired'}.",
                hint="Join again with a new token.",
            )
        return Peer(
            principal=Principal(id=principal, role=role_of(principal), serial=serial),
            node_role=node_role,
            not_after=not_after,
        )

    async def _row_of(self, principal: PrincipalId, serial: str) -> tuple[Any, ...] | None:
        """Return (node role, end, denied, reason of a quarantine) of a certificate, if issued.

        All who ask while one question is under way share the next: in a storm of reconnects a
        transaction each would cost more than the handshakes.
        """
        question = _Question(principal, serial)
        self._questions.add(question)
        return await question.row

    async def _ask(self, questions: list[_Question]) -> None:
        try:
            async with self._database.transaction() as connection:
                serials = [question.serial for question in questions]
                cursor = await connection.execute(_Q["valid_certificates"], {"serials": serials})
                rows = {(row[0], row[1]): row[2:] for row in await cursor.fetchall()}
        except Exception as error:  # noqa: BLE001 - raised where it was asked
            for question in questions:
                if not question.row.done():  # it is, where whoever asked has left
                    question.row.set_exception(error)
        else:
            for question in questions:
                if not question.row.done():
                    question.row.set_result(rows.get((question.serial, question.principal)))

    async def is_live(self, principal: PrincipalId) -> bool:
        """Return whether somebody holds a valid certificate of this name."""
        async with self._database.transaction() as connection:
            return await self._live(connection, principal)

    async def enrolled(self) -> set[PrincipalId]:
        """Return every name that was ever enrolled."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(_Q["enrolled"])).fetchall()
        return {PrincipalId(name) for (name,) in rows}

    async def add_enrolment(
        self,
        secret: str,
        principal: PrincipalId,
        node_role: str,
        by: PrincipalId,
        ttl_s: float,
        *,
        replaces: bool = False,
    ) -> float:
        """Store a token's secret (hashed) and return when it expires.

        Args:
            secret: Of the token.
            principal: Whom it enrols.
            node_role: Of a node.
            by: Who asked for it.
            ttl_s: Seconds until it expires.
            replaces: Whether it may take over the name of somebody who is live.

        Raises:
            Conflict: The name is live.
            Unauthenticated: The name is quarantined.
        """
        now = self._clock.time()
        async with self._database.transaction() as connection:
            await self._lock(connection, principal)
            if not replaces and await self._live(connection, principal):
                raise _live(principal)
            await connection.execute(_Q["clear_enrolments"], {"before": now - _KEEP_USED_S})
            await connection.execute(
                _Q["add_enrolment"],
                {
                    "secret": _sha256(secret),
                    "principal": principal,
                    "node_role": node_role,
                    "by": by,
                    "replaces": replaces,
                    "expires_at": now + ttl_s,
                },
            )
        return now + ttl_s

    async def enrol(
        self, secret: str, issue: Callable[[PrincipalId], Issued]
    ) -> tuple[PrincipalId, str, PrincipalId, Issued]:
        """Use up a token; return (its principal, node role and creator, the certificate).

        All or nothing: an error of `issue` leaves the token unused.

        Raises:
            Unauthenticated: the token is unknown, used or expired, or its name is quarantined.
        """
        values = {"secret": _sha256(secret), "now": self._clock.time()}
        async with self._database.transaction() as connection:
            named = await _one(connection, "find_enrolment", **values)
            if named is None:
                raise _bad_token()
            await self._lock(connection, named[0])
            used = await _one(connection, "use_enrolment", **values)
            if used is None:
                raise _bad_token()
            if not used[3] and await self._live(connection, PrincipalId(named[0])):
                raise _live(PrincipalId(named[0]))
            principal, node_role, by = PrincipalId(used[0]), str(used[1]), PrincipalId(used[2])
            await connection.execute(
                _Q["put_principal"], {"principal": principal, "node_role": node_role, **values}
            )
            issued = await self._certify(connection, principal, issue)
        return principal, node_role, by, issued

    async def _live(self, connection: Connection, principal: PrincipalId) -> bool:
        values = {"principal": principal, "now": self._clock.time()}
        return await _one(connection, "live_certificate", **values) is not None

    async def renew(self, principal: PrincipalId, issue: Callable[[PrincipalId], Issued]) -> Issued:
        """Issue one more certificate to an enrolled principal; raise if it is quarantined."""
        async with self._database.transaction() as connection:
            await self._lock(connection, principal)
            return await self._certify(connection, principal, issue)

    async def _certify(
        self, connection: Connection, principal: PrincipalId, issue: Callable[[PrincipalId], Issued]
    ) -> Issued:
        issued = issue(principal)
        row = {
            "serial": issued.serial,
            "principal": principal,
            "not_after": issued.not_after,
            "now": self._clock.time(),
        }
        await connection.execute(_Q["clear_certificates"], row)
        await connection.execute(_Q["add_certificate"], row)
        return issued

    # -- quarantine --------------------------------------------------------------------------

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        """Return whether a principal is quarantined."""
        async with self._database.transaction() as connection:
            return await _one(connection, "find_quarantine", principal=principal) is not None

    async def quarantine(self, principal: PrincipalId, reason: str) -> QuarantineRecord:
        """Deny a principal's certificates and tokens. Idempotent."""
        now = self._clock.time()
        async with self._database.transaction() as connection:
            await self._lock(connection, principal, refuse=False)
            row = {
                "principal": principal,
                "reason": reason,
                "now": now,
                "fact": new_fact_id(int(now * 1000)),
            }
            await connection.execute(_Q["add_quarantine"], row)
            await connection.execute(_Q["deny_certificates"], row)
            await connection.execute(_Q["void_enrolments"], row)
            stored = await _one(connection, "get_quarantine", principal=principal)
        assert stored is not None  # noqa: S101 - inserted above, under the lock
        return _quarantine(stored)

    async def quarantine_of(self, principal: PrincipalId) -> QuarantineRecord | None:
        """Return a principal's quarantine, if there is one."""
        async with self._database.transaction() as connection:
            row = await _one(connection, "get_quarantine", principal=principal)
        return None if row is None else _quarantine(row)

    async def silent_quarantines(self) -> list[QuarantineRecord]:
        """Return those whose fact may not be in the journal, after a crash in between."""
        async with self._database.transaction() as connection:
            rows = await (await connection.execute(_Q["silent_quarantines"])).fetchall()
        return [_quarantine(row) for row in rows]

    async def announced(self, fact: FactId) -> None:
        """Record that a quarantine's fact is in the journal."""
        async with self._database.transaction() as connection:
            await connection.execute(_Q["announced"], {"fact": fact})

    async def knows(self, principal: PrincipalId) -> bool:
        """Return whether a principal was ever enrolled, has a token to be, or is quarantined."""
        async with self._database.transaction() as connection:
            return await _one(connection, "knows", principal=principal) is not None

    async def release(self, quarantine: QuarantineRecord, *, new_key: bool) -> None:
        """End exactly this quarantine; certificates are good again, or forgotten with `new_key`."""
        async with self._database.transaction() as connection:
            await self._lock(connection, quarantine.principal, refuse=False)
            values = {"principal": quarantine.principal, "fact": quarantine.fact}
            ended = await connection.execute(_Q["end_quarantine"], values)
            if ended.rowcount:
                query = "forget_certificates" if new_key else "allow_certificates"
                await connection.execute(_Q[query], values)

    async def _lock(self, connection: Connection, principal: str, *, refuse: bool = True) -> None:
        """Lock the principal for this transaction; with `refuse`, raise if it is quarantined."""
        await connection.execute(_Q["lock"], {"principal": principal})
        row = await _one(connection, "find_quarantine", principal=principal) if refuse else None
        if row is not None:
            raise _refused(principal, row[0])


async def _one(connection: Connection, query: str, **values: Any) -> tuple[Any, ...] | None:
    return await (await connection.execute(_Q[query], values)).fetchone()


def _quarantine(row: tuple[Any, ...]) -> QuarantineRecord:
    principal, reason, at, fact, announced = row
    return QuarantineRecord(
        principal=principal, reason=reason, at=at, fact=FactId(fact), announced=announced
    )


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _bad_token() -> Unauthenticated:
    return Unauthenticated(
        "The enrolment token is unknown, used or expired.", hint="Ask for a new one."
    )


def _live(principal: PrincipalId) -> Conflict:
    kind, _, name = principal.partition("/")
    return Conflict(
        f"{principal} is alive, and its name is not given to anybody else; no token was made.",
        hint=f"Shut it out first: `angelos {kind} quarantine {name}`, then `release`.",
    )


def _refused(principal: str, reason: str) -> Unauthenticated:
    return Unauthenticated(
        f"{principal} is quarantined: {reason.rstrip('.')}.",
        hint="Two people can release it: `angelos agent release NAME`.",
        reason=QUARANTINED,
    )
