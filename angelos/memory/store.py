"""Memories in PostgreSQL with pgvector.

For example:

    store = MemoryStore(database, MemoryConfig())
    row = await store.add(draft)
    rows = await store.by_text(("shared",), "tls", now)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.ids import START, Offset, PrincipalId
from angelos.core.memories import MemoryId, MemoryView, SupersedeCause
from angelos.memory.config import MemoryConfig

_Q = load_queries("angelos.memory")
_FIELDS = (
    "id",
    "namespace",
    "text",
    "by",
    "at",
    "confirmed_at",
    "confirmations",
    "task",
    "repo",
    "revision",
    "expires_at",
    "superseded_by",
    "superseded_at",
    "superseded_cause",
)


class Draft(NamedTuple):
    """A memory that is to be added, with its vector."""

    view: MemoryView
    normal: str
    vector: Sequence[float]
    model: str


class Version(NamedTuple):
    """One of the memories that go when another is forgotten."""

    id: MemoryId
    namespace: str
    by: PrincipalId


class MemoryStore:
    """The table of memories, in a migrated database."""

    def __init__(self, database: Database, config: MemoryConfig) -> None:
        self._database = database
        self._config = config

    async def get(self, memory: MemoryId, now: float) -> MemoryView | None:
        """Return a memory, superseded or not, unless it is expired or unknown."""
        rows = await self._rows("get", {"id": memory, "now": now})
        return view_of(rows[0]) if rows else None

    async def is_forgotten(self, memory: MemoryId) -> bool:
        """Return whether a memory of this id is gone for ever."""
        return bool(await self._rows("tombstone", {"id": memory}))

    async def add(self, draft: Draft) -> bool:
        """Add a memory; return False if its id, or its text in its namespace, is there already."""
        async with self._database.transaction() as connection:
            return await _add(connection, draft)

    async def same(self, namespace: str, normal: str) -> MemoryId | None:
        """Return the memory with a text that only looks different."""
        rows = await self._rows("same", {"namespace": namespace, "normal": normal})
        return MemoryId(rows[0][0]) if rows else None

    async def near(self, draft: Draft, now: float, limit: int) -> list[tuple[MemoryView, float]]:
        """Return a namespace's memories by cosine similarity to a draft, nearest first."""
        view = draft.view
        rows = await self._searched(
            "near",
            {
                "namespace": view.namespace,
                "embedding": literal(draft.vector),
                "model": draft.model,
                "id": view.id,
                "now": now,
                "limit": limit,
            },
        )
        return [(view_of(row), row[-1]) for row in rows]

    async def confirm(self, memory: MemoryId, at: float, expires_at: float | None) -> bool:
        """Count that a memory was said again; return False if it is not recalled any more."""
        values = {"id": memory, "at": at, "expires_at": expires_at}
        return bool(await self._rows("confirm", values))

    async def by_vector(
        self, namespaces: Sequence[str], vector: Sequence[float], model: str, now: float
    ) -> list[MemoryView]:
        """Return the memories nearest to a vector."""
        values = {"embedding": literal(vector), "model": model}
        return await self._found("by_vector", namespaces, now, values)

    async def by_text(self, namespaces: Sequence[str], query: str, now: float) -> list[MemoryView]:
        """Return the memories with words of a query, best first."""
        return await self._found("by_text", namespaces, now, {"query": query})

    async def page(
        self, namespace: str, before: str, limit: int, now: float, *, superseded: bool
    ) -> list[MemoryView]:
        """Return a namespace's memories, newest first."""
        values = {
            "namespace": namespace,
            "before": before,
            "limit": limit,
            "now": now,
            "all": superseded,
        }
        return [view_of(row) for row in await self._rows("page", values)]

    async def correct(self, draft: Draft, old: MemoryId) -> bool:
        """Add a memory in the place of another; return False if that is superseded already."""
        async with self._database.transaction() as connection:
            values = {"id": old, "by": draft.view.id, "at": draft.view.at}
            await connection.execute("set constraints all deferred")
            if not await _add(connection, draft):
                return False
            cursor = await connection.execute(
                _Q["supersede"], {**values, "cause": SupersedeCause.corrected}
            )
            if await cursor.fetchone() is None:
                await connection.rollback()
                return False
        return True

    async def merge(self, old: MemoryId, into: MemoryId, at: float) -> bool:
        """Let one memory stand for another; return False if that is superseded already.

        It then stays as long as either would have stayed, and was said as often as both.
        """
        values = {"id": old, "by": into, "at": at, "cause": SupersedeCause.merged}
        async with self._database.transaction() as connection:
            cursor = await connection.execute(_Q["supersede"], values)
            if await cursor.fetchone() is None:
                return False
            await connection.execute(_Q["absorb"], {"old": old, "into": into})
        return True

    async def unmerged(
        self, namespace: str, model: str, after: str, limit: int
    ) -> list[tuple[MemoryId, str, str]]:
        """Return ids, texts and vectors (as PostgreSQL writes them) of a namespace, by id."""
        values = {"namespace": namespace, "model": model, "after": after, "limit": limit}
        rows = await self._rows("unmerged", values)
        return [(MemoryId(row[0]), row[2], row[3]) for row in rows]

    async def versions(self, ids: Sequence[MemoryId]) -> list[Version]:
        """Return memories with everything that they supersede."""
        return [Version(*row) for row in await self._rows("versions", {"ids": list(ids)})]

    async def forget(self, ids: Sequence[MemoryId], namespace: str, at: float) -> None:
        """Delete memories; their ids are never used again."""
        async with self._database.transaction() as connection:
            values: dict[str, Any] = {"ids": list(ids), "namespace": namespace, "at": at}
            await connection.execute(_Q["bury"], values)
            await connection.execute(_Q["forget"], values)

    async def expired(self, now: float, limit: int) -> list[tuple[MemoryId, str]]:
        """Return memories whose time is over, with their namespaces."""
        rows = await self._rows("expired", {"now": now, "limit": limit})
        return [(MemoryId(row[0]), row[1]) for row in rows]

    async def count(self) -> int:
        """Return how many memories can be recalled."""
        return (await self._rows("count", {}))[0][0]

    async def cursor(self) -> Offset:
        """Return how far the journal's tombstones are carried out."""
        rows = await self._rows("cursor", {})
        return Offset(rows[0][0]) if rows else START

    async def move_cursor(self, offset: Offset) -> None:
        """Keep how far the journal's tombstones are carried out."""
        async with self._database.transaction() as connection:
            await connection.execute(_Q["move_cursor"], {"offset": offset})

    async def _found(
        self, query: str, namespaces: Sequence[str], now: float, values: dict[str, Any]
    ) -> list[MemoryView]:
        limits = {"namespaces": list(namespaces), "now": now, "limit": self._config.candidates}
        return [view_of(row) for row in await self._searched(query, {**values, **limits})]

    async def _searched(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query that may use the vector index."""
        async with self._database.transaction() as connection:
            await connection.execute(
                "select set_config('hnsw.ef_search', %s, true),"
                " set_config('hnsw.iterative_scan', 'strict_order', true)",
                (str(self._config.search_width),),
            )
            return await (await connection.execute(_Q[query], values)).fetchall()

    async def _rows(self, query: str, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        async with self._database.transaction() as connection:
            return await (await connection.execute(_Q[query], values)).fetchall()


async def has_pgvector(database: Database) -> bool:
    """Return whether the database has the extension `vector`, or we may make it."""
    async with database.transaction() as connection:
        cursor = await connection.execute(
            "select from pg_available_extension_versions where name = 'vector' and (installed"
            " or trusted or (select rolsuper from pg_roles where rolname = current_user))"
        )
        return bool(await cursor.fetchall())


def literal(vector: Sequence[float]) -> str:
    """Return a vector as pgvector reads it."""
    return "[" + ",".join(f"{value:.7g}" for value in vector) + "]"


def view_of(row: Sequence[Any]) -> MemoryView:
    """Return the view of a row; columns behind its own are ignored."""
    values = dict(zip(_FIELDS, row, strict=False))
    if values["superseded_cause"] is not None:
        values["superseded_cause"] = SupersedeCause(values["superseded_cause"])
    return MemoryView(**values)


async def _add(connection: Connection, draft: Draft) -> bool:
    view = draft.view
    cursor = await connection.execute(
        _Q["add"],
        {
            "id": view.id,
            "namespace": view.namespace,
            "text": view.text,
            "normal": draft.normal,
            "embedding": literal(draft.vector),
            "model": draft.model,
            "by": view.by,
            "at": view.at,
            "task": view.task,
            "repo": view.repo,
            "revision": view.revision,
            "expires_at": view.expires_at,
        },
    )
    return await cursor.fetchone() is not None
