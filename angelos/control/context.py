"""What the shells of control share: the ledger, the ports, the policy, and how to make commands.

command = parts.command(decision, who, node, payload, ttl_s=60)
await parts.queue.put(node, command)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from angelos.control.config import ControlConfig
from angelos.control.policy.engine import Decision, Policy, Request
from angelos.control.projection import Ledger
from angelos.control.state.models import SUPERVISOR
from angelos.core.grants import Grant, digest, sign_grant
from angelos.core.ids import CommandId, PrincipalId, new_command_id, new_grant_id
from angelos.core.messages import Command, Payload, encode
from angelos.core.permissions import Principal
from angelos.core.ports import Clock, Queue, Repository, Signals
from angelos.core.signing import SigningKey


def hash_id(*parts: str) -> str:
    """Return 32 hex digits that are the same for the same parts: the tail of a repeatable id."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Everything that an effect may need."""

    ledger: Ledger
    queue: Queue
    repository: Repository
    signals: Signals
    policy: Policy
    key: SigningKey
    clock: Clock
    config: ControlConfig
    locks: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Repository -> held while `main` moves or a proposal is decided on."""

    def command(
        self,
        decision: Decision,
        who: PrincipalId,
        to: PrincipalId,
        payload: Payload,
        *,
        ttl_s: float,
        **fields: Any,
    ) -> Command:
        """Return a command whose grant is for exactly this payload, there, for `ttl_s` seconds.

        `fields` are those of `Command`, such as `id` and `deadline`.
        """
        now = self.clock.time()
        body = encode(payload)
        grant = Grant(
            id=new_grant_id(int(now * 1000)),
            who=who,
            what=digest(body),
            where=to,
            policy=decision.policy,
            rule=",".join(decision.rules),
            not_after=now + ttl_s,
            not_before=now,
        )
        fields.setdefault("id", new_command_id(int(now * 1000)))
        return Command(to=to, grant=sign_grant(self.key, grant), payload=body, **fields)

    async def order(self, action: str, to: PrincipalId, payload: Payload, key: str = "") -> None:
        """Tell a node something in the supervisor's name; the same `key` tells it once."""
        decision = self.decide_system(action, ("Node", to), quarantined=False)
        fields = {"id": CommandId(f"cmd-{key}")} if key else {}
        command = self.command(
            decision, SUPERVISOR, to, payload, ttl_s=self.config.order_ttl_s, **fields
        )
        await self.queue.put(to, command)

    def decide_system(
        self, action: str, resource: tuple[str, str], **context: bool | int | str
    ) -> Decision:
        """Ask the policy for the supervisor; raise `Forbidden`."""
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
        """Ask the policy for somebody, who may be quarantined; raise `Forbidden`."""
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
        """Tell whether any of them is refused, by the journal or by whoever keeps identities."""
        if any(who in self.ledger.state.quarantined for who in principals):
            return True
        return any([await self.signals.is_quarantined(who) for who in principals])
