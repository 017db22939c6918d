"""Chooses the PostgreSQL and Valkey of the server.

settings name both servers         ->  those, run outside of the system
started by `angelos up`            ->  up's, awaited: up starts them while the server imports
the data directory is not locked   ->  embedded ones, started and stopped here
a system runs on it already        ->  None: the caller attaches to it
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.host.endless import endless
from angelos.adapters.host.supervision import Failure, Restart, SupervisedPart, keep
from angelos.adapters.stores.postgres import Database
from angelos.core.errors import Conflict, Unavailable
from angelos.memory.store import has_pgvector
from angelos.wiring.restarts import RestartFacts
from angelos.wiring.settings import Settings

log = logging.getLogger(__name__)
PLANES = ("angelos.governance", "angelos.hub", "angelos.angelgit", "angelos.control", "angelos.ml")
"""The packages that keep tables, in the order of their migrations."""
MEMORY = "angelos.memory"
"""Keeps tables too, where the server has pgvector."""
_WAIT_S = 60.0
_POLL_S = 0.02


async def planes_for(database: Database) -> tuple[str, ...]:
    """Return the packages that keep tables in a database."""
    return (*PLANES, MEMORY) if await has_pgvector(database) else PLANES


class OpenStores(NamedTuple):
    """Addresses: a PostgreSQL DSN and a Valkey URL."""

    postgres: str
    valkey: str


@asynccontextmanager
async def open_stores(settings: Settings) -> AsyncIterator[OpenStores | None]:
    """Yield the addresses of the stores, None if a system runs on the data directory already."""
    if settings.server.supervised:
        yield await _from_up(settings)
        return
    async with AsyncExitStack() as stack:
        data = settings.data
        data.create()
        try:
            identity, _ = stack.enter_context(data.locked())
        except Conflict as error:
            log.info("%s", error)
            yield None
            return
        dsn, url = settings.stores.postgres_dsn, settings.stores.valkey_url
        own: list[SupervisedPart] = []
        if not (dsn and url):
            runtime = data.create_runtime()
            stack.callback(shutil.rmtree, runtime, ignore_errors=True)
            if not dsn:
                postgres = EmbeddedPostgres(data.postgres, runtime, identity=identity)
                dsn = (await stack.enter_async_context(postgres)).url
                own.append(postgres)
            if not url:
                valkey = EmbeddedValkey(data.valkey, runtime, identity=identity)
                url = (await stack.enter_async_context(valkey)).url
                own.append(valkey)
        async with _kept(own, url):
            yield OpenStores(dsn, url)


@asynccontextmanager
async def _kept(parts: list[SupervisedPart], valkey_url: str) -> AsyncIterator[None]:
    """Keep the stores that this process owns running, and record when one is started again."""
    async with RestartFacts(valkey_url) as facts:
        reporter = _Log(facts)
        tasks = [endless(f"keeper of {p.name}", partial(keep, p, reporter)) for p in parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)


class _Log:
    """Logs what happens to the stores, and appends the facts."""

    def __init__(self, facts: RestartFacts) -> None:
        self._facts = facts

    def failed(self, part: str, failure: Failure) -> None:
        """Log it."""
        log.error("%s %s (exit code %s); starting it again", part, failure.cause, failure.exit_code)

    def restarted(self, restart: Restart) -> None:
        """Log and record it."""
        log.warning("%s runs again after %.1f s", restart.part, restart.seconds)
        self._facts.add(restart)


async def _from_up(settings: Settings) -> OpenStores:
    try:
        async with asyncio.timeout(_WAIT_S):
            while True:
                try:
                    system = settings.data.system()
                except Unavailable:
                    await asyncio.sleep(_POLL_S)
                else:
                    return OpenStores(system.postgres, system.valkey)
    except TimeoutError:
        raise Unavailable(
            f"`angelos up` has not started its stores within {_WAIT_S:.0f} s.",
            hint=f"See {settings.data.logs}.",
        ) from None
