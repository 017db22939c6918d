"""Going on after damage: the sound entries begin another log, and the damaged one stays evidence.

The log's name changes, so nobody can take the new one for the old: its checkpoints, and the
witnesses' memory of it, begin anew. What was acknowledged and is still in the journal comes back
by itself, since the new log goes on after its own last entry.
"""

from __future__ import annotations

import secrets

import msgspec
from psycopg import sql

from angelos.adapters.stores.entry_blocks import names_of
from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import InvalidInput
from angelos.core.ids import START, Offset, offset_key
from angelos.governance.log.merkle import Frontier, leaf_hash
from angelos.governance.log.models import Head, NewEntry
from angelos.governance.log.rows import entries_of, rows_for, write_rows

_QUERIES = load_queries("angelos.governance")
_PAGE = 4_096
_TYPES = ("int8", "int8", "bytea", "bytea", "bytea", "bytea")
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
        await connection.execute(sql.SQL(_QUERIES["keep_evidence"]).format(evidence=table))
        for statement in _QUERIES["empty_log"].split(";"):
            await connection.execute(sql.SQL(statement))
        entries = await _gather(connection, table)
        head = await _rewrite(connection)
        row = (origin, head.tree.size, head.tree.packed(), *offset_key(head.offset))
        await connection.execute(_QUERIES["new_head"], row)
        left_out = entries - head.tree.size
        accepted = AcceptedDamage(origin, previous, reason, head.tree.size, left_out, evidence, at)
        await connection.execute(_QUERIES["accept"], msgspec.structs.astuple(accepted))
    return accepted


async def acceptance_of(database: Database, origin: str) -> AcceptedDamage | None:
    """Return how a log came to be, if it goes on after a damaged one."""
    async with database.transaction() as connection:
        row = await (await connection.execute(_QUERIES["acceptance"], (origin,))).fetchone()
    return AcceptedDamage(origin, *row) if row else None


async def _gather(connection: Connection, evidence: sql.Identifier) -> int:
    """Collect the sound entries of the damaged log; return how many it has, sound or not."""
    await connection.execute(_QUERIES["gather"])
    query = sql.SQL(_QUERIES["evidence"]).format(evidence=evidence)
    entries, after = 0, 0
    while row := await (await connection.execute(query, (after,))).fetchone():
        after, *stored = row
        rows = entries_of([stored], stored[0])
        entries += len(rows)
        sound = [
            (*offset_key(names.offset), *msgspec.structs.astuple(entry)[1:])
            for entry in rows
            if leaf_hash(entry.body) == entry.leaf and (names := names_of(entry.body)) is not None
        ]
        async with connection.cursor() as cursor, cursor.copy(_QUERIES["copy_sound"]) as copy:
            copy.set_types(_TYPES)
            for line in sound:
                await copy.write_row(line)
    return entries


async def _rewrite(connection: Connection) -> Head:
    """Begin the log again with the sound entries, in the order of the journal, each once."""
    tree, last = Frontier(), START
    while True:
        result = await connection.execute(_QUERIES["sound_entries"], (*offset_key(last), _PAGE))
        rows = await result.fetchall()
        entries = [NewEntry(Offset(f"{ms}-{seq}"), *entry) for *entry, ms, seq in rows]
        if not entries:
            return Head("", tree, last)
        await write_rows(connection, await rows_for(connection, tree.size, entries))
        tree, last = tree.extend(entry.leaf for entry in entries), entries[-1].offset
