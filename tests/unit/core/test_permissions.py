"""Roles: what each may never do."""

import itertools

from angelos.core.ids import PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.policy.access import permissions_of

P = Permission
ROLES = {role: permissions_of(role) for role in Role}


def test_agents_and_nodes_never_review_roll_back_enrol_or_type() -> None:
    never = {P.proposals_review, P.revisions_rollback, P.principals_enrol, P.documents_edit,
             P.principals_quarantine, P.people_manage, P.audit_read, P.jupyter_use}  # fmt: skip
    assert not ROLES[Role.agent] & never
    assert not ROLES[Role.node] & (never | {P.tasks_run, P.proposals_create})


def test_a_viewer_only_reads() -> None:
    assert all(
        p.value.endswith(":read") or p in {P.anyone, P.tokens_manage} for p in ROLES[Role.viewer]
    )


def test_each_role_of_people_holds_what_the_one_below_holds() -> None:
    ladder = [Role.viewer, Role.researcher, Role.reviewer, Role.operator, Role.admin]
    for below, above in itertools.pairwise(ladder):
        assert ROLES[below] < ROLES[above]


def test_only_an_admin_manages_people() -> None:
    assert [role for role in Role if P.people_manage in ROLES[role]] == [Role.admin]
    assert not Principal(id=PrincipalId("person/x"), role=Role.operator).may(P.people_manage)
