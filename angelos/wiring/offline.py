"""The audit log of a system that is down, read from its database."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from angelos.adapters.host.embedded import EmbeddedPostgres
from angelos.adapters.stores.postgres import Database
from angelos.core.errors import NotFound
from angelos.governance.log.store import AuditStore
from angelos.wiring.settings import Settings


@asynccontextmanager
async def open_audit_store(settings: Settings) -> AsyncIterator[AuditStore]:
    """Yield the stored log; nothing else of the system runs meanwhile.

    Raises:
        NotFound: The data directory holds no system.
        Conflict: The system runs: ask it.
        Unavailable: PostgreSQL does not answer.
    """
    async with open_audit_database(settings) as database:
        yield AuditStore(database)


@asynccontextmanager
async def open_audit_database(settings: Settings) -> AsyncIterator[Database]:
    """Yield the database that holds the log, alone.

    Raises:
        NotFound: The data directory holds no system.
        Conflict: The system runs.
        Unavailable: PostgreSQL does not answer.
    """
    async with AsyncExitStack() as stack:
        data, dsn = settings.data, settings.stores.postgres_dsn
        if not data.keys.is_dir():
            raise NotFound(f"{data.root} holds no system.", hint="Name one with --data-dir.")
        data.check_format()
        stack.enter_context(data.locked())
        if not dsn:
            runtime = data.create_runtime()
            stack.callback(shutil.rmtree, runtime, ignore_errors=True)
            postgres = EmbeddedPostgres(data.postgres, runtime)
            dsn = (await stack.enter_async_context(postgres)).url
        yield await stack.enter_async_context(Database(dsn, max_connections=2))
