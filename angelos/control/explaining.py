"""Who a caller is, and why the policy decides as it does: routes that change nothing.

For example:

    GET /whoami
    GET /policy/explain?action=tasks:run&role=viewer
    POST /policy/check {"files": {"roles.cedar": "..."}}
"""

from __future__ import annotations

import asyncio
import math
from typing import Literal

import msgspec

from angelos.control.service import Control
from angelos.control.state.models import ControlState
from angelos.control.state.pauses import figures, is_agent, paused
from angelos.control.state.quarantines import on_probation
from angelos.core.api import (
    BudgetFigure,
    CheckPolicy,
    Explanation,
    PolicyCheck,
    RuleView,
    WhoamiView,
)
from angelos.core.errors import InvalidInput, NotFound, Refused
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role, granted
from angelos.core.policy.access import decision, permissions_of
from angelos.core.policy.engine import Policy, files_in
from angelos.core.routes import Call, Nothing, Route

_MAX_BODY = 32_000
"""Reading rules is slow: half a second for as many as there are."""


def routes(control: Control) -> list[Route]:
    """Return the routes of questions about permission."""

    async def who(call: Call[Nothing]) -> WhoamiView:
        return await whoami(control, call.principal)

    async def explain(call: Call[Nothing]) -> Explanation:
        action, role = call.query.get("action", ""), call.query.get("role", call.principal.role)
        if role not in Role.__members__:
            raise InvalidInput(f"{role[:40]!r} is no role.", hint=f"There are {', '.join(Role)}.")
        return explanation(control.policy, action, Role(role))

    checking = asyncio.Lock()

    async def check(call: Call[CheckPolicy]) -> PolicyCheck:
        async with checking:
            return await asyncio.to_thread(checked, control.policy, call.body.files)

    read = Permission.policy_read
    return [
        Route(
            "GET", "/whoami", Permission.status_read, who, response=WhoamiView,
            summary="The caller: role, permissions, state",
        ),
        Route(
            "GET", "/policy/explain", read, explain, response=Explanation,
            query=("action", "role"), summary="The rules about an action",
        ),
        Route(
            "POST", "/policy/check", Permission.proposals_review, check,
            request=CheckPolicy, response=PolicyCheck,
            max_body=_MAX_BODY, summary="Whether files are a policy, and what they would change",
        ),
    ]  # fmt: skip


async def whoami(control: Control, principal: Principal) -> WhoamiView:
    """Return the caller with what it may do and has open."""
    state = control.projection.state
    return WhoamiView(
        id=principal.id,
        role=principal.role,
        generation=principal.generation,
        state=_standing(state, principal.id, control.now()),
        session=principal.session,
        expires_at=principal.expires_at,
        permissions=tuple(sorted(granted(principal))),
        tasks_open=sum(t.open and t.by == principal.id for t in state.tasks.values()),
        proposals_open=sum(p.open and p.author == principal.id for p in state.proposals.values()),
        budget=_budget(control, principal.id),
        limits=msgspec.structs.asdict(control.config.author_limits),
    )


def _budget(control: Control, principal: PrincipalId) -> dict[str, BudgetFigure]:
    if not is_agent(principal):
        return {}
    most = msgspec.structs.asdict(control.config.budgets.of(principal))
    spent = figures(control.projection.state, principal, control.now())
    return {
        name: BudgetFigure(used=used, most=most[name] if math.isfinite(most[name]) else None)
        for name, used in spent.items()
    }


def _standing(
    state: ControlState, principal: PrincipalId, now: float
) -> Literal["active", "paused", "quarantined", "probation"]:
    if principal in state.quarantined:
        return "quarantined"
    if paused(state, principal):
        return "paused"
    return "probation" if on_probation(state, principal, now) else "active"


def explanation(policy: Policy, action: str, role: Role) -> Explanation:
    """Return the rules that may decide on an action; raise `NotFound` for no action."""
    if action not in policy.actions:
        raise NotFound(
            f"{action[:80]!r} is no action of the policy.",
            hint=f"There are {', '.join(sorted(policy.actions))}.",
        )
    answer = None
    if action in {permission.value for permission in Permission}:
        answer = decision(Principal.example(role), Permission(action), policy)
    return Explanation(
        action=action,
        policy=policy.hash,
        rules=tuple(
            RuleView(id=rule.id, effect=rule.effect, hint=rule.hint, text=rule.text)
            for rule in policy.about(action)
        ),
        role=role,
        allowed=None if answer is None else answer.allowed,
        decided_by=() if answer is None else answer.rules,
    )


def checked(policy: Policy, files: dict[str, str]) -> PolicyCheck:
    """Return whether files, beside those in force, are a policy, and which permissions change."""
    try:
        changed = Policy(files_in() | {name: text.encode() for name, text in files.items()})
    except (Refused, UnicodeEncodeError) as error:
        return PolicyCheck(valid=False, reason=str(error), gained={}, lost={})
    now = {role: permissions_of(role, policy) for role in Role}
    then = {role: permissions_of(role, changed) for role in Role}
    return PolicyCheck(
        valid=True,
        reason="",
        gained={role: tuple(sorted(more)) for role in Role if (more := then[role] - now[role])},
        lost={role: tuple(sorted(less)) for role in Role if (less := now[role] - then[role])},
    )
