"""One session per connected peer: its consumer, its writer, and the facts about the peer.

A session lives as long as both ends remember each other: across lost connections, for up to
`resume_s` without one, until the peer restarts or a second connection of the same name takes
over.

    queue -> QueueConsumer -> Dispatch -> peer
    peer -> FactReport, Settle, Post -> JournalWriter -> journal, queues -> only then acknowledged
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import Counter
from dataclasses import replace

from angelos.adapters.net.flag import Flag
from angelos.adapters.net.link import Link, Wire
from angelos.core.channel import Machine
from angelos.core.errors import AngelError, Fenced, NotFound, Unavailable
from angelos.core.facts import (
    AgentConnected,
    AgentDisconnected,
    Fact,
    FactPayload,
    NodeConnected,
    NodeDisconnected,
)
from angelos.core.frames import EndCode, Hello
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.node_profile import TEXTS, read_profile
from angelos.core.permissions import Role
from angelos.core.refusals import RefusedCall
from angelos.hub.background import BackgroundTasks
from angelos.hub.consumer import QueueConsumer
from angelos.hub.fairness import SLICE, FoldCredit, FoldCredits, Turns
from angelos.hub.journal_writer import JournalWriter
from angelos.hub.models import Peer
from angelos.hub.neighbours import EVERY_S, Neighbours
from angelos.hub.parts import HubParts
from angelos.hub.posts import Posts
from angelos.hub.routing import ConnectedPeer, choose, labels_of

log = logging.getLogger(__name__)
HUB = PrincipalId("system/hub")
_CLOSE_S = 10.0
"""So long the last facts of peers may take when the hub ends."""
_INFO = frozenset({"tier", "pid"}) | TEXTS
"""What a peer's hello may say of itself in the journal."""


class Session:
    """The hub's end of one peer's channel, for one life of that peer."""

    __slots__ = (
        "_announced",
        "_parts",
        "_writer",
        "consumer",
        "id",
        "info",
        "link",
        "over",
        "peer",
    )

    def __init__(
        self, peer: Peer, parts: HubParts, posts: Posts, turns: Turns, credit: FoldCredit
    ) -> None:
        self.peer = peer
        self.id = peer.principal.id
        self.link = Link(self.id, Machine(secrets.token_hex(16), parts.config.channel), parts.clock)
        self.info: dict[str, str] = {}
        self.over = Flag()
        self._announced = Flag()  # the journal has the fact that the peer connected
        self._parts = parts
        self.consumer = QueueConsumer(parts.queue, self.link, self.link.machine.session)
        self._writer = JournalWriter(
            parts.journal, parts.admission, posts, self.consumer, self.link, turns, credit
        )

    def attach(self, peer: Peer, hello: Hello, wire: Wire) -> None:
        """Continue over a new connection."""
        self.peer = peer
        self.info = {key: value for key, value in hello.info.items() if key in _INFO}
        self.link.connected(wire, lambda now: self.link.machine.accept(hello, now))

    async def run(self, before: Session | None) -> None:
        """Carry messages until the link has ended for good; first wait for `before` to end."""
        try:
            if before is not None:
                await before.over.wait()  # its facts come first, and it still holds the queue
            async with asyncio.TaskGroup() as group:
                presence = group.create_task(self._record_presence())
                consuming = group.create_task(self.consumer.run())
                await self._receive()
                consuming.cancel()
                await presence
        except* AngelError as errors:
            error = errors.exceptions[0]
            log.warning("The session of %s ends: %s", self.id, error)
            self.link.end(EndCode.unavailable, str(error)[:300])
        except* Exception:
            log.exception("The session of %s failed", self.id)
            self.link.end(EndCode.unavailable, "The hub failed; its log has more.")
        finally:
            self.link.end(EndCode.shutdown)
            self.over.set()

    async def _receive(self) -> None:
        """Write down what the peer sends, until the link has ended."""
        await self._announced.wait()
        while True:
            try:
                batch = await self.link.recv(SLICE)
                refusal = await self._writer.write(self.peer, batch)
            except Fenced:
                self.link.end(EndCode.fenced, "Another hub has a newer connection of this peer.")
                return
            except Unavailable:
                if self.link.ended is None:
                    raise
                return
            if refusal is not None:
                log.warning("%s broke the rules: %s", self.id, refusal)
                self._parts.refusals.record(
                    RefusedCall(
                        principal=self.id,
                        door="channel",
                        act="send",
                        code=refusal.code,
                        reason=refusal.detail,
                    )
                )
                self.link.end(EndCode.refused, refusal.detail)
                return

    async def _record_presence(self) -> None:
        """Append a fact when the peer connects or disconnects; end the link if it stays away."""
        role = self.peer.principal.role
        while self.link.ended is None:
            try:
                async with asyncio.timeout(self._parts.config.resume_s):
                    await self.link.up.wait()
            except TimeoutError:
                self.link.end(EndCode.absent, "The peer stayed away.")
            if self.link.wire is None:
                continue
            await self._append(self._connected(role))
            self._announced.set()
            await self.link.down.wait()
            end = self.link.last_end
            await self._append(self._disconnected(role, end.code if end else EndCode.lost))
        self._announced.set()

    def tick(self) -> None:
        """Look after the connection: ping, give up, or end it with its certificate."""
        self.link.tick()
        if self._parts.clock.time() > self.peer.not_after:
            self.link.drop(EndCode.expired, "The certificate has expired; renew it.")

    def _disconnected(self, role: Role, code: str) -> NodeDisconnected | AgentDisconnected:
        if role is Role.node:
            return NodeDisconnected(code=code, hub=self._parts.config.name)
        return AgentDisconnected(code=code)

    def _connected(self, role: Role) -> NodeConnected | AgentConnected:
        serial, tier = self.peer.principal.serial, self.info.get("tier", "")
        pid = self.info.get("pid", "")
        if role is not Role.node:
            return AgentConnected(role=self.peer.node_role, tier=tier, serial=serial, pid=pid)
        return NodeConnected(
            role="labs" if self.peer.node_role == "labs" else "execution",
            # The hello may hold anything; a tier that does not exist isolates nothing.
            tier=Tier(tier) if tier in set(Tier) else Tier.none,
            serial=serial,
            pid=pid,
            profile=read_profile(self.info),
            hub=self._parts.config.name,
        )

    async def _append(self, payload: FactPayload) -> None:
        now = self._parts.clock.time()
        fact = Fact.of(payload, at=now, actor=HUB, subject=self.id)
        await self._parts.journal.append([fact])


class Sessions:
    """The sessions by principal: at most one current session for each."""

    def __init__(self, parts: HubParts, background: BackgroundTasks) -> None:
        self._parts = parts
        self._posts = Posts(parts.queue, self, parts.journal, parts.clock)
        self._background = background
        self._turns = Turns()
        self._credits = FoldCredits(parts.admission, parts.config.unfolded)
        self._sessions: dict[PrincipalId, Session] = {}
        self.enrolled: set[PrincipalId] = set()
        """Every name that was ever enrolled; the hub keeps it up to date."""
        self._neighbours: Neighbours | None = None
        self._sent: Counter[PrincipalId] = Counter()
        self._sent_since = 0.0

    def start(self) -> None:
        """Begin to share with the other hubs who is connected."""
        if self._parts.announcements is not None:
            url = self._parts.listeners.peers.url
            self._neighbours = Neighbours(self._parts.announcements, url, self.local)
            self._background.keep(self._neighbours.run, "peers of other hubs")

    async def tick(self) -> None:
        """Look after all connections, for ever."""
        while True:
            await asyncio.sleep(self._parts.config.tick_s)
            for session in list(self._sessions.values()):
                session.tick()

    def admit(self, peer: Peer, hello: Hello, wire: Wire) -> Session:
        """Return the session that a new connection continues, or start one.

        An earlier connection of that principal is ended.
        """
        before = self._sessions.get(peer.principal.id)
        if (
            before is not None
            and before.link.ended is None
            and before.link.machine.remembers(hello)
        ):
            before.attach(peer, hello, wire)
            return before
        if before is not None:
            before.link.end(EndCode.fenced, "Another connection with this certificate took over.")
        credit = self._credits.of(peer.principal.id)
        session = Session(peer, self._parts, self._posts, self._turns, credit)
        self._sessions[session.id] = session
        session.attach(peer, hello, wire)
        self._background.start(self._run(session, before), f"session {session.id}")
        return session

    async def _run(self, session: Session, before: Session | None) -> None:
        try:
            await session.run(before)
        finally:
            if self._sessions.get(session.id) is session:
                del self._sessions[session.id]

    async def resolve(self, to: str, sticky: str) -> PrincipalId:
        """Return the principal that a post is for.

        Raises:
            NotFound: Nobody connected has these labels, or nobody was ever enrolled by this name.
            InvalidInput: It is neither a name nor labels.
        """
        # Nothing is awaited: posts of one sender keep their order by the order of these calls.
        if "/" in to:
            destination = choose(to, sticky, [])
            self._check_enrolled(destination)
            return destination
        destination = choose(to, sticky, self.candidates())
        self._sent[destination] += 1
        return destination

    def _check_enrolled(self, destination: PrincipalId) -> None:
        """Raise `NotFound` for a node or agent whose name never was one's."""
        if destination.startswith(("node/", "agent/")) and destination not in self.enrolled:
            raise NotFound(
                f"Nobody was ever enrolled as {destination}.",
                hint="Names are spelt as `angelos hub peers` lists them.",
            )

    def expiries(self) -> list[float]:
        """Return when the certificate of each connected peer ends (Unix seconds)."""
        return [s.peer.not_after for s in self._sessions.values() if s.link.wire is not None]

    def candidates(self) -> list[ConnectedPeer]:
        """Return who is connected, to this hub or, about a second ago, to another."""
        # What was sent a moment ago is not with its peer yet, and a part of its load all the same.
        now = self._parts.clock.monotonic()
        if now - self._sent_since > EVERY_S:
            self._sent.clear()
            self._sent_since = now
        peers = {peer.principal: peer for peer in self.local()}
        if self._neighbours is not None:
            peers = {peer.principal: peer for peer in self._neighbours.peers()} | peers
        return [
            replace(peer, load=peer.load + self._sent[peer.principal]) for peer in peers.values()
        ]

    def local(self) -> list[ConnectedPeer]:
        """Return who is connected to this hub."""
        return [
            ConnectedPeer(
                session.id,
                labels_of(session.peer.node_role, session.info.get("labels", "")),
                session.consumer.load,
                session.link.machine.codec.subprotocol,
            )
            for session in self._sessions.values()
            if session.link.wire is not None
        ]

    def cut(self, principal: PrincipalId, code: str, reason: str) -> None:
        """End a principal's session, if there is one."""
        if (session := self._sessions.get(principal)) is not None:
            session.link.end(code, reason)

    async def close(self) -> None:
        """End all sessions; facts that have arrived are still appended.

        A session that waits for a fold that stands still is left to its cancellation: its peer
        sends again what was not acknowledged.
        """
        sessions = list(self._sessions.values())
        for session in sessions:
            session.link.end(EndCode.shutdown, "The hub is shutting down.")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                for session in sessions:
                    await session.over.wait()
