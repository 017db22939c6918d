"""One session per connected peer: commands down, facts up, and the facts about the peer itself.

A session lives as long as both ends remember each other: over lost connections, for `resume_s`
without one, until the peer restarts or a second connection of the same name takes over.

    queue.take(peer) -> Envelope "command" -> peer
    peer -> Envelope "fact" -> checked -> journal.append -> only then acknowledged
    peer -> Envelope "ack" (id of a finished command) -> Delivery.ack
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import aclosing
from typing import Any, cast

from angelos.adapters.net.link import Link, Wire
from angelos.core.channel import Machine
from angelos.core.errors import AngelError, Forbidden, InvalidInput, TooLarge, Unavailable
from angelos.core.frames import Envelope, Hello
from angelos.core.ids import CommandId, PrincipalId, new_fact_id
from angelos.core.messages import Fact, Kind, decode, encode
from angelos.core.permissions import Role
from angelos.core.ports import Clock, Delivery, Journal, Queue
from angelos.hub.background import Tasks
from angelos.hub.config import HubConfig
from angelos.hub.models import MAX_FACT_BYTES, Expects, Peer, check_fact, everything

log = logging.getLogger(__name__)
HUB = PrincipalId("system/hub")
_CONNECTED = {Role.node: Kind.node_connected, Role.agent: Kind.agent_connected}
_DISCONNECTED = {Role.node: Kind.node_disconnected, Role.agent: Kind.agent_disconnected}
_SAID = frozenset({"tier", "pid"})


class Session:
    """What the hub knows of one life of one peer."""

    def __init__(
        self,
        peer: Peer,
        journal: Journal,
        queue: Queue,
        clock: Clock,
        config: HubConfig,
        expects: Expects,
    ) -> None:
        """Belong to `peer`; nothing runs before `run`."""
        self.peer = peer
        self.id = peer.principal.id
        self.link = Link(self.id, Machine(secrets.token_hex(16), config.channel), clock)
        self.info: dict[str, str] = {}
        self.over = asyncio.Event()
        self._told = asyncio.Event()  # the journal knows that the peer is here
        self._journal, self._queue, self._clock, self._config = journal, queue, clock, config
        self._expects = expects
        self._open: dict[CommandId, Delivery] = {}  # handed to the peer, not finished there

    def attach(self, peer: Peer, hello: Hello, wire: Wire) -> None:
        """Go on over a new connection."""
        self.peer = peer
        self.info = {key: value for key, value in hello.info.items() if key in _SAID}
        self.link.connected(wire, lambda now: self.link.machine.accept(hello, now))

    async def run(self, before: Session | None) -> None:
        """Carry messages until the link has ended for good; first let the one `before` end."""
        try:
            if before is not None:
                await before.over.wait()  # its facts come first, and it holds the queue
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                helpers = [group.create_task(self._commands()), group.create_task(self._tick())]
                await self._facts()
                for helper in helpers:
                    helper.cancel()
                await watch
        except* AngelError as errors:
            error = errors.exceptions[0]
            log.warning("The session of %s ends: %s", self.id, error)
            self.link.end("unavailable", str(error)[:300])
        except* Exception:
            log.exception("The session of %s failed", self.id)
            self.link.end("unavailable", "The hub failed; its log has more.")
        finally:
            self.link.end("shutdown")
            self.over.set()

    async def _commands(self) -> None:
        deliveries = self._queue.take(self.id)
        async with aclosing(cast("Any", deliveries)):
            async for delivery in deliveries:
                command = delivery.command
                self._open[command.id] = delivery
                try:
                    await self.link.send([Envelope("command", command.id, encode(command))])
                except TooLarge:
                    log.exception("Command %s stays in the queue: no frame holds it", command.id)
                except Unavailable:
                    return  # the link has ended; what is not acknowledged stays in the queue

    async def _facts(self) -> None:
        await self._told.wait()
        while True:
            try:
                batch = await self.link.recv()
            except Unavailable:
                return
            facts: list[Fact] = []
            done: list[Delivery] = []
            refused = self._sort(batch, facts, done)
            wanted = [fact for fact in facts if self._expects(fact)]
            if len(wanted) < len(facts):
                late = {f"{fact.kind} of {fact.subject}" for fact in facts if fact not in wanted}
                log.info("%s is late, or speaks of others' tasks: %s", self.id, sorted(late))
            if wanted:
                await self._journal.append(wanted)
            for delivery in done:  # after its facts are safe
                await delivery.ack()
            if refused is not None:
                log.warning("%s broke the rules: %s", self.id, refused)
                self.link.end("refused", refused.detail)
                return

    def _sort(
        self, batch: list[Envelope], facts: list[Fact], done: list[Delivery]
    ) -> AngelError | None:
        """Sort a batch out up to the first envelope that this peer may not send."""
        for envelope in batch:
            try:
                if envelope.kind == "fact":
                    if len(envelope.body) > MAX_FACT_BYTES:
                        return TooLarge(
                            f"A fact of {self.id} is larger than {MAX_FACT_BYTES} bytes."
                        )
                    fact = decode(envelope.body, Fact)
                    check_fact(fact, self.id, self.peer.principal.role)
                    facts.append(fact)
                elif envelope.kind == "ack":
                    delivery = self._open.pop(CommandId(envelope.id), None)
                    if delivery is not None:  # a second ack of the same command is one
                        done.append(delivery)
                else:
                    return Forbidden(f"{self.id} may not send {envelope.kind} envelopes.")
            except (Forbidden, InvalidInput) as error:
                return error
        return None

    async def _watch(self) -> None:
        """Tell the journal when the peer comes and goes; forget it when it stays away."""
        role = self.peer.principal.role
        while self.link.ended is None:
            try:
                async with asyncio.timeout(self._config.resume_s):
                    await self.link.up.wait()
            except TimeoutError:
                self.link.end("gone", "The peer stayed away.")
            if self.link.wire is None:
                continue
            data = {"role": self.peer.node_role, "serial": self.peer.principal.serial, **self.info}
            await self._say(_CONNECTED[role], data)
            self._told.set()
            await self.link.down.wait()
            end = self.link.last_end
            await self._say(_DISCONNECTED[role], {"code": end.code if end else "lost"})
        self._told.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._config.tick_s)
            self.link.tick()
            if self._clock.time() > self.peer.not_after:
                self.link.drop("expired", "The certificate has expired; renew it.")

    async def _say(self, kind: Kind, data: dict[str, Any]) -> None:
        now = self._clock.time()
        fact = Fact(
            id=new_fact_id(int(now * 1000)), at=now, actor=HUB, kind=kind, subject=self.id,
            data=data,
        )  # fmt: skip
        await self._journal.append([fact])


class Sessions:
    """The sessions by principal: at most one that counts for each."""

    def __init__(
        self,
        journal: Journal,
        queue: Queue,
        clock: Clock,
        config: HubConfig,
        tasks: Tasks,
        expects: Expects = everything,
    ) -> None:
        """Start with none; `tasks` owns what they run."""
        self._parts = (journal, queue, clock, config, expects)
        self._tasks = tasks
        self._sessions: dict[PrincipalId, Session] = {}

    def admit(self, peer: Peer, hello: Hello, wire: Wire) -> Session:
        """Return the session that a new connection continues, or begin one.

        Whichever connection of that principal was there before is fenced off.
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
            before.link.end("fenced", "Another connection with this certificate took over.")
        session = Session(peer, *self._parts)
        self._sessions[session.id] = session
        session.attach(peer, hello, wire)
        self._tasks.start(self._run(session, before), f"session {session.id}")
        return session

    async def _run(self, session: Session, before: Session | None) -> None:
        try:
            await session.run(before)
        finally:
            if self._sessions.get(session.id) is session:
                del self._sessions[session.id]

    def cut(self, principal: PrincipalId, code: str, reason: str) -> None:
        """End a principal's session, if there is one."""
        if (session := self._sessions.get(principal)) is not None:
            session.link.end(code, reason)

    async def close(self) -> None:
        """End all sessions; facts that have come are still written."""
        sessions = list(self._sessions.values())
        for session in sessions:
            session.link.end("shutdown", "The hub is going down.")
        for session in sessions:
            await session.over.wait()
