"""Whether a caller has a permission: asked of the policy by every route, the CLI and Jupyter.

>>> from angelos.core.ids import PrincipalId
>>> ada = Principal(id=PrincipalId("agent/ada"), role=Role.agent)
>>> decision(ada, Permission.tasks_run).rules
('agent.works',)
>>> decision(ada, Permission.proposals_review).allowed
False
"""

from __future__ import annotations

from functools import cache

from angelos.core.errors import Forbidden
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.policy.engine import POLICY_DIR, Decision, Policy, Request

SERVICE = ("Service", "angelos")


@cache
def policy_in_force() -> Policy:
    """Return the policy that decides on everything in this process.

    Raises:
        Refused: Its files cannot be relied on; it is read again at the next question.
    """
    return Policy.load(POLICY_DIR)


def question(principal: Principal, permission: Permission) -> Request:
    """Return what the policy is asked; a token is never for less than what `anyone` may."""
    scopes = principal.scopes
    scoped = scopes is not None and permission is not Permission.anyone
    return Request(
        principal=principal.id,
        role="" if principal.id.startswith("system/") else principal.role,
        action=permission,
        resource=SERVICE,
        context={"outside_token": scoped and permission not in (scopes or ())},
    )


def decision(
    principal: Principal, permission: Permission, policy: Policy | None = None
) -> Decision:
    """Return the decision of `policy`, by default the one in force."""
    return (policy or policy_in_force()).ask(question(principal, permission))


def require(principal: Principal, permission: Permission) -> None:
    """Return if the policy allows it.

    Raises:
        Forbidden: It does not; the error names the rules that decided, if any, and the policy.
        Refused: There is no policy that can be relied on.
    """
    policy = policy_in_force()
    answer = decision(principal, permission, policy)
    if not answer.allowed:
        raise Forbidden(
            f"{principal.id} has the role {principal.role}, which lacks {permission}: "
            f"{answer.reason}.",
            hint=policy.hint(answer)
            or f"`angelos policy explain {permission}` names the rules that allow it.",
            permission=str(permission),
            rules=list(answer.rules),
            policy=answer.policy,
        )


def permissions_of(role: Role, policy: Policy | None = None) -> frozenset[Permission]:
    """Return what the policy allows to a role as such, in the hands of its kind of principal.

    >>> Permission.people_manage in permissions_of(Role.operator)
    False
    """
    principal = Principal.example(role)
    return frozenset(p for p in Permission if decision(principal, p, policy).allowed)
