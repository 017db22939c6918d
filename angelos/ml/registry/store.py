"""The registry in PostgreSQL.

async with store.moving("sentinel") as move:          # the role's row is locked
move.aliases = promoted(move.aliases, 3)
await move.record(fact)                           # with the change, or not at all
await store.flush()                                   # into the journal
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from angelos.adapters.stores.postgres import Connection, Database, load_queries
from angelos.core.errors import Conflict, NotFound
from angelos.core.facts import Fact
from angelos.core.messages import decode, encode
from angelos.core.models import ModelAliases, ModelVersion, PromotionView
from angelos.core.ports import Journal
from angelos.ml.registry.state import TrainingRun

_Q = load_queries("angelos.ml")
T = TypeVar("T")
MAX_VERSIONS = 1_000


class AliasMove:
    """One transaction that may move the aliases of one role."""

    def __init__(self, connection: Connection, aliases: ModelAliases) -> None:
        self._connection = connection
        self.aliases = aliases

    async def next_version(self) -> int:
        """Return the number of a new version."""
        rows = await self._rows("last_version", {"role": self.aliases.role})
        return rows[0][0] + 1

    async def add_version(self, version: ModelVersion, evidence: str) -> None:
        """Keep a version; `evidence` names the texts that judged it."""
        values = {
            "role": version.role,
            "version": version.version,
            "sha256": version.sha256,
            "body": msgspec.json.encode(version),
            "evidence": evidence,
        }
        await self._connection.execute(_Q["add_version"], values)

    async def promotion(self, promotion: str) -> PromotionView:
        """Return a promotion as it is now; raise `NotFound`."""
        return _one(await self._rows("promotion", {"id": promotion}), PromotionView, promotion)

    async def open_promotion(self) -> PromotionView | None:
        """Return the promotion of this role that is not decided."""
        rows = await self._rows("open_promotions", {"role": self.aliases.role})
        return _of(rows[0], PromotionView) if rows else None

    async def put_promotion(self, promotion: PromotionView) -> None:
        """Keep a promotion as it is now."""
        values = {
            "id": promotion.id,
            "role": promotion.role,
            "version": promotion.version,
            "open": promotion.state in {"waiting", "canary"},
            "body": msgspec.json.encode(promotion),
        }
        await self._connection.execute(_Q["put_promotion"], values)

    async def put_run(self, run: TrainingRun) -> None:
        """Keep a training run as it is now."""
        await _put_run(self._connection, run)

    async def record(self, fact: Fact) -> None:
        """Keep a fact for the journal, with the rest of this transaction or not at all."""
        await self._connection.execute(_Q["add_fact"], {"body": encode(fact)})

    async def _rows(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        return await (await self._connection.execute(_Q[query], values)).fetchall()


class RegistryStore:
    """The tables of role models, in a migrated database."""

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal

    @asynccontextmanager
    async def moving(self, role: str) -> AsyncIterator[AliasMove]:
        """Yield a transaction in which nobody else moves the role's aliases."""
        async with self._database.transaction() as connection:
            fresh = msgspec.json.encode(ModelAliases(role=role))
            await connection.execute(_Q["add_role"], {"role": role, "body": fresh})
            row = await (await connection.execute(_Q["lock_role"], {"role": role})).fetchone()
            if row is None:
                raise Conflict(f"The role {role} was removed just now; ask again.")
            move = AliasMove(connection, _of(row, ModelAliases))
            yield move
            body = msgspec.json.encode(move.aliases)
            await connection.execute(_Q["move_aliases"], {"role": role, "body": body})
        await self.flush()

    async def flush(self) -> None:
        """Append the facts that the journal has yet to take; an id that it has counts once."""
        while rows := await self._rows("facts", {}):
            await self._journal.append([decode(bytes(row[1]), Fact) for row in rows])
            async with self._database.transaction() as connection:
                await connection.execute(_Q["drop_facts"], {"numbers": [row[0] for row in rows]})

    async def aliases(self, role: str) -> ModelAliases:
        """Return what the aliases of a role name."""
        rows = await self._rows("aliases", {"role": role})
        return _of(rows[0], ModelAliases) if rows else ModelAliases(role=role)

    async def version(self, role: str, version: int) -> tuple[ModelVersion, str]:
        """Return a version and the name of the texts that judged it; raise `NotFound`."""
        rows = await self._rows("version", {"role": role, "version": version})
        return _one(rows, ModelVersion, f"{role}:{version}"), rows[0][1]

    async def versions(self, role: str, limit: int) -> list[ModelVersion]:
        """Return versions of a role, or of all (an empty one), newest first."""
        rows = await self._rows("versions", {"role": role, "limit": limit})
        return [_of(row, ModelVersion) for row in rows]

    async def promotion(self, promotion: str) -> PromotionView:
        """Return a promotion; raise `NotFound`."""
        return _one(await self._rows("promotion", {"id": promotion}), PromotionView, promotion)

    async def promotions(self, role: str, limit: int) -> list[PromotionView]:
        """Return promotions of a role, newest first."""
        rows = await self._rows("promotions", {"role": role, "limit": limit})
        return [_of(row, PromotionView) for row in rows]

    async def open_promotions(self) -> list[PromotionView]:
        """Return the promotions that are not decided."""
        rows = await self._rows("open_promotions", {"role": ""})
        return [_of(row, PromotionView) for row in rows]

    async def run(self, run: str) -> TrainingRun:
        """Return a training run; raise `NotFound`."""
        return _one(await self._rows("run", {"id": run}), TrainingRun, run)

    async def runs(self, limit: int) -> list[TrainingRun]:
        """Return training runs, newest first."""
        return [_of(row, TrainingRun) for row in await self._rows("runs", {"limit": limit})]

    async def open_runs(self) -> list[TrainingRun]:
        """Return the training runs that have not ended."""
        return [_of(row, TrainingRun) for row in await self._rows("open_runs", {})]

    async def put_run(self, run: TrainingRun, *facts: Fact) -> None:
        """Keep a training run as it is now, and facts about it."""
        async with self._database.transaction() as connection:
            await _put_run(connection, run)
            for fact in facts:
                await connection.execute(_Q["add_fact"], {"body": encode(fact)})
        await self.flush()

    async def _rows(self, query: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        async with self._database.transaction() as connection:
            return await (await connection.execute(_Q[query], values)).fetchall()


async def _put_run(connection: Connection, run: TrainingRun) -> None:
    values = {"id": run.id, "open": run.open, "body": msgspec.json.encode(run)}
    await connection.execute(_Q["put_run"], values)


def _of(row: tuple[Any, ...], kind: type[T]) -> T:
    return msgspec.json.decode(bytes(row[0]), type=kind)


def _one(rows: list[tuple[Any, ...]], kind: type[T], name: str) -> T:
    if not rows:
        raise NotFound(f"There is no {name[:80]}.", hint="`angelos model list` names the models.")
    return _of(rows[0], kind)
