"""Roles and the permissions of each, defined once for routes, the CLI and Jupyter's authorizer.

>>> Permission.proposals_review in ROLES[Role.agent]
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
    proposals_create = "proposals:create"
    proposals_read = "proposals:read"
    proposals_review = "proposals:review"  # approve or reject
    repositories_create = "repositories:create"
    revisions_read = "revisions:read"
    revisions_rollback = "revisions:rollback"
    audit_read = "audit:read"
    nodes_read = "nodes:read"
    principals_enrol = "principals:enrol"  # tokens for nodes and agents
    principals_quarantine = "principals:quarantine"
    people_manage = "people:manage"
    tokens_manage = "tokens:manage"  # one's own
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


_P = Permission
_VIEW = frozenset(
    {
        _P.anyone,
        _P.status_read,
        _P.events_read,
        _P.documents_read,
        _P.tasks_read,
        _P.proposals_read,
        _P.revisions_read,
        _P.nodes_read,
    }
)
_PEOPLE = _VIEW | {_P.tokens_manage}
_RESEARCH = _PEOPLE | {
    _P.documents_edit,
    _P.tasks_run,
    _P.tasks_cancel,
    _P.proposals_create,
    _P.jupyter_use,
}
_REVIEW = _RESEARCH | {_P.proposals_review, _P.audit_read}
_OPERATE = _REVIEW | {
    _P.revisions_rollback,
    _P.principals_enrol,
    _P.principals_quarantine,
    _P.repositories_create,
}

ROLES: dict[Role, frozenset[Permission]] = {
    Role.viewer: _PEOPLE,
    Role.researcher: _RESEARCH,
    Role.reviewer: _REVIEW,
    Role.operator: _OPERATE,
    Role.admin: _OPERATE | {_P.people_manage},
    Role.agent: _VIEW | {_P.tasks_run, _P.tasks_cancel, _P.proposals_create, _P.messages_send},
    Role.node: frozenset({_P.anyone, _P.revisions_read, _P.messages_send}),
}


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
    expires_at: float | None = None
    """Unix seconds at which its token ends; None: nothing but its generation ends it."""

    def may(self, permission: Permission) -> bool:
        """Return whether role and token both have `permission`."""
        scoped = self.scopes is None or permission is Permission.anyone
        return permission in ROLES[self.role] and (scoped or permission in (self.scopes or ()))


OWNER = Principal(id=PrincipalId("person/owner"), role=Role.admin)
"""Who has the server's own token; the name is reserved."""


def granted(principal: Principal) -> frozenset[Permission]:
    """Return everything that a principal may, by role and token."""
    return frozenset(permission for permission in Permission if principal.may(permission))
