"""A real hub for tests: real TLS on loopback, real identities, your journal and queue.

For example:

    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as channel:
            ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.identity.authority import Pki
from angelos.adapters.identity.enrolment import Identity, enrol
from angelos.adapters.net.websocket import ClientChannel, connect_channel
from angelos.adapters.stores.postgres import Database
from angelos.core.api import CreateEnrolment
from angelos.core.facts import Fact
from angelos.core.ids import Offset, PrincipalId
from angelos.core.ports import Admission, Announcements, Clock, EnvelopeQueue, Journal
from angelos.core.routes import Route
from angelos.hub.app import bind, serve
from angelos.hub.config import HubConfig
from angelos.hub.parts import HubParts
from angelos.hub.service import Hub
from angelos.hub.store import Identities

OPERATOR = PrincipalId("person/operator")


class AcceptAll:
    """An `Admission` that accepts every fact."""

    def admitted(self, fact: Fact) -> Fact | None:
        """Return the fact."""
        return fact

    def folds(self, kind: str) -> bool:
        """Return that nothing is folded."""
        del kind
        return False

    async def folded(self, offset: Offset) -> None:
        """Return at once."""
        del offset

    async def catch_up(self) -> None:
        """Return at once: nothing is learnt."""


@asynccontextmanager
async def running_hub(  # noqa: PLR0913 - what a hub is made of
    database: Database,
    journal: Journal,
    queue: EnvelopeQueue,
    folder: Path,
    *,
    routes: Sequence[Route] = (),
    config: HubConfig | None = None,
    clock: Clock | None = None,
    admission: Admission | None = None,
    announcements: Announcements | None = None,
) -> AsyncIterator[Hub]:
    """Run a hub whose CA lives in `folder`; a second one there has the same CA.

    Every fact of a peer that is well formed is accepted, unless there is an `admission`.
    """
    clock = clock or SystemClock()
    config = config or HubConfig()
    pki = Pki.open(folder / "keys", clock)
    parts = HubParts(
        journal=journal,
        queue=queue,
        identities=Identities(database, clock),
        pki=pki,
        clock=clock,
        listeners=bind(pki, config),
        admission=admission or AcceptAll(),
        config=config,
        announcements=announcements,
    )
    async with Hub(parts) as hub:
        serve(hub, routes)
        yield hub


async def join(
    hub: Hub,
    kind: Literal["node", "agent"],
    name: str,
    folder: Path,
    role: Literal["execution", "labs"] = "execution",
) -> Identity:
    """Enrol a node or agent, by a token as everybody does, and return its identity."""
    wish = CreateEnrolment(kind=kind, name=name, node_role=role)
    view = await hub.create_enrolment(wish, OPERATOR)
    return await enrol(view.token, folder)


def connect(
    hub: Hub, identity: Identity, *, info: dict[str, str] | None = None, patience_s: float = 20
) -> ClientChannel:
    """Return the peer's end of a channel, for `async with`."""
    return connect_channel(
        hub.url, identity.client_context(), SystemClock(), info=info, patience_s=patience_s
    )
