"""Facts on their way from the database transaction that made them true to the journal."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from angelos.angelgit.storage.store import OUTBOX_PAGE, Store, Stores
from angelos.core.errors import AngelError
from angelos.core.ports import Journal

log = logging.getLogger(__name__)


class FactOutbox:
    """Hands committed facts to the journal.

    A fact is removed after the journal has it. A crash in between appends it a second time, and
    the journal drops it by its id.
    """

    def __init__(self, stores: Stores, journal: Journal) -> None:
        self._stores = stores
        self._journal = journal
        self._flushing = asyncio.Lock()

    async def flush(self, beside: Callable[[Store], Awaitable[None]] | None = None) -> bool:
        """Append all facts to the journal; while it is away they stay for the next time.

        Args:
            beside: what is done in the transaction that removes them.

        Returns:
            Whether that transaction was committed.
        """
        done = False
        async with self._flushing:
            try:
                while await self._flush_page(None if done else beside) == OUTBOX_PAGE:
                    done = True
            except AngelError as error:
                log.warning("facts wait in the outbox: %s", error)
                return done
        return True

    async def _flush_page(self, beside: Callable[[Store], Awaitable[None]] | None) -> int:
        async with self._stores.begin() as store:
            rows = await store.outbox()
            if rows:
                await self._journal.append([fact for _, fact in rows])
                await store.clear_outbox([number for number, _ in rows])
            if beside is not None:
                await beside(store)
        return len(rows)
