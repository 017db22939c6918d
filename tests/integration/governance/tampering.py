"""Changes of the stored log that only a superuser can make: with its triggers off."""

from __future__ import annotations

import hashlib

from psycopg import sql

from angelos.adapters.stores.entry_blocks import AuditLeaf, Packed, pack, unpack

_ROW = "select first, leaves, bodies, data from {} where first <= %s and first + count > %s"
_PUT = """insert into {} (first, count, first_ms, first_seq, last_ms, last_seq, raw, leaves, bodies,
data) values (%s, %s, 0, 0, 0, 0, 0, %s, %s, %s)"""


async def tamper(database, *changes):
    """Make changes: SQL, or functions of a connection."""
    async with database.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        for change in changes:
            if callable(change):
                await change(connection)
            else:
                await connection.execute(change)


async def entries_of(database):
    """Return (index, body, leaf) of every entry that can be read, in order."""
    async with database.transaction() as connection:
        result = await connection.execute(
            "select first, leaves, bodies, data from audit_row order by first"
        )
        rows = await result.fetchall()
    return [
        (first + place, entry.body, entry.leaf)
        for first, *columns in rows
        for place, entry in enumerate(unpack(Packed(*columns)))
    ]


def changed(index):
    """Change the body of an entry, and nothing else."""
    return _edit(index, lambda e, at: _with(e, at, e[at]._replace(body=e[at].body + b"x")))


def replaced(index):
    """Put another entry in the place of one, with its own hash."""
    other = AuditLeaf(b"x", hashlib.sha256(b"\0x").digest(), bytes(32), b"")
    return _edit(index, lambda e, at: _with(e, at, other))


def swapped(index):
    """Exchange an entry and the one after it."""
    return _edit(index, lambda e, at: [*e[:at], e[at + 1], e[at], *e[at + 2 :]])


def removed(index):
    """Take an entry out; those beside it stay in their places."""

    async def change(connection):
        table, first, entries = await _row(connection, index)
        await _delete(connection, table, first)
        await _put(connection, table, first, entries[: index - first])
        await _put(connection, table, index + 1, entries[index - first + 1 :])

    return change


def _edit(index, edit):
    async def change(connection):
        table, first, entries = await _row(connection, index)
        packed = pack(edit(entries, index - first))
        put = sql.SQL("update {} set leaves = %s, bodies = %s, data = %s where first = %s")
        await connection.execute(put.format(table), (*packed, first))

    return change


def _with(entries, place, entry):
    return [*entries[:place], entry, *entries[place + 1 :]]


async def _row(connection, index):
    for name in ("audit_block", "audit_tail"):
        table = sql.Identifier(name)
        result = await connection.execute(sql.SQL(_ROW).format(table), (index, index))
        if row := await result.fetchone():
            first, *columns = row
            return table, first, unpack(Packed(*columns))
    raise AssertionError(index)


async def _delete(connection, table, first):
    await connection.execute(sql.SQL("delete from {} where first = %s").format(table), (first,))


async def _put(connection, table, first, entries):
    if entries:
        row = (first, len(entries), *pack(entries))
        await connection.execute(sql.SQL(_PUT).format(table), row)
