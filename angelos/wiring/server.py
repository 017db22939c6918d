"""Every plane of the server, built in the order in which they need each other.

The hub serves the routes of all planes to nodes and agents, and control and governance need the
hub to cut somebody off: so the hub is made first, with the list that the routes are put into, and
entered last.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from angelos import __version__
from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import ServerFile, SystemFile
from angelos.adapters.identity.authority import Pki
from angelos.adapters.identity.keys import load_or_create
from angelos.adapters.net.sockets import free_port
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, ValkeyQueue, check_server, connect
from angelos.angelgit.routes import routes as angelgit_routes
from angelos.angelgit.service import AngelGit
from angelos.control.config import ControlConfig
from angelos.control.identity.people import People
from angelos.control.proposals import repo_config
from angelos.control.routes import routes as control_routes
from angelos.control.service import Control
from angelos.core.errors import AngelError
from angelos.core.ids import PrincipalId, new_fact_id
from angelos.core.messages import Fact, Kind
from angelos.core.ports import Clock, Journal, LiveDocuments
from angelos.core.routes import Route
from angelos.governance.routes import routes as governance_routes
from angelos.governance.service import Governance
from angelos.hub.config import HubConfig
from angelos.hub.routes import routes as hub_routes
from angelos.hub.service import Hub
from angelos.hub.store import Identities
from angelos.wiring.settings import Settings
from angelos.wiring.stores import Stores

log = logging.getLogger(__name__)
SYSTEM = PrincipalId("system/server")
_LAST_WORD_S = 5.0


@dataclass(frozen=True)
class Server:
    """The planes, running."""

    routes: list[Route]
    journal: ValkeyJournal
    queue: ValkeyQueue
    repository: AngelGit
    hub: Hub
    control: Control
    governance: Governance
    people: People
    publish: Callable[[str, str], None]
    """Takes the address and the owner's token by which other processes find the system.

    `angelos up` does that itself; under a plain `jupyter lab` the extension calls this.
    """


@asynccontextmanager
async def serve(
    settings: Settings, stores: Stores, live: LiveDocuments | None
) -> AsyncIterator[Server]:
    """Yield every plane, running on these stores."""
    data, clock = settings.data, SystemClock()
    async with AsyncExitStack() as stack:
        data.create()
        database = await stack.enter_async_context(Database(stores.postgres))
        applied = await database.migrate()
        if applied:
            log.info("applied migrations: %s", ", ".join(applied))
        client = connect(stores.valkey)
        stack.push_async_callback(client.aclose)
        await check_server(client)
        journal, queue = ValkeyJournal(client, database), ValkeyQueue(client)
        grant_key = load_or_create(data.keys / "grant.key")
        revision_key = load_or_create(data.keys / "revision.key")
        log_key = load_or_create(data.keys / "log.key")

        routes: list[Route] = []
        hub = Hub(
            journal,
            queue,
            Identities(database, clock),
            Pki.open(data.keys, clock),
            clock,
            routes,
            settings.server.host,
            _hub_config(settings, grant_key.public.raw, revision_key.public.raw),
            lambda fact: control.expects(fact),  # noqa: PLW0108 - control is made below
        )
        # Left after whoever says facts: it takes their last ones into the log.
        governance = await stack.enter_async_context(
            Governance(journal, database, log_key, clock, hub, trim=journal.trim)
        )
        repository = await stack.enter_async_context(
            AngelGit(
                database,
                client,
                revision_key,
                clock,
                journal,
                data.workspace,
                live,
                check_config=repo_config.parse,
            )
        )
        control = await stack.enter_async_context(
            Control(
                journal,
                queue,
                repository,
                database,
                grant_key,
                hub,
                clock,
                ControlConfig(allow_unsandboxed=settings.nodes.allow_unsandboxed),
            )
        )
        routes += control_routes(control)
        routes += angelgit_routes(repository)
        routes += governance_routes(governance)
        await stack.enter_async_context(hub)
        await stack.enter_async_context(_told(journal, clock))
        data.write_server(
            ServerFile(
                pid=os.getpid(),
                start_ticks=start_ticks(os.getpid()) or 0,
                hub_url=hub.url,
                enrol_url=hub.enrol_url,
            )
        )
        yield Server(
            routes=[*routes, *hub_routes(hub)],
            journal=journal,
            queue=queue,
            repository=repository,
            hub=hub,
            control=control,
            governance=governance,
            people=control.people,
            publish=lambda url, token: _publish(settings, stores, stack, url, token),
        )


@asynccontextmanager
async def _told(journal: Journal, clock: Clock) -> AsyncIterator[None]:
    """Say in the journal that the system has started, and at the end that it has stopped."""

    def fact(kind: Kind) -> Fact:
        return Fact(
            id=new_fact_id(), at=clock.time(), actor=SYSTEM, kind=kind, subject=SYSTEM,
            data={"version": __version__, "pid": os.getpid()},
        )  # fmt: skip

    await journal.append([fact(Kind.system_started)])
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                await journal.append([fact(Kind.system_stopped)])
        except (AngelError, TimeoutError) as error:  # a store that died cannot be told
            log.warning("the end of the system is not in the journal: %s", error)


def _publish(
    settings: Settings, stores: Stores, stack: AsyncExitStack, url: str, token: str
) -> None:
    """Write `system.json`, to be removed first of all at the end."""
    if settings.server.supervised:
        return
    where = settings.data.server()
    settings.data.write_system(
        SystemFile(
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()) or 0,
            started_at=SystemClock().time(),
            postgres=stores.postgres,
            valkey=stores.valkey,
            url=url.rstrip("/"),
            token=token,
            hub_url=where.hub_url if where else "",
            enrol_url=where.enrol_url if where else "",
        )
    )
    stack.callback(settings.data.clear_system)


def _hub_config(settings: Settings, grant_key: bytes, revision_key: bytes) -> HubConfig:
    """Return the hub's settings: nodes keep its address, so it takes the same ports again."""
    last = settings.data.last_server()
    return HubConfig(
        port=free_port(_port(last.hub_url)) if last else 0,
        enrol_port=free_port(_port(last.enrol_url)) if last else 0,
        grant_key=grant_key,
        revision_key=revision_key,
    )


def _port(url: str) -> int:
    try:
        return urlsplit(url).port or 0
    except ValueError:
        return 0
