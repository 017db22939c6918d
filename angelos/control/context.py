"""What the services of control share: projection, ports and policy, and how to make commands.

For example:

    command = context.command(decision, principal, node, payload, ttl_s=60)
    await context.put(command)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from angelos.control.config import ControlConfig
from angelos.control.projection import Projection
from angelos.control.state.models import SUPERVISOR
from angelos.core.api import RetentionView
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Fact
from angelos.core.grants import Grant, digest, sign_grant
from angelos.core.ids import CommandId, PrincipalId, Revision, new_command_id, new_grant_id
from angelos.core.messages import CancelTask, Command, PauseTasks, Payload, RevokeGrants, encode
from angelos.core.permissions import Principal
from angelos.core.policy.engine import Decision, Policy, Request
from angelos.core.ports import (
    Clock,
    ContentStore,
    EnvelopeQueue,
    PatchScorer,
    Repository,
    Signals,
)
from angelos.core.signing import SigningKey

_URGENT = CancelTask | RevokeGrants | PauseTasks
"""Commands that pass what waits in a node's queue."""


class LandingCheck(Protocol):
    """Says from outside this process whether a candidate is what was tested."""

    async def check(self, repo: str, candidate: Revision, main: Revision, tree: str) -> None:
        """Return if a candidate is signed, made on `main`, and has exactly the tested tree.

        Raises:
            Tampered: It is not, or anything of it is not as signed.
            Unavailable: It could not be looked at; nothing moves until it was.
        """
        ...


def hash_id(*parts: str) -> str:
    """Return 32 hex digits that depend on `parts` only: the tail of a repeatable id."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


async def _nothing(subject: str) -> Sequence[Fact]:
    del subject
    return ()


@dataclass(frozen=True, kw_only=True)
class ControlContext:
    """Everything that a handler of effects or requests may need."""

    projection: Projection
    queue: EnvelopeQueue
    repository: Repository
    contents: ContentStore
    """The files that go into tasks and come out of them."""
    signals: Signals
    policy: Policy
    key: SigningKey
    clock: Clock
    config: ControlConfig
    landing: LandingCheck
    """Looks at a tested candidate from another process, before `main` moves."""
    away: Callable[[], str] = str
    """Says which store does not answer, for everybody to see; an empty text if all do."""
    past: Callable[[str], Awaitable[Sequence[Fact]]] = _nothing
    """Returns what lasts about a subject that control does not hold any more."""
    retention: Callable[[], RetentionView | None] = lambda: None
    """Says what is kept of what grows."""
    scorer: PatchScorer | None = None
    """Says how unlike approved history a patch is; None: nobody does."""
    log_behind: Callable[[], float] = float
    """How many seconds the audit log is behind."""
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """By repository; held while `main` moves or a proposal is decided on."""

    def command(
        self,
        decision: Decision,
        principal: PrincipalId,
        to: PrincipalId,
        payload: Payload,
        *,
        ttl_s: float,
        **fields: Any,
    ) -> Command:
        """Return a signed command.

        Args:
            decision: The policy's decision that the grant names.
            principal: In whose name it is carried out.
            to: The node; the grant is for this node only.
            payload: What to do; the grant is for exactly this.
            ttl_s: How long the grant is valid, in seconds.
            fields: Those of `Command`, such as `id` and `deadline`.
        """
        now = self.clock.time()
        body = encode(payload)
        grant = Grant(
            id=new_grant_id(int(now * 1000)),
            who=principal,
            what=digest(body),
            where=to,
            policy=decision.policy,
            rule=",".join(decision.rules),
            not_after=now + ttl_s,
            not_before=now,
        )
        fields.setdefault("id", new_command_id(int(now * 1000)))
        return Command(to=to, grant=sign_grant(self.key, grant), payload=body, **fields)

    async def command_node(
        self, action: str, to: PrincipalId, payload: Payload, key: str = ""
    ) -> None:
        """Queue a command to a node in the supervisor's name; the same `key` queues it once."""
        decision = self.decide_system(action, ("Node", to), quarantined=False)
        fields = {"id": CommandId(f"cmd-{key}")} if key else {}
        command = self.command(
            decision, SUPERVISOR, to, payload, ttl_s=self.config.order_ttl_s, **fields
        )
        lane = Lane.control if isinstance(payload, _URGENT) else Lane.command
        await self.put(command, lane)

    async def put(self, command: Command, lane: Lane = Lane.command) -> None:
        """Queue a command to the node that it is for; the queue keeps it once."""
        header = EnvelopeHeader(
            id=command.id,
            source=SUPERVISOR,
            destination=command.to,
            lane=lane,
            sequence=int(self.clock.time() * 1_000_000),
            codec="msgpack",
            trace=command.trace,
        )
        await self.queue.put(RoutedEnvelope(header, encode(command)))

    def decide_system(
        self, action: str, resource: tuple[str, str], **context: bool | int | str
    ) -> Decision:
        """Return the policy's decision on an action of the supervisor.

        Raises:
            Forbidden: The policy does not allow it.
        """
        if action == "cancel":
            context["own"] = False
        return self.policy.decide(
            Request(
                principal=SUPERVISOR, role="", action=action, resource=resource, context=context
            )
        )

    async def decide(
        self,
        principal: Principal,
        action: str,
        resource: tuple[str, str],
        **context: bool | int | str,
    ) -> Decision:
        """Return the policy's decision on an action of a principal, who may be quarantined.

        Raises:
            Forbidden: The policy does not allow it.
        """
        return self.policy.decide(
            Request(
                principal=principal.id,
                role=principal.role,
                action=action,
                resource=resource,
                context=context | {"quarantined": await self.quarantined(principal.id)},
            )
        )

    async def quarantined(self, *principals: PrincipalId) -> bool:
        """Return whether any of them is quarantined, by the journal or by the hub."""
        if any(principal in self.projection.state.quarantined for principal in principals):
            return True
        return any([await self.signals.is_quarantined(principal) for principal in principals])
