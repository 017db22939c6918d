"""Builds every plane of the server, in order, and ends them in reverse.

    async with build_server(load()) as server:
        mount(server.routes)

The same code serves `angelos up` (which runs the stores), a plain `jupyter lab` (which runs them in
this process), and external servers (ANGELOS_POSTGRES_DSN, ANGELOS_VALKEY_URL). If a system runs on
the data directory already, `attached.py` forwards requests to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from angelos.core.ports import LiveDocuments
from angelos.wiring.attached import Attached, attach
from angelos.wiring.server import RunningServer, serve
from angelos.wiring.settings import Settings
from angelos.wiring.stores import open_stores


@asynccontextmanager
async def build_server(
    settings: Settings, live: LiveDocuments | None = None
) -> AsyncIterator[RunningServer | Attached]:
    """Yield the running server side of the system.

    Args:
        settings: the data directory, stores and nodes.
        live: the open documents (the rooms of the Jupyter extension).

    Raises:
        Unavailable: a store cannot be reached or started.
    """
    async with open_stores(settings) as stores:
        if stores is None:
            async with attach(settings) as attached:
                yield attached
        else:
            async with serve(settings, stores, live) as server:
                yield server
