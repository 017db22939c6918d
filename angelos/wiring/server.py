"""Every plane of the server, built in the order in which they need each other.

    listeners, projection -> hub -> governance, repository -> control -> routes on the listeners

Control and governance quarantine through the hub; the hub needs the projection to accept
or drop a node's facts, and the routes only when it begins to serve, last of all. So nothing is
bound late.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from angelos import __version__
from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import DataDir, ServerFile, SystemFile, write_private
from angelos.adapters.identity.authority import Pki
from angelos.adapters.identity.keys import load_or_create
from angelos.adapters.net.sockets import LOOPBACK, free_port
from angelos.adapters.stores.announcements import ValkeyAnnouncements
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.snapshots import SignedSnapshots
from angelos.adapters.stores.valkey import Client, ValkeyJournal, check_server, connect
from angelos.angelgit.git_server import GitServer
from angelos.angelgit.routes import routes as angelgit_routes
from angelos.angelgit.service import AngelGit
from angelos.control.config import ControlConfig
from angelos.control.context import ControlContext
from angelos.control.gate.landing import SecondProcess
from angelos.control.identity.people import PeopleStore
from angelos.control.identity.refusals import RefusalLog
from angelos.control.projection import Projection
from angelos.control.proposals import repo_config
from angelos.control.proposals.intake import PrincipalIntake
from angelos.control.routes import routes as control_routes
from angelos.control.service import Control
from angelos.control.state.hands import same_hands
from angelos.control.tasks.contents import Contents
from angelos.control.tasks.reading import OutputReaders
from angelos.core.errors import AngelError
from angelos.core.facts import Fact, FactPayload, SystemStarted, SystemStopped
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal
from angelos.core.policy.access import policy_in_force
from angelos.core.policy.engine import Policy
from angelos.core.ports import Clock, Journal, LiveDocuments, PatchScorer
from angelos.core.refusals import Refusals
from angelos.core.routes import Route
from angelos.core.signing import SigningKey
from angelos.governance.config import GovernanceConfig
from angelos.governance.log.notes import vkey_lines
from angelos.governance.log.service import LogHooks, LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.routes import routes as governance_routes
from angelos.governance.service import Governance
from angelos.governance.signer.client import SignerProcess
from angelos.governance.witness.client import WitnessClient, parse_witnesses
from angelos.hub.app import bind
from angelos.hub.app import serve as serve_hub
from angelos.hub.config import HubConfig
from angelos.hub.letters import DeadLetters
from angelos.hub.listener import address
from angelos.hub.parts import HubParts
from angelos.hub.routes import hub_routes
from angelos.hub.service import Hub
from angelos.hub.store import Identities
from angelos.memory.embedding import MiniLmEmbedder
from angelos.memory.routes import routes as memory_routes
from angelos.memory.service import MemoryService
from angelos.memory.tombstones import TombstoneFile
from angelos.ml.registry.artefacts import ArtefactStore
from angelos.ml.registry.champion import ChampionSource
from angelos.ml.registry.routes import ModelServices
from angelos.ml.registry.routes import routes as model_routes
from angelos.ml.registry.store import RegistryStore
from angelos.ml.scoring import SentinelProcess
from angelos.wiring.log_lag import LogLag
from angelos.wiring.monitoring.routes import root_routes
from angelos.wiring.monitoring.routes import routes as monitoring_routes
from angelos.wiring.monitoring.service import SystemMonitor, Watched
from angelos.wiring.monitoring.stores import StoreWatch, WatchedStore
from angelos.wiring.retention import Kept, Retention
from angelos.wiring.role_models import serving_models
from angelos.wiring.settings import Settings, enrol_address, is_wildcard
from angelos.wiring.stores import MEMORY, OpenStores, planes_for
from angelos.wiring.tracing.export import exporting
from angelos.wiring.tracing.roads import RoadTraces

log = logging.getLogger(__name__)
SYSTEM = PrincipalId("system/server")
_LAST_WORD_S = 5.0


@dataclass(frozen=True)
class RunningServer:
    """The planes, running."""

    routes: list[Route]
    journal: ValkeyJournal
    queue: ValkeyEnvelopeQueue
    repository: AngelGit
    git: GitServer
    hub: Hub
    control: Control
    audit: LogService
    governance: Governance
    people: PeopleStore
    shown: Callable[[Fact, Principal], Fact]
    """Returns a fact as somebody may read it."""
    refusals: Refusals
    """Takes what is refused at Jupyter's door."""
    monitor: SystemMonitor
    at_root: Sequence[Route]
    """What monitoring reads (`/metrics`, `/healthz`, `/readyz`)."""
    publish: Callable[[str, str], None]
    """Takes the address and the owner's token by which other processes find the system.

    `angelos up` does that itself; under a plain `jupyter lab` the extension calls this.
    """


class _Keys(NamedTuple):
    """The server's signing keys, made at the first start."""

    grant: SigningKey
    revision: SigningKey


class _Base(NamedTuple):
    """What every plane is built on."""

    settings: Settings
    clock: Clock
    database: Database
    valkey: Client
    journal: ValkeyJournal
    queue: ValkeyEnvelopeQueue
    keys: _Keys
    has_memory: bool
    """PostgreSQL has pgvector."""


class _Seen(NamedTuple):
    """What status says of the parts that control does not have."""

    stores: StoreWatch
    audit: LogService
    retention: Retention


@asynccontextmanager
async def serve(
    settings: Settings, stores: OpenStores, live: LiveDocuments | None
) -> AsyncIterator[RunningServer]:
    """Yield every plane, running on these stores."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        recorder = await enter(exporting("angelos-server", "server", wanted=settings.log.traces))
        base = await _open_base(stack, settings, stores)
        journal, clock = base.journal, base.clock
        policy = policy_in_force()
        # Entered before whatever appends facts, so that it ends after them and has their last.
        audit = await _open_audit(stack, base)
        snapshots = SignedSnapshots(base.database, journal, audit, base.keys.grant)
        projection = Projection(journal, clock, _control_config(settings), snapshots)
        refusals = await enter(RefusalLog(journal, clock))
        hub = _make_hub(stack, base, projection, policy, refusals)
        governance = await enter(_make_governance(base, hub))
        repository = await enter(_make_repository(base, live))
        seen = _Seen(await enter(_watch_stores(base)), audit, _make_retention(base, projection))
        context = _control_context(base, projection, policy, repository, hub, seen)
        control = await enter(_make_control(base, context, await enter(_make_scorer(base))))
        await enter(seen.retention)
        await enter(hub)
        routes = [*control_routes(control), *angelgit_routes(repository), *governance_routes(audit)]
        routes += memory_routes(await _open_memory(stack, base, policy))
        routes += model_routes(await _open_models(stack, base, repository, control))
        monitor = await enter(_make_monitor(base, stores, projection, hub, seen))
        routes += monitoring_routes(monitor)
        serve_hub(hub, routes, root_routes(monitor))
        if recorder is not None:
            await enter(RoadTraces(journal, recorder))
        await enter(_recorded(journal, clock))
        _write_server_file(settings, hub)
        yield RunningServer(
            routes=[*routes, *hub_routes(hub)],
            journal=journal,
            queue=base.queue,
            repository=repository,
            git=GitServer(repository, partial(PrincipalIntake, control.proposals)),
            hub=hub,
            control=control,
            audit=audit,
            governance=governance,
            people=control.people,
            shown=hub.shown,
            refusals=hub.refusals,
            monitor=monitor,
            at_root=root_routes(monitor),
            publish=lambda url, token: _publish(settings, stores, stack, url, token),
        )


async def _open_base(stack: AsyncExitStack, settings: Settings, stores: OpenStores) -> _Base:
    settings.data.create()
    database = await stack.enter_async_context(Database(stores.postgres))
    planes = await planes_for(database)
    applied = await database.migrate(planes)
    if applied:
        log.info("applied migrations: %s", ", ".join(applied))
    client = connect(stores.valkey)
    stack.push_async_callback(client.aclose)
    await check_server(client)
    journal = ValkeyJournal(client, database)
    return _Base(
        settings=settings,
        clock=SystemClock(),
        database=database,
        valkey=client,
        journal=journal,
        queue=ValkeyEnvelopeQueue(client, journal=journal),
        has_memory=MEMORY in planes,
        keys=_Keys(*(load_or_create(settings.data.keys / f"{name}.key") for name in _Keys._fields)),
    )


def _control_config(settings: Settings) -> ControlConfig:
    return ControlConfig(
        allow_unsandboxed=settings.nodes.allow_unsandboxed,
        budgets=settings.budgets,
        network=settings.network,
    )


def _make_governance(base: _Base, hub: Hub) -> Governance:
    config = GovernanceConfig(detection=base.settings.detection)
    return Governance(base.journal, base.clock, hub, config)


def _witnesses(data: DataDir) -> WitnessClient | None:
    if not data.witnesses.exists():
        return None
    return WitnessClient(parse_witnesses(data.witnesses.read_text(encoding="utf-8")))


async def _open_audit(stack: AsyncExitStack, base: _Base) -> LogService:
    """Return the audit log, with its signer in a process of its own."""
    data = base.settings.data
    origin = await AuditStore(base.database).origin()
    signer = await stack.enter_async_context(SignerProcess(origin, data.keys / "signer"))
    return await stack.enter_async_context(
        LogService(
            base.journal,
            base.database,
            signer,
            base.clock,
            hooks=LogHooks(
                witnesses=_witnesses(data),
                keep_keys=lambda epochs: write_private(data.log_vkeys, vkey_lines(epochs)),
            ),
        )
    )


async def _open_memory(stack: AsyncExitStack, base: _Base, policy: Policy) -> MemoryService | None:
    """Return the service of memory, with its model in a process of its own."""
    if not base.has_memory:
        log.info("PostgreSQL has no pgvector: there is no memory")
        return None
    embedder = await stack.enter_async_context(MiniLmEmbedder())
    return await stack.enter_async_context(
        MemoryService(
            base.database,
            base.journal,
            base.clock,
            policy,
            embedder,
            tombstones=TombstoneFile(base.settings.data.forgotten),
        )
    )


async def _open_models(
    stack: AsyncExitStack, base: _Base, repository: AngelGit, control: Control
) -> ModelServices:
    folder = base.settings.data.models
    return await stack.enter_async_context(
        serving_models(base.database, base.journal, base.clock, folder, repository, control)
    )


def _make_hub(
    stack: AsyncExitStack,
    base: _Base,
    projection: Projection,
    policy: Policy,
    refusals: Refusals,
) -> Hub:
    """Return a hub whose ports are taken but that serves nothing yet."""
    data = base.settings.data

    def one_person(one: PrincipalId, other: PrincipalId) -> bool:
        return same_hands(projection.state.makers, one, other)

    config = _hub_config(base)
    names = [n for n in (base.settings.hub.host, *base.settings.hub.names) if not is_wildcard(n)]
    pki = Pki.open(base.settings.data.keys, base.clock, names)
    listeners = bind(pki, config)
    stack.push_async_callback(listeners.close)
    return Hub(
        HubParts(
            journal=base.journal,
            queue=base.queue,
            identities=Identities(base.database, base.clock),
            pki=pki,
            clock=base.clock,
            listeners=listeners,
            letters=DeadLetters(base.queue, base.journal),
            announcements=ValkeyAnnouncements(base.valkey, "hub"),
            admission=projection,
            same_hands=one_person,
            refusals=refusals,
            shown=OutputReaders(projection, policy).shown,
            owns=lambda node: data.node(node.partition("/")[2]).is_dir(),
            config=config,
        )
    )


def _hub_config(base: _Base) -> HubConfig:
    """Return the hub's settings; without a port, its last ones if they are free.

    So nodes find it where it was.
    """
    hub, last = base.settings.hub, base.settings.data.last_server()
    port = enrol_port = 0
    if hub.port:
        port, enrol_port = hub.port, hub.port + 1
    elif last:
        port, enrol_port = free_port(_port(last.hub_url)), free_port(_port(last.enrol_url))
    return HubConfig(
        host=hub.host,
        port=port,
        enrol_port=enrol_port,
        fixed=bool(hub.port),
        public=hub.names[0] if hub.names else "",
        enrol_at=enrol_address(hub.gateway) if hub.gateway else "",
        grant_key=base.keys.grant.public.raw,
        revision_key=base.keys.revision.public.raw,
        limits=hub.limits,
    )


def _make_repository(base: _Base, live: LiveDocuments | None) -> AngelGit:
    return AngelGit(
        base.database,
        base.valkey,
        base.keys.revision,
        base.clock,
        base.journal,
        base.settings.data.workspace,
        live,
        check_config=repo_config.parse,
        git_cache=base.settings.data.git,
        server=f"server/{base.settings.data.identity()[:16]}",
    )


def _control_context(
    base: _Base,
    projection: Projection,
    policy: Policy,
    repository: AngelGit,
    hub: Hub,
    seen: _Seen,
) -> ControlContext:
    return ControlContext(
        projection=projection,
        queue=base.queue,
        repository=repository,
        contents=Contents(base.database, base.clock),
        signals=hub,
        policy=policy,
        key=base.keys.grant,
        clock=base.clock,
        config=projection.config,
        landing=SecondProcess(repository, base.keys.revision.public),
        away=seen.stores.away,
        past=base.journal.past,
        retention=seen.retention.view,
        log_behind=_log_behind(base, projection, seen.audit),
    )


def _make_retention(base: _Base, projection: Projection) -> Retention:
    kept = Kept(
        journal=base.journal,
        audit=AuditStore(base.database),
        contents=Contents(base.database, base.clock),
        damaged=lambda: bool(projection.state.log_damage),
    )
    return Retention(kept, base.clock, base.settings.retention)


def _make_scorer(base: _Base) -> SentinelProcess:
    """Return what scores patches by the champion of the registry, once there is one."""
    store = RegistryStore(base.database, base.journal)
    return SentinelProcess(ChampionSource(store, ArtefactStore(base.settings.data.models)))


def _make_control(base: _Base, context: ControlContext, scorer: PatchScorer) -> Control:
    context = replace(context, scorer=scorer)
    return Control(context, PeopleStore(base.database, base.journal, base.clock))


def _log_behind(base: _Base, projection: Projection, audit: LogService) -> Callable[[], float]:
    lag = LogLag()

    def behind() -> float:
        return lag.behind(projection.state.offset, audit.position, base.clock.monotonic())

    return behind


def _watch_stores(base: _Base) -> StoreWatch:
    settings = base.settings.stores

    async def select() -> None:
        async with base.database.transaction() as connection:
            await connection.execute("select 1")

    return StoreWatch(
        {
            "PostgreSQL": WatchedStore(select, own=not settings.postgres_dsn),
            "Valkey": WatchedStore(
                lambda: base.valkey.reader.call("PING"), own=not settings.valkey_url
            ),
        },
        base.clock,
    )


def _make_monitor(
    base: _Base,
    stores: OpenStores,
    projection: Projection,
    hub: Hub,
    seen: _Seen,
) -> SystemMonitor:
    return SystemMonitor(
        Watched(
            clock=base.clock,
            journal=base.journal,
            queue=base.queue,
            database=base.database,
            valkey=base.valkey,
            valkey_url=stores.valkey,
            projection=projection,
            hub=hub,
            audit=seen.audit,
            away=seen.stores.away,
            retention=seen.retention.view,
        )
    )


@asynccontextmanager
async def _recorded(journal: Journal, clock: Clock) -> AsyncIterator[None]:
    """Append the facts that the system has started and, at the end, that it has stopped."""

    def fact(payload: FactPayload) -> Fact:
        return Fact.of(payload, at=clock.time(), actor=SYSTEM, subject=SYSTEM)

    pid = os.getpid()
    await journal.append([fact(SystemStarted(version=__version__, pid=pid))])
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(_LAST_WORD_S):
                await journal.append([fact(SystemStopped(version=__version__, pid=pid))])
        except (AngelError, TimeoutError) as error:  # the store may have died
            log.warning("the end of the system is not in the journal: %s", error)


def _write_server_file(settings: Settings, hub: Hub) -> None:
    """Write where this machine reaches the hub."""
    host = settings.hub.host
    local = LOOPBACK if is_wildcard(host) else host
    settings.data.write_server(
        ServerFile(
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()) or 0,
            hub_url=address(local, hub.listeners.peers.port),
            enrol_url=address(local, hub.listeners.enrolment.port),
        )
    )


def _publish(
    settings: Settings, stores: OpenStores, stack: AsyncExitStack, url: str, token: str
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


def _port(url: str) -> int:
    try:
        return urlsplit(url).port or 0
    except ValueError:
        return 0
