"""What one peer sends up: facts into the journal, settlements and posts into the queues.

A batch is acknowledged to the peer when all of it is durable. Facts come before the settlements
that follow them: a command is never done before its facts are safe. A peer has at most 1,000 facts
in the journal that control has not folded yet; what more it sends waits, here and then with the
sender, so that the facts of others are folded soon.

    refusal = await writer.write(batch)      # an error if the peer broke the rules
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from angelos.adapters.net.link import Link
from angelos.core.errors import AngelError, Forbidden, InvalidInput, TooLarge
from angelos.core.facts import Fact, Kind, from_json
from angelos.core.frames import FactReport, Item, Post, PostReceipt, Settle
from angelos.core.ids import Offset
from angelos.core.permissions import Role
from angelos.core.ports import Admission, Journal
from angelos.hub.consumer import QueueConsumer
from angelos.hub.fairness import FoldCredit, TokenBucket, Turns
from angelos.hub.models import MAX_FACT_BYTES, Peer, check_fact
from angelos.hub.posts import Posts

log = logging.getLogger(__name__)
_WEIGHTS = {Role.node: 2.0}
"""A node's facts end tasks for which others wait."""
_IN_VAIN_A_SECOND, _IN_VAIN_AT_ONCE = 5.0, 20.0
"""So often a peer may have the journal read for facts that are not its to say, before it waits."""
_decode_fact = msgspec.msgpack.Decoder(Fact).decode


@dataclass
class _Sorted:
    """One batch of a peer, up to the first item that is not allowed."""

    facts: list[Fact] = field(default_factory=list[Fact])
    settlements: list[Settle] = field(default_factory=list[Settle])
    posts: list[Post] = field(default_factory=list[Post])
    refusal: AngelError | None = None
    size: int = 0
    """Bytes of all bodies."""


class JournalWriter:
    """Takes the batches of one peer."""

    def __init__(
        self,
        journal: Journal,
        admission: Admission,
        posts: Posts,
        consumer: QueueConsumer,
        link: Link,
        turns: Turns,
        credit: FoldCredit,
    ) -> None:
        self._journal = journal
        self._admission = admission
        self._posts = posts
        self._consumer = consumer
        self._link = link
        self._turns = turns
        self._in_vain = TokenBucket(_IN_VAIN_A_SECOND, _IN_VAIN_AT_ONCE)
        self._credit = credit

    async def write(self, peer: Peer, batch: Sequence[Item]) -> AngelError | None:
        """Make a batch durable; return the refusal of the first item that breaks the rules."""
        who, weight = peer.principal.id, _WEIGHTS.get(peer.principal.role, 1.0)
        content = _sort(peer, batch)
        await self._credit.wait(sum(self._admission.folds(fact.kind) for fact in content.facts))
        async with self._turns.turn(who, max(len(batch), content.size / 1024), weight) as turn:
            facts, rest = self._admitted(content.facts)
            if rest:  # a hub that does not command itself may hear of a task later than its node
                async with turn.given_back():
                    await self._admission.catch_up()
                facts, rest = self._admitted(content.facts)
            receipts = await self._store(peer, content, facts)
        if receipts:  # not in its turn: a peer that does not read keeps nobody waiting
            await self._link.send(receipts)
        if rest:
            log.info("Not written down, late or not its to say: %s %s", who, rest)
            await asyncio.sleep(self._in_vain.take(1, self._link.clock.monotonic()))
        return content.refusal

    async def _store(
        self, peer: Peer, content: _Sorted, facts: Sequence[Fact]
    ) -> list[PostReceipt]:
        if facts:
            self._credit.spend(facts, await self._journal.append(facts))
        if content.settlements:  # only now that their facts are durable
            await self._consumer.settle(content.settlements)
        if not content.posts:
            return []
        return await asyncio.gather(
            *(self._posts.put(peer.principal, post) for post in content.posts)
        )

    def _admitted(self, reported: Sequence[Fact]) -> tuple[list[Fact], set[str]]:
        """Return what is written down, and names of what is not."""
        facts: list[Fact] = []
        rest: set[str] = set()
        for fact in reported:
            if (admitted := self._admission.admitted(fact)) is not None:
                facts.append(admitted)
            elif fact.kind != Kind.node_load:
                rest.add(f"{fact.kind} of {fact.subject}")
        return facts, rest


def _sort(peer: Peer, batch: Sequence[Item]) -> _Sorted:
    content = _Sorted()
    for item in batch:
        try:
            if isinstance(item, FactReport):
                content.facts.append(_fact(peer, item))
                content.size += len(item.body)
            elif isinstance(item, Settle):
                content.settlements.append(item)
            elif isinstance(item, Post):
                content.posts.append(item)
                content.size += len(item.body)
            else:
                name = type(item).__name__
                content.refusal = Forbidden(f"{peer.principal.id} may not send a {name}.")
                break
        except (Forbidden, InvalidInput, TooLarge) as error:
            content.refusal = error
            break
    return content


def _fact(peer: Peer, report: FactReport) -> Fact:
    """Return the fact of a report; raise if this peer may not report it."""
    if len(report.body) > MAX_FACT_BYTES:
        raise TooLarge(f"A fact of {peer.principal.id} is larger than {MAX_FACT_BYTES} bytes.")
    if report.codec == "json":
        fact = msgspec.structs.replace(from_json(report.body), offset=Offset(""))
    else:
        try:
            fact = _decode_fact(report.body)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidInput(f"Not a fact: {error}") from error
    check_fact(fact, peer.principal.id, peer.principal.role)
    return fact
