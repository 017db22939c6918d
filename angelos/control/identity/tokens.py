"""Tokens beside a person's own: scoped, expiring, created, listed and revoked.

    tokens = TokenStore(database, clock)
    view = await tokens.create(ada, label="nightly", scopes=(Permission.tasks_run,), ttl_s=3600)
    principal = await tokens.authenticate(view.token)     # ada, who may run tasks and no more
    await tokens.revoke(ada, view.id)

A token acts as its person, never as more: it may do what both its scopes and the role at the time
of use allow, until it expires, is revoked, or the generation ends under which it was made. Only
its SHA-256 is stored (256 random bits need no slow hash).

A kernel's token is made by whoever starts the kernel, for the signed-in person who asked for it,
and written to a file that only that kernel can read:

    view = await server.people.tokens.create(
        principal, label=f"kernel {kernel_id}", kind=SessionKind.kernel, ttl_s=3600)
    ...                                                   # renew: create the next, write the file
    await server.people.tokens.revoke(principal, view.id)     # when the kernel ends

Without `scopes` it has `KERNEL_SCOPES`: what a researcher does from a notebook. Reviewing and
administration are left out, since code that an agent wrote runs in that kernel and could approve
itself. The person's page, which code in a kernel cannot reach, does those.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.control.identity.generations import begin_in, standing_in
from angelos.control.identity.secrets import hash_token
from angelos.core.api import TokenView
from angelos.core.errors import Busy, Forbidden, InvalidInput, NotFound, Unauthenticated
from angelos.core.ids import PrincipalId, uuid7
from angelos.core.permissions import Permission, Principal, Role, granted
from angelos.core.ports import Clock
from angelos.core.principals import Generation, SessionKind, Standing

PREFIX = "angelt_"
MAX_TTL_S = 30 * 24 * 3600
MAX_KERNEL_TTL_S = 24 * 3600
MAX_TOKENS = 200
"""That one principal may have at a time."""
_NOT_FROM_A_KERNEL = frozenset(
    {
        Permission.proposals_review,
        Permission.revisions_rollback,
        Permission.principals_enrol,
        Permission.principals_quarantine,
        Permission.people_manage,
        Permission.tokens_manage,
        Permission.jupyter_use,
    }
)
KERNEL_SCOPES = frozenset(Permission) - _NOT_FROM_A_KERNEL

_Q = load_queries("angelos.control")


class TokenStore:
    """The tokens of principals, in a migrated database."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        principal: Principal,
        *,
        label: str = "",
        scopes: Collection[Permission] = (),
        kind: SessionKind = SessionKind.token,
        ttl_s: float = 3600,
    ) -> TokenView:
        """Make a token; its secret is in `token`, and cannot be shown again.

        Args:
            principal: Whose token it is, as the server established them.
            label: For people to recognise it by.
            scopes: What it may do; by default all that `principal` may, and `KERNEL_SCOPES` of
                that for a kernel.
            kind: `token` or `kernel`.
            ttl_s: Seconds until it expires; never longer than the token that asks for it.

        Raises:
            InvalidInput: The kind or the time is out of bounds.
            Forbidden: `principal` may not do all of `scopes`.
            Unauthenticated: The principal's session has ended meanwhile.
            Busy: There are too many tokens already.
        """
        allowed = granted(principal)
        if kind is SessionKind.kernel:
            allowed &= KERNEL_SCOPES
        _check(principal, kind, scopes, ttl_s, allowed)
        now, secret = self._clock.time(), PREFIX + secrets.token_urlsafe(32)
        expires_at = min(now + ttl_s, principal.expires_at or now + ttl_s)
        view = TokenView(
            id=f"tok-{uuid7(int(now * 1000))}",
            principal=principal.id,
            kind=kind,
            label=label[:200],
            scopes=tuple(sorted(set(scopes) or allowed)),
            created_at=now,
            expires_at=expires_at,
            token=secret,
        )
        await self._add(view, principal)
        return view

    async def _add(self, view: TokenView, principal: Principal) -> None:
        generation = principal.generation
        async with self._database.transaction() as connection:
            # Of the principal's row, which `end` locks too: nothing is made for what is over.
            standing = await _present(connection, view.principal)
            if not standing.active or generation not in {0, standing.generation}:
                raise Unauthenticated(f"The session of {view.principal} is over.")
            await connection.execute(_Q["clear_tokens"], {"now": view.created_at})
            rows = await connection.execute(_Q["count_tokens"], {"principal": view.principal})
            count = await rows.fetchone()
            if count is not None and count[0] >= MAX_TOKENS:
                raise Busy(
                    f"{view.principal} has {MAX_TOKENS} tokens; no more was made.",
                    hint="Revoke some.",
                )
            await connection.execute(
                _Q["add_token"],
                {
                    "id": view.id,
                    "principal": view.principal,
                    "generation": standing.generation,
                    "role": principal.role,
                    "kind": view.kind,
                    "label": view.label,
                    "scopes": [str(scope) for scope in view.scopes],
                    "secret": hash_token(view.token),
                    "now": view.created_at,
                    "expires_at": view.expires_at,
                },
            )

    async def authenticate(self, token: str) -> Principal | None:
        """Return whose token this is, with its scopes; None if it is not valid (any more)."""
        async with self._database.transaction() as connection:
            values = {"secret": hash_token(token), "now": self._clock.time()}
            row = await (await connection.execute(_Q["token_by_secret"], values)).fetchone()
        if row is None:
            return None
        id_, principal, generation, scopes, expires_at, role, kind = row
        if role not in set(Role):
            return None
        return Principal(
            id=PrincipalId(principal),
            role=Role(role),
            generation=Generation(generation),
            # A scope that this version does not know allows nothing.
            scopes=frozenset(Permission(s) for s in scopes if s in set(Permission)),
            session=id_,
            kernel=kind == SessionKind.kernel,
            expires_at=expires_at,
        )

    async def list(self, principal: PrincipalId) -> tuple[TokenView, ...]:
        """Return the tokens that are valid now, oldest first, without their secrets."""
        async with self._database.transaction() as connection:
            values = {"principal": principal, "now": self._clock.time()}
            rows = await (await connection.execute(_Q["tokens"], values)).fetchall()
        return tuple(_view(row) for row in rows)

    async def revoke(self, principal: PrincipalId, token: str) -> None:
        """Void one of a principal's tokens, by its id; raise `NotFound` if there is no such."""
        async with self._database.transaction() as connection:
            values = {"principal": principal, "id": token}
            result = await connection.execute(_Q["revoke_token"], values)
        if result.rowcount == 0:
            raise NotFound(f"{principal} has no token {token[:80]!r}.")


async def _present(connection: Connection, principal: PrincipalId) -> Standing:
    """Return the standing, locked; the first of a person whom another provider signed in."""
    try:
        return await standing_in(connection, principal)
    except NotFound:
        return await begin_in(connection, principal)


def _check(
    principal: Principal,
    kind: SessionKind,
    scopes: Collection[Permission],
    ttl_s: float,
    allowed: frozenset[Permission],
) -> None:
    """Refuse a token that is more than its maker, or of the wrong form."""
    if not principal.id.startswith("person/"):
        raise Forbidden(f"{principal.id} has a certificate; tokens are for people.")
    longest = {SessionKind.token: MAX_TTL_S, SessionKind.kernel: MAX_KERNEL_TTL_S}.get(kind)
    if longest is None:
        raise InvalidInput(f"There are no tokens of the kind {kind}.")
    if not 1 <= ttl_s <= longest:
        raise InvalidInput(f"A {kind} token lives 1 to {longest} seconds, not {ttl_s:g}.")
    if more := sorted(set(scopes) - allowed):
        raise Forbidden(
            f"A token may not do more than you may here: {', '.join(more)}. None was made."
        )


def _view(row: tuple[Any, ...]) -> TokenView:
    id_, principal, kind, label, scopes, created_at, expires_at = row
    return TokenView(
        id=id_,
        principal=PrincipalId(principal),
        kind=SessionKind(kind),
        label=label,
        scopes=tuple(Permission(scope) for scope in scopes if scope in set(Permission)),
        created_at=created_at,
        expires_at=expires_at,
    )
