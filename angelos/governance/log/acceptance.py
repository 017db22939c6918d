"""Going on after damage: the sound entries begin another log, and the damaged one stays evidence.

The log's name changes, so nobody can take the new one for the old: its checkpoints, and the
witnesses' memory of it, begin anew. What was acknowledged and is still in the journal comes back
by itself, since the new log goes on after its own last entry.
"""

from __future__ import annotations

import secrets

import msgspec
from psycopg import sql

from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.errors import InvalidInput
from angelos.governance.log.merkle import Frontier

_QUERIES = load_queries("angelos.governance")
_PAGE = 5_000
MAX_REASON = 1_000


class AcceptedDamage(msgspec.Struct, frozen=True):
    """What was accepted."""

    origin: str
    """The name of the log that goes on."""
    previous: str
    reason: str
    size: int
    left_out: int
    """Entries that do not have their hash: they are in the evidence only."""
    evidence: str
    """The table that holds the damaged log."""
    at: float


async def accept_damage(database: Database, reason: str, at: float) -> AcceptedDamage:
    """Begin another log with the entries that are sound; nothing else may use the database.

    Args:
        database: Migrated.
        reason: Why, in the words of whoever accepts; kept for good.
        at: Unix seconds.

    Raises:
        InvalidInput: There is no reason, or it is too long.
    """
    if not reason.strip() or len(reason) > MAX_REASON:
        raise InvalidInput(f"Say in 1 to {MAX_REASON} characters why the damage is accepted.")
    origin = f"angelos/audit/{secrets.token_hex(16)}"
    async with database.transaction() as connection:
        await connection.execute(_QUERIES["lock_log"])
        row = await (await connection.execute("select origin from audit_head")).fetchone()
        previous = row[0] if row else "angelos/audit/unknown"
        row = await (await connection.execute(_QUERIES["logs"])).fetchone()
        evidence = f"audit_evidence_{(row[0] if row else 0) + 1}"
        table = sql.Identifier(evidence)
        await connection.execute(sql.SQL("create table {} as table audit_entry").format(table))
        for statement in _QUERIES["empty_log"].split(";"):
            await connection.execute(sql.SQL(statement))
        await connection.execute(sql.SQL(_QUERIES["sound_entries"]).format(evidence=table))
        tree = Frontier()
        while True:
            bounds = {"first": tree.size, "end": tree.size + _PAGE}
            rows = await (await connection.execute(_QUERIES["edge_leaves"], bounds)).fetchall()
            tree = tree.extend(leaf for (leaf,) in rows)
            if len(rows) < _PAGE:
                break
        await connection.execute(_QUERIES["new_head"], (origin, tree.size, tree.packed()))
        count = sql.SQL("select count(*) from {}").format(table)
        row = await (await connection.execute(count)).fetchone()
        left_out = (row[0] if row else 0) - tree.size
        accepted = AcceptedDamage(origin, previous, reason, tree.size, left_out, evidence, at)
        await connection.execute(_QUERIES["accept"], msgspec.structs.astuple(accepted))
    return accepted


async def acceptance_of(database: Database, origin: str) -> AcceptedDamage | None:
    """Return how a log came to be, if it goes on after a damaged one."""
    async with database.transaction() as connection:
        row = await (await connection.execute(_QUERIES["acceptance"], (origin,))).fetchone()
    return AcceptedDamage(origin, *row) if row else None
