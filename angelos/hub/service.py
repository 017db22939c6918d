"""The hub: who is connected, who may connect, and who is cut off.

It implements `core.ports.Signals`. Every check asks PostgreSQL and fails closed. What is served
on its listeners is not its business: `app.py` puts the routes and WebSockets there.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from dataclasses import replace
from types import TracebackType
from typing import Self

from tornado.httputil import HTTPServerRequest

from angelos.adapters.host.clock import sleep_until
from angelos.adapters.identity.authority import LIFETIME_S, Issued, identity_of
from angelos.adapters.identity.enrolment import Token, encode_token
from angelos.adapters.net.link import Wire
from angelos.adapters.stores.streams import patiently
from angelos.core.api import CreateEnrolment, Enrol, Enrolled, EnrolmentView, Renew
from angelos.core.errors import Conflict, InvalidInput, Unauthenticated, Unavailable
from angelos.core.facts import (
    AgentEnrolled,
    Fact,
    FactHeader,
    FactPayload,
    Kind,
    NodeEnrolled,
    PrincipalQuarantined,
    PrincipalReleased,
)
from angelos.core.frames import Hello
from angelos.core.ids import FactId, Offset, PrincipalId
from angelos.core.permissions import OWNER, Principal
from angelos.hub.background import BackgroundTasks
from angelos.hub.fairness import Ledger
from angelos.hub.letters import DeadLetters
from angelos.hub.limits import SocketLimit
from angelos.hub.loads import MeasuredAdmission, NodeLoads
from angelos.hub.models import Peer, QuarantineRecord, released_id
from angelos.hub.parts import HubParts
from angelos.hub.sessions import HUB, Session, Sessions
from angelos.hub.store import QUARANTINED

log = logging.getLogger(__name__)
_RETRY_S = 60.0
_ENROLMENTS = frozenset({Kind.node_enrolled, Kind.agent_enrolled})
_IDENTITY_FACTS = _ENROLMENTS | {Kind.principal_quarantined, Kind.principal_released}
_STORE_S = 1.0
_SECOND_PERSON_S = 900.0


class Hub:
    """ARAEL, the hub of all connections. See the package's docstring.

    Peers that connect before `app.serve` wait. Leaving the hub closes its listeners.
    """

    def __init__(self, parts: HubParts) -> None:
        self.journal = parts.journal
        self.config = parts.config
        self.listeners = parts.listeners
        self.background = BackgroundTasks()
        self._identities_at: Offset | None = None
        """The last fact about an identity that was acted on."""
        self.loads = NodeLoads(parts.clock)
        admission = MeasuredAdmission(parts.admission, self.loads)
        self.sessions = Sessions(replace(parts, admission=admission), self.background)
        self.event_sockets = SocketLimit()
        self.ledger = Ledger(parts.config.limits)
        self._letters = parts.letters
        self._identities = parts.identities
        self._pki = parts.pki
        self._clock = parts.clock
        self._refused: set[PrincipalId] = set()
        self._parts = parts
        self.shown = parts.shown
        self.refusals = parts.refusals
        self._asked: dict[PrincipalId, tuple[PrincipalId, float]] = {}
        """Who asked first to enrol a live node again, and when; one entry a node."""

    @property
    def url(self) -> str:
        """Where nodes and agents connect with their certificates, `https://host:port`."""
        return self.listeners.peers.url

    @property
    def enrol_url(self) -> str:
        """Where they get their first one."""
        return self.listeners.enrolment.url

    async def __aenter__(self) -> Self:
        try:
            self.sessions.enrolled |= await self._identities.enrolled()
            for quarantine in await self._identities.silent_quarantines():
                await self._announce(quarantine, None)
        except BaseException:
            await self.listeners.close()
            raise
        self.background.keep(self.sessions.tick, "connections")
        self.background.keep(self._keep_renewed, "the hub's certificate")
        self.background.keep(self._follow_identities, "identities of other hubs")
        self.sessions.start()
        log.info("The hub listens at %s, for enrolment at %s", self.url, self.enrol_url)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.sessions.close()
        await self.listeners.close()
        await self.background.close()

    @property
    def certificates(self) -> dict[str, float]:
        """When certificates expire (Unix seconds): the CA's, the hub's, the next of a peer."""
        ends = {"ca": self._pki.ca_not_after, "hub": self._pki.server_not_after}
        peers = self.sessions.expiries()
        return {**ends, "peer": min(peers)} if peers else ends

    @property
    def letters(self) -> DeadLetters:
        """What could not be delivered or read."""
        if self._letters is None:
            raise Unavailable("The stores of this hub keep no dead letters.")
        return self._letters

    # -- authentication ----------------------------------------------------------------------

    async def peer_of(self, request: HTTPServerRequest) -> Peer:
        """Return the peer that sent a request, by its certificate.

        Raises:
            Unauthenticated: the certificate is unknown, expired or revoked, or its owner is
                quarantined.
        """
        if request.connection is None or request.connection.stream.closed():  # pyright: ignore[reportAttributeAccessIssue]
            raise Unauthenticated("The connection was closed before its certificate was read.")
        der = request.get_ssl_certificate(binary_form=True)
        principal, serial = identity_of(der if isinstance(der, bytes) else None)
        peer = await self._identities.check(principal, serial)
        self._check_refused(principal)
        return peer

    def count_request(self, principal: PrincipalId) -> None:
        """Note a request of the control API; raise `Busy` if there were too many."""
        self.ledger.of(principal).request(principal, self._clock.monotonic())

    def count_frame(self, principal: PrincipalId, items: int, size: int, cpu_s: float) -> float:
        """Note what came over a channel; return for how long not to read from it."""
        now = self._clock.monotonic()
        return self.ledger.of(principal).frame(items, size, cpu_s, now)

    def admit(self, peer: Peer, hello: Hello, wire: Wire) -> Session:
        """Give a new connection its session; raise `Unauthenticated` if it was just refused."""
        self._check_refused(peer.principal.id)
        return self.sessions.admit(peer, hello, wire)

    def _check_refused(self, principal: PrincipalId) -> None:
        # PostgreSQL may have answered before the quarantine, or not have stored it at all.
        if principal in self._refused:
            raise Unauthenticated(f"{principal} is quarantined.", reason=QUARANTINED)

    # -- enrolment ---------------------------------------------------------------------------

    async def create_enrolment(self, request: CreateEnrolment, by: PrincipalId) -> EnrolmentView:
        """Make a single-use token.

        Raises:
            Unauthenticated: The name is quarantined.
            Conflict: The name is live. An agent has to be shut out first; for a node a second
                person has to ask for the same; the system's own nodes are the owner's to renew.
        """
        principal = PrincipalId(f"{request.kind}/{request.name}")
        replaces = await self._may_replace(principal, by)
        secret = secrets.token_urlsafe(32)
        role = request.node_role if request.kind == "node" else ""
        expires_at = await self._identities.add_enrolment(
            secret, principal, role, by, request.ttl_s, replaces=replaces
        )
        token = Token(
            url=self.config.enrol_at or self.enrol_url, ca=self._pki.ca_pem, secret=secret
        )
        return EnrolmentView(token=encode_token(token), expires_at=expires_at)

    async def _may_replace(self, principal: PrincipalId, by: PrincipalId) -> bool:
        """Return whether `by` may enrol a name again although it is live."""
        if not principal.startswith("node/") or not await self._identities.is_live(principal):
            return False
        if by == OWNER.id and self._parts.owns(principal):
            return True
        now = self._clock.time()
        first, at = self._asked.get(principal, (by, -math.inf))
        if now - at <= _SECOND_PERSON_S and not self._parts.same_hands(first, by):
            del self._asked[principal]
            return True
        self._asked[principal] = (by, now)
        raise Conflict(
            f"{principal} is alive; a second person has to ask for the same within "
            f"{_SECOND_PERSON_S / 60:g} minutes. No token was made.",
            hint=f"Or shut it out first: `angelos node quarantine {principal[5:]}`.",
        )

    async def enrol(self, request: Enrol) -> Enrolled:
        """Use up a token and issue the first certificate."""
        principal, role, by, issued = await self._identities.enrol(
            request.secret, lambda owner: self._pki.issue(request.csr, owner)
        )
        self.sessions.enrolled.add(principal)
        enrolled: FactPayload = AgentEnrolled(role=role, serial=issued.serial)
        if principal.startswith("node/"):
            node_role = "labs" if role == "labs" else "execution"
            enrolled = NodeEnrolled(role=node_role, serial=issued.serial)
        await self._append(enrolled, principal, by)
        return self._enrolled(principal, role, issued)

    async def renew(self, request: Renew, caller: Principal) -> Enrolled:
        """Renew a valid certificate."""
        peer = await self._identities.check(caller.id, caller.serial)
        issued = await self._identities.renew(
            caller.id, lambda owner: self._pki.issue(request.csr, owner)
        )
        return self._enrolled(caller.id, peer.node_role, issued)

    def _enrolled(self, principal: PrincipalId, role: str, issued: Issued) -> Enrolled:
        return Enrolled(
            id=principal,
            certificate=issued.certificate,
            ca=self._pki.ca_pem,
            hub_url=self.url,
            grant_key=self.config.grant_key,
            revision_key=self.config.revision_key,
            node_role="labs" if role == "labs" else "execution" if role else "",
        )

    # -- core.ports.Signals ------------------------------------------------------------------

    async def quarantine(
        self, principal: PrincipalId, reason: str, *, by: PrincipalId | None = None
    ) -> None:
        """Revoke its certificates, close its connections, refuse it from now on. Idempotent.

        Its connections are closed and new ones refused even when the stores cannot be reached;
        the quarantine survives a restart only once this has returned.
        """
        if principal.startswith("system/"):
            raise InvalidInput(f"{principal} is a part of the system.")
        self._refused.add(principal)
        self._cut(principal, reason)
        record = await self._identities.quarantine(principal, reason[:500])
        # Again: a connection whose check began before the first cut may have been let in since.
        self._cut(principal, reason)
        await self._announce(record, by)

    async def release(
        self,
        principal: PrincipalId,
        *,
        by: PrincipalId | None = None,
        new_key: bool = False,
        probation_until: float = 0.0,
    ) -> None:
        """End a quarantine; its certificate is good again unless it needs a new key. Idempotent."""
        record = await self._identities.quarantine_of(principal)
        if record is not None:
            # The fact comes first and has a fixed id: after a crash in between the principal is
            # still refused, and releasing it again appends nothing twice.
            released = PrincipalReleased(probation_until=probation_until, new_key=new_key)
            await self._append(released, principal, by, released_id(record.fact))
            await self._identities.release(record, new_key=new_key)
        self._refused.discard(principal)

    async def knows(self, principal: PrincipalId) -> bool:
        """Return whether there is such a node or agent, or a token by which it may join."""
        return await self._identities.knows(principal)

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        """Return whether a principal is quarantined."""
        return principal in self._refused or await self._identities.is_quarantined(principal)

    def _cut(self, principal: PrincipalId, reason: str) -> None:
        self.sessions.cut(principal, QUARANTINED, reason)
        closed = self.listeners.peers.cut(principal)
        self.listeners.peers.renew_context(self._pki.server_context())
        log.warning("%s is quarantined (%s); %d connections cut", principal, reason, closed)

    async def _announce(self, record: QuarantineRecord, by: PrincipalId | None) -> None:
        quarantined = PrincipalQuarantined(reason=record.reason)
        await self._append(quarantined, record.principal, by, record.fact)
        await self._identities.announced(record.fact)

    async def _follow_identities(self) -> None:
        """Follow what other hubs and processes do: enrol, quarantine and release."""
        if self._identities_at is None:
            self._identities_at = await self._last()
        while True:
            try:  # whoever was enrolled before; the facts name the rest
                self.sessions.enrolled |= await self._identities.enrolled()
                break
            except Unavailable:
                await asyncio.sleep(_STORE_S)
        async for fact in self.journal.follow(self._identities_at, _IDENTITY_FACTS):
            principal = PrincipalId(fact.subject)
            if fact.kind in _ENROLMENTS:
                self.sessions.enrolled.add(principal)
            elif fact.kind == Kind.principal_released:
                self._refused.discard(principal)
            # Only what PostgreSQL says as well: the fact may be older than a release.
            elif principal not in self._refused and await patiently(
                self._identities.is_quarantined, principal
            ):
                self._refused.add(principal)
                self._cut(principal, "It was quarantined elsewhere.")
            self._identities_at = fact.offset

    async def _last(self) -> Offset:
        while True:
            try:
                return await self.journal.last()
            except Unavailable:
                await asyncio.sleep(_STORE_S)

    # -- inside ------------------------------------------------------------------------------

    async def _append(
        self,
        payload: FactPayload,
        subject: str,
        by: PrincipalId | None,
        id: FactId | None = None,  # noqa: A002 - the header's own name
    ) -> None:
        header: FactHeader = {"on_behalf_of": by}
        if id is not None:
            header["id"] = id
        fact = Fact.of(payload, at=self._clock.time(), actor=HUB, subject=subject, **header)
        await self.journal.append([fact])

    async def _keep_renewed(self) -> None:
        renew_at = self._clock.time() + LIFETIME_S / 2
        while True:
            await sleep_until(renew_at, self._clock)
            await asyncio.sleep(1)
            try:
                renew_at = self._pki.renew_server()
                for listener in (self.listeners.peers, self.listeners.enrolment):
                    self._pki.load_server_chain(listener.context)
            except Exception:  # whatever the cause, without a certificate nobody can connect
                log.exception("The hub's certificate was not renewed")
                renew_at = self._clock.time() + _RETRY_S
