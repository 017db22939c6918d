"""Facts on their way from the database transaction that made them true to the journal."""

from __future__ import annotations

import asyncio
import logging

from angelos.adapters.stores.postgres import Database
from angelos.angelgit.storage.store import OUTBOX_PAGE, Store
from angelos.core.errors import AngelError
from angelos.core.ports import Journal

log = logging.getLogger(__name__)


class FactOutbox:
    """Hands committed facts to the journal.

    A fact is removed after the journal has it. A crash in between appends it a second time, and
    the journal drops it by its id.
    """

    def __init__(self, database: Database, journal: Journal) -> None:
        self._database = database
        self._journal = journal
        self._flushing = asyncio.Lock()

    async def flush(self) -> None:
        """Append all facts to the journal; while it is away they stay for the next time."""
        async with self._flushing:
            try:
                while await self._flush_page() == OUTBOX_PAGE:
                    pass
            except AngelError as error:
                log.warning("facts wait in the outbox: %s", error)

    async def _flush_page(self) -> int:
        async with self._database.transaction() as conn:
            rows = await Store(conn).outbox()
        if rows:
            await self._journal.append([fact for _, fact in rows])
            async with self._database.transaction() as conn:
                await Store(conn).clear_outbox([number for number, _ in rows])
        return len(rows)
