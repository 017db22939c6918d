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
from typing import NamedTuple

from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.core.errors import Conflict, Unavailable
from angelos.wiring.settings import Settings

log = logging.getLogger(__name__)
PLANES = ("angelos.governance", "angelos.hub", "angelos.angelgit", "angelos.control")
"""The packages that keep tables, in the order of their migrations."""
_WAIT_S = 60.0
_POLL_S = 0.02


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
            stack.enter_context(data.locked())
        except Conflict as error:
            log.info("%s", error)
            yield None
            return
        dsn, url = settings.stores.postgres_dsn, settings.stores.valkey_url
        if not (dsn and url):
            runtime = data.create_runtime()
            stack.callback(shutil.rmtree, runtime, ignore_errors=True)
            if not dsn:
                postgres = EmbeddedPostgres(data.postgres, runtime)
                dsn = (await stack.enter_async_context(postgres)).url
            if not url:
                url = (await stack.enter_async_context(EmbeddedValkey(data.valkey, runtime))).url
        yield OpenStores(dsn, url)


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
