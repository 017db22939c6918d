"""The hub: two listeners, the sessions of the peers, and the keeping of identities.

It implements `core.ports.Signals`. Every check asks PostgreSQL and fails closed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from tornado.httputil import HTTPServerRequest
from tornado.web import Application

from angelos.adapters.identity.authority import LIFETIME_S, Issued, Pki, identity_of
from angelos.adapters.identity.enrolment import Token, encode_token
from angelos.adapters.net.http import NoSuchRoute, PrincipalOf, mount
from angelos.adapters.net.link import Wire
from angelos.adapters.net.websocket import CHANNEL_PATH
from angelos.core.api import CreateEnrolment, Enrol, Enrolled, EnrolmentView, Renew
from angelos.core.errors import InvalidInput, Unauthenticated
from angelos.core.frames import Hello
from angelos.core.ids import FactId, PrincipalId, new_fact_id
from angelos.core.messages import Fact, Kind
from angelos.core.openapi import openapi_route
from angelos.core.permissions import Principal
from angelos.core.ports import Clock, Journal, Queue
from angelos.core.routes import PREFIX, Route
from angelos.hub.background import Tasks
from angelos.hub.config import HubConfig
from angelos.hub.handlers import ChannelSocket, EventsSocket
from angelos.hub.listener import Listener
from angelos.hub.models import Expects, Peer, Quarantine, everything, released_id
from angelos.hub.routes import enrol_routes, peer_routes
from angelos.hub.routes import routes as hub_routes
from angelos.hub.sessions import HUB, Session, Sessions
from angelos.hub.store import QUARANTINED, Identities

log = logging.getLogger(__name__)
_PING_S = 20.0
_RETRY_S = 60.0


class Hub:
    """ARAEL. See the package's docstring."""

    def __init__(  # noqa: PLR0913, PLR0917 - the parts that it is made of
        self,
        journal: Journal,
        queue: Queue,
        identities: Identities,
        pki: Pki,
        clock: Clock,
        routes: Sequence[Route] = (),
        host: str = "127.0.0.1",
        config: HubConfig | None = None,
        expects: Expects = everything,
    ) -> None:
        """Take the parts; `routes` are the other planes', served to agents and nodes as well.

        `hub.routes.routes(hub)` are served here in any case; mount them for people too. Of
        what peers say only what `expects` is true of reaches the journal.
        """
        self.journal = journal
        self.config = config or HubConfig()
        self.tasks = Tasks()
        self.sessions = Sessions(journal, queue, clock, self.config, self.tasks, expects)
        self._identities = identities
        self._pki = pki
        self._clock = clock
        self._routes = routes  # read when entered: whoever builds the planes fills it till then
        self._host = host
        self._refused: set[PrincipalId] = set()
        self._listener: Listener | None = None
        self._enrolment: Listener | None = None

    @property
    def url(self) -> str:
        """Where nodes and agents connect with their certificates, `https://host:port`."""
        return _listening(self._listener).url

    @property
    def enrol_url(self) -> str:
        """Where they get their first one."""
        return _listening(self._enrolment).url

    async def __aenter__(self) -> Self:
        for quarantine in await self._identities.silent_quarantines():
            await self._announce(quarantine, None)
        try:
            self._listen()
        except BaseException:
            await self._close_listeners()
            raise
        self.tasks.start(self._keep_renewed(), "the hub's certificate")
        log.info("The hub listens at %s, for enrolment at %s", self.url, self.enrol_url)
        return self

    def _listen(self) -> None:
        served = [*self._routes, *hub_routes(self), *peer_routes(self)]
        served.append(openapi_route([*served, *enrol_routes(self)]))
        self._listener = Listener(
            self._application(
                [
                    (CHANNEL_PATH, ChannelSocket, {"hub": self}),
                    (f"{PREFIX}/events", EventsSocket, {"hub": self}),
                    *mount(served, self._principal_of),
                ],
                self._principal_of,
            ),
            self._host, self.config.port, self._pki.server_context(),
        )  # fmt: skip
        self._enrolment = Listener(
            self._application(mount(enrol_routes(self), _nobody), _nobody),
            self._host, self.config.enrol_port, self._pki.enrolment_context(),
        )  # fmt: skip

    async def _close_listeners(self) -> None:
        for listener in (self._listener, self._enrolment):
            if listener is not None:
                await listener.close()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.sessions.close()
        await self._close_listeners()
        await self.tasks.close()

    # -- who is there ------------------------------------------------------------------------

    async def peer_of(self, request: HTTPServerRequest) -> Peer:
        """Return who sends a request, by his certificate; raise `Unauthenticated`."""
        if request.connection is None or request.connection.stream.closed():  # pyright: ignore[reportAttributeAccessIssue]
            raise Unauthenticated("The connection is gone, and who it was with it.")
        der = request.get_ssl_certificate(binary_form=True)
        principal, serial = identity_of(der if isinstance(der, bytes) else None)
        peer = await self._identities.check(principal, serial)
        self._check_refused(principal)
        return peer

    def admit(self, peer: Peer, hello: Hello, wire: Wire) -> Session:
        """Give a new connection its session; raise `Unauthenticated` if it was just refused."""
        self._check_refused(peer.principal.id)
        return self.sessions.admit(peer, hello, wire)

    async def _principal_of(self, request: HTTPServerRequest) -> Principal:
        return (await self.peer_of(request)).principal

    def _check_refused(self, principal: PrincipalId) -> None:
        # Whoever was quarantined while PostgreSQL was being asked, or while it was not there.
        if principal in self._refused:
            raise Unauthenticated(f"{principal} is quarantined.", reason=QUARANTINED)

    # -- enrolment ---------------------------------------------------------------------------

    async def create_enrolment(self, wish: CreateEnrolment, by: PrincipalId) -> EnrolmentView:
        """Make a token; raises `Unauthenticated` for a name that is quarantined."""
        principal = PrincipalId(f"{wish.kind}/{wish.name}")
        secret = secrets.token_urlsafe(32)
        expires_at = await self._identities.add_enrolment(
            secret, principal, wish.node_role if wish.kind == "node" else "", by, wish.ttl_s
        )
        token = Token(url=self.enrol_url, ca=self._pki.ca_pem, secret=secret)
        return EnrolmentView(token=encode_token(token), expires_at=expires_at)

    async def enrol(self, wish: Enrol) -> Enrolled:
        """Use a token up and issue the first certificate."""
        principal, role, by, issued = await self._identities.enrol(
            wish.secret, lambda who: self._pki.issue(wish.csr, who)
        )
        kind = Kind.node_enrolled if principal.startswith("node/") else Kind.agent_enrolled
        await self._say(kind, principal, by, {"role": role, "serial": issued.serial})
        return self._enrolled(principal, role, issued)

    async def renew(self, wish: Renew, who: Principal) -> Enrolled:
        """Issue a further certificate to whoever has one that stands."""
        peer = await self._identities.check(who.id, who.serial)
        issued = await self._identities.renew(who.id, lambda me: self._pki.issue(wish.csr, me))
        return self._enrolled(who.id, peer.node_role, issued)

    def _enrolled(self, principal: PrincipalId, role: str, issued: Issued) -> Enrolled:
        return Enrolled(
            id=principal, certificate=issued.certificate, ca=self._pki.ca_pem, hub_url=self.url,
            grant_key=self.config.grant_key, revision_key=self.config.revision_key,
            node_role="labs" if role == "labs" else "execution" if role else "",
        )  # fmt: skip

    # -- core.ports.Signals ------------------------------------------------------------------

    async def quarantine(
        self, principal: PrincipalId, reason: str, *, by: PrincipalId | None = None
    ) -> None:
        """Revoke its certificates, close its connections, refuse it from now on. Idempotent.

        The connections are gone and new ones refused even when the stores cannot be reached;
        that it lasts is known only when this returns.
        """
        if principal.startswith("system/"):
            raise InvalidInput(f"{principal} is a part of the system.")
        self._refused.add(principal)
        self._cut(principal, reason)
        found = await self._identities.quarantine(principal, reason[:500])
        self._cut(principal, reason)
        await self._announce(found, by)

    async def release(self, principal: PrincipalId, *, by: PrincipalId | None = None) -> None:
        """End a quarantine; a new certificate has to be enrolled. Idempotent."""
        found = await self._identities.quarantine_of(principal)
        if found is not None:
            # First the fact: whoever dies in between leaves it refused, and trying again is once.
            await self._say(Kind.principal_released, principal, by, {}, released_id(found.fact))
            await self._identities.release(found)
        self._refused.discard(principal)

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        """Tell whether a principal is refused at present."""
        return principal in self._refused or await self._identities.is_quarantined(principal)

    def _cut(self, principal: PrincipalId, reason: str) -> None:
        self.sessions.cut(principal, QUARANTINED, reason)
        if self._listener is not None:
            closed = self._listener.cut(principal)
            # A live context goes on resuming TLS sessions that it has seen.
            self._listener.renew_context(self._pki.server_context())
            log.warning("%s is quarantined (%s); %d connections cut", principal, reason, closed)

    async def _announce(self, found: Quarantine, by: PrincipalId | None) -> None:
        await self._say(
            Kind.principal_quarantined, found.principal, by, {"reason": found.reason}, found.fact
        )
        await self._identities.announced(found.fact)

    # -- inside ------------------------------------------------------------------------------

    async def _say(
        self, kind: Kind, subject: str, by: PrincipalId | None, data: dict[str, str], fact: str = ""
    ) -> None:
        now = self._clock.time()
        await self.journal.append(
            [
                Fact(
                    id=FactId(fact) if fact else new_fact_id(int(now * 1000)), at=now, actor=HUB,
                    on_behalf_of=by, kind=kind, subject=subject, data=data,
                )
            ]
        )  # fmt: skip

    def _application(self, rules: list, principal_of: PrincipalOf) -> Application:
        return Application(
            rules,
            default_handler_class=NoSuchRoute,
            default_handler_args={"principal_of": principal_of},
            websocket_ping_interval=_PING_S,
            log_function=lambda _: None,  # requests are told of by the journal and by problems
        )

    async def _keep_renewed(self) -> None:
        renew_at = self._clock.time() + LIFETIME_S / 2
        while True:
            await asyncio.sleep(max(renew_at - self._clock.time(), 1))
            try:
                renew_at = self._pki.renew_server()
                for listener in (self._listener, self._enrolment):
                    self._pki.load_server_chain(_listening(listener).context)
            except Exception:  # whatever it was: without a certificate nobody gets in
                log.exception("The hub's certificate was not renewed")
                renew_at = self._clock.time() + _RETRY_S


async def _nobody(request: HTTPServerRequest) -> None:
    del request


def _listening(listener: Listener | None) -> Listener:
    if listener is None:
        msg = "the hub is not running; use it with `async with`"
        raise RuntimeError(msg)
    return listener
