"""A hub alone, on a host that nodes and agents can reach, beside the control of another host.

    async with serve_gateway(settings, key) as hub:
        ...                                     # until it is told to stop

It shares PostgreSQL and Valkey with control and decides nothing: it lets peers in, carries commands
down and facts up, renews certificates, and hands out revisions to check out. What it may write down
of a peer it knows from its own fold of the journal.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from angelos import __version__
from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import DataDir, write_private
from angelos.adapters.host.endless import endless
from angelos.adapters.identity.authority import Pki
from angelos.adapters.identity.keys import load_or_create
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.snapshots import SnapshotReader
from angelos.adapters.stores.valkey import Client, ValkeyJournal, check_server, connect
from angelos.angelgit.changes.reading import RevisionQueries
from angelos.angelgit.routes import bundle_routes
from angelos.control.config import ControlConfig
from angelos.control.identity.refusals import RefusalLog
from angelos.control.projection import Projection
from angelos.control.tasks.reading import OutputReaders
from angelos.core.errors import InvalidInput, NotFound, Unavailable
from angelos.core.facts import Fact, SystemStarted
from angelos.core.ids import PrincipalId
from angelos.core.policy.access import policy_in_force
from angelos.core.ports import Clock
from angelos.core.signing import VerifyKey
from angelos.governance.log.store import AuditStore
from angelos.hub.app import bind
from angelos.hub.app import serve as serve_hub
from angelos.hub.config import HubConfig
from angelos.hub.parts import HubParts
from angelos.hub.service import Hub
from angelos.hub.store import Identities
from angelos.wiring.monitoring.routes import root_routes
from angelos.wiring.monitoring.service import SystemMonitor, Watched
from angelos.wiring.settings import Settings, is_wildcard
from angelos.wiring.stores import planes_for

log = logging.getLogger(__name__)
GATEWAY = PrincipalId("system/gateway")
RETRY_S = 2.0


class GatewayKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gateway has of its system: it certifies peers, but signs no grants and no commits."""

    authority: str
    """Key and certificate of the system's certificate authority, PEM."""
    grant_key: bytes
    """Control's public key."""
    revision_key: bytes
    """AngelGit's public key."""


class _Stores(NamedTuple):
    """The shared stores, open."""

    database: Database
    valkey: Client
    journal: ValkeyJournal
    queue: ValkeyEnvelopeQueue
    clock: Clock


def gateway_key(data: DataDir) -> bytes:
    """Return the file that a gateway of the system on a data directory needs; it is a secret.

    Raises:
        NotFound: There is no system.
    """
    try:
        authority = (data.keys / "ca.pem").read_text(encoding="ascii")
    except FileNotFoundError:
        raise NotFound(
            f"{data.root} holds no system.", hint="Start it once, or name one with --data-dir."
        ) from None
    key = GatewayKey(
        authority=authority,
        grant_key=load_or_create(data.keys / "grant.key").public.raw,
        revision_key=load_or_create(data.keys / "revision.key").public.raw,
    )
    return msgspec.json.encode(key) + b"\n"


def read_gateway_key(body: bytes) -> GatewayKey:
    """Return the key in a file; raise `InvalidInput`."""
    try:
        return msgspec.json.decode(body, type=GatewayKey)
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f"This is no key of a gateway: {error}.",
            hint="`angelos hub key` prints it where control runs.",
        ) from error


@asynccontextmanager
async def serve_gateway(settings: Settings, key: GatewayKey) -> AsyncIterator[Hub]:
    """Yield a hub that serves nodes and agents; a store that is away is waited for.

    Raises:
        InvalidInput: The settings name no stores.
        Conflict: The database was made by another version.
        Unavailable: A port is taken.
    """
    if not settings.stores.postgres_dsn or not settings.stores.valkey_url:
        raise InvalidInput(
            "A gateway shares the stores of control.",
            hint="Set ANGELOS_POSTGRES_DSN and ANGELOS_VALKEY_URL.",
        )
    async with AsyncExitStack() as stack:
        settings.data.create()
        stack.enter_context(settings.data.locked())
        stores = await _open_patiently(stack, settings)
        log_store, public = AuditStore(stores.database), VerifyKey(key.grant_key)
        snapshots = SnapshotReader(stores.database, stores.journal, log_store, public)
        projection = Projection(stores.journal, stores.clock, ControlConfig(), snapshots)
        await projection.load()
        refusals = await stack.enter_async_context(RefusalLog(stores.journal, stores.clock))
        pki = _authority(settings, key, stores.clock)
        config = _config(settings, key)
        listeners = bind(pki, config)
        stack.push_async_callback(listeners.close)
        hub = Hub(
            HubParts(
                journal=stores.journal,
                queue=stores.queue,
                identities=Identities(stores.database, stores.clock),
                pki=pki,
                clock=stores.clock,
                listeners=listeners,
                admission=projection,
                refusals=refusals,
                shown=OutputReaders(projection, policy_in_force()).shown,
                config=config,
            )
        )
        await stack.enter_async_context(_Following(projection))
        await stack.enter_async_context(hub)
        # Nodes that an earlier life of this gateway has left behind are away until they are back.
        started = SystemStarted(version=__version__, pid=os.getpid())
        fact = Fact.of(started, at=stores.clock.time(), actor=GATEWAY, subject=config.name)
        await stores.journal.append([fact])
        monitor = await stack.enter_async_context(_monitor(settings, stores, projection, hub))
        serve_hub(hub, bundle_routes(RevisionQueries(stores.database)), root_routes(monitor))
        yield hub


def _monitor(
    settings: Settings, stores: _Stores, projection: Projection, hub: Hub
) -> SystemMonitor:
    return SystemMonitor(
        Watched(
            clock=stores.clock,
            journal=stores.journal,
            queue=stores.queue,
            database=stores.database,
            valkey=stores.valkey,
            valkey_url=settings.stores.valkey_url,
            projection=projection,
            hub=hub,
        )
    )


class _Following:
    """Keeps a projection current inside `async with`; nothing follows from it here."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = endless("fold", lambda: self._projection.follow(lambda _: None))

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})


async def _open_patiently(stack: AsyncExitStack, settings: Settings) -> _Stores:
    """Open the stores, as soon as both are there and control has made its tables."""
    waiting = False
    while True:
        async with AsyncExitStack() as attempt:
            try:
                stores = await _open(attempt, settings)
            except Unavailable as error:
                if not waiting:
                    waiting = True
                    log.warning("Waiting for the stores: %s", error)
            else:
                stack.push_async_callback(attempt.pop_all().aclose)
                return stores
        await asyncio.sleep(RETRY_S)


async def _open(stack: AsyncExitStack, settings: Settings) -> _Stores:
    database = await stack.enter_async_context(Database(settings.stores.postgres_dsn))
    missing = await database.missing(await planes_for(database))
    if missing:
        raise Unavailable(f"control has not made its tables yet ({missing[0]} is missing).")
    client = connect(settings.stores.valkey_url)
    stack.push_async_callback(client.aclose)
    await check_server(client)
    journal = ValkeyJournal(client, database)
    queue = ValkeyEnvelopeQueue(client, journal=journal)
    return _Stores(database, client, journal, queue, SystemClock())


def _authority(settings: Settings, key: GatewayKey, clock: Clock) -> Pki:
    place: Path = settings.data.keys / "ca.pem"
    write_private(place, key.authority.encode("ascii"))
    names = [n for n in (settings.hub.host, *settings.hub.names) if not is_wildcard(n)]
    return Pki.open(settings.data.keys, clock, names)


def _config(settings: Settings, key: GatewayKey) -> HubConfig:
    hub = settings.hub
    public = hub.names[0] if hub.names else hub.host
    return HubConfig(
        host=hub.host,
        port=hub.port,
        enrol_port=hub.port + 1 if hub.port else 0,
        fixed=bool(hub.port),
        public=public,
        name=f"{GATEWAY}/{public}",
        grant_key=key.grant_key,
        revision_key=key.revision_key,
        limits=hub.limits,
    )
