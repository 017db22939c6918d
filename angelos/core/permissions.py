"""Names of permissions and roles, and the principal that has them.

Which role has which permission, the policy says (`core/policy/roles.cedar`): each permission is an
action there, and every route, the CLI and Jupyter's authorizer ask it.

>>> Principal(id=PrincipalId("agent/ada"), role=Role.agent).may(Permission.proposals_review)
False
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from angelos.core.ids import PrincipalId
from angelos.core.principals import Generation


class Permission(StrEnum):
    """One thing that a role may allow."""

    status_read = "status:read"
    events_read = "events:read"
    documents_read = "documents:read"
    documents_edit = "documents:edit"  # type into live documents of dev
    tasks_run = "tasks:run"
    tasks_read = "tasks:read"
    tasks_cancel = "tasks:cancel"
    tasks_serve = "tasks:serve"  # fetch the inputs of one's tasks, keep their outputs
    proposals_create = "proposals:create"
    proposals_read = "proposals:read"
    proposals_review = "proposals:review"  # approve or reject
    repositories_create = "repositories:create"
    repositories_collect = "repositories:collect"  # delete what nothing reaches
    repositories_verify = "repositories:verify"  # read all of one back, page by page
    revisions_read = "revisions:read"
    revisions_rollback = "revisions:rollback"
    audit_read = "audit:read"
    nodes_read = "nodes:read"
    principals_enrol = "principals:enrol"  # tokens for nodes and agents
    principals_quarantine = "principals:quarantine"
    people_manage = "people:manage"
    policy_read = "policy:read"  # check, explain and simulate
    tokens_manage = "tokens:manage"  # one's own
    memory_read = "memory:read"  # one's own, and what is shared
    memory_write = "memory:write"
    models_read = "models:read"
    models_train = "models:train"  # train, measure, and propose as the champion
    models_review = "models:review"  # approve or reject a champion
    models_rollback = "models:rollback"
    messages_send = "messages:send"  # to other nodes and agents
    jupyter_use = "jupyter:use"  # kernels, terminals, files that are not managed
    anyone = "anyone"  # held by all, signed in or not; only for enrolment and OpenAPI


class Role(StrEnum):
    """The role of a person, agent or node."""

    viewer = "viewer"
    researcher = "researcher"
    reviewer = "reviewer"
    operator = "operator"
    admin = "admin"
    agent = "agent"
    node = "node"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The caller, as the server itself has established it (never as the request claims)."""

    id: PrincipalId
    role: Role
    serial: str = ""
    """Serial number of the certificate, hex; empty for people."""
    generation: Generation = Generation(0)
    """Under which it acts (`core.principals`); 0 where nobody keeps one."""
    scopes: frozenset[Permission] | None = None
    """Of its token; None: all that the role may."""
    session: str = ""
    """Id of the token by which it acts, where that is not a person's own."""
    kernel: bool = False
    """It acts by the token of a kernel: code that anybody wrote may be what acts."""
    expires_at: float | None = None
    """Unix seconds at which its token ends; None: nothing but its generation ends it."""

    @property
    def is_program(self) -> bool:
        """Whether a program acts: an agent, or code in a person's kernel."""
        return self.kernel or self.id.startswith("agent/")

    def may(self, permission: Permission) -> bool:
        """Return whether the policy allows `permission` to role and token.

        Raises:
            Refused: There is no policy that can be relied on.
        """
        from angelos.core.policy.access import decision  # it is about principals

        return decision(self, permission).allowed

    @classmethod
    def example(cls, role: Role) -> Principal:
        """Return somebody of a role, of the kind that has it, to ask the policy about."""
        kind = role.value if role in {Role.agent, Role.node} else "person"
        return cls(id=PrincipalId(f"{kind}/example"), role=role)


ALL_AGENTS = PrincipalId("system/agents")
"""Stands for every agent, where all of them are paused at once."""

OWNER = Principal(id=PrincipalId("person/owner"), role=Role.admin)
"""Who has the server's own token; the name is reserved."""


def granted(principal: Principal) -> frozenset[Permission]:
    """Return everything that a principal may, by role and token."""
    return frozenset(permission for permission in Permission if principal.may(permission))
