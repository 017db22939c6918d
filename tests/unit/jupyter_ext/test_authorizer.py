"""Which role may do what in Jupyter; what is not in the table is refused."""

from __future__ import annotations

import pytest

from angelos.core.permissions import Role
from angelos.core.policy.access import permissions_of
from jupyter_ext.auth.authorizer import TABLE, permission_for


@pytest.mark.parametrize("resource", sorted(TABLE))
@pytest.mark.parametrize("action", ["write", "execute"])
def test_a_viewer_changes_and_runs_nothing(resource, action):
    permission = permission_for(action, resource)
    harmless = {("csp", "write"), ("events", "execute")}  # a browser's report; listening
    assert (resource, action) in harmless or permission not in permissions_of(Role.viewer)


@pytest.mark.parametrize("resource", ["contents", "kernels", "sessions", "terminals", "api"])
def test_a_viewer_reads(resource):
    assert permission_for("read", resource) in permissions_of(Role.viewer)


@pytest.mark.parametrize("resource", ["kernels", "terminals", "sessions"])
def test_a_researcher_runs(resource):
    assert permission_for("execute", resource) in permissions_of(Role.researcher)


@pytest.mark.parametrize(
    ("action", "resource"),
    [("read", "unheard-of"), ("erase", "contents"), ("execute", "contents"), ("", "")],
)
def test_what_is_not_known_is_refused(action, resource):
    assert permission_for(action, resource) is None


def test_agents_and_nodes_have_no_kernels_and_no_files_to_write():
    for role in (Role.agent, Role.node):
        for resource, action in (("kernels", "execute"), ("contents", "write"), ("room", "write")):
            assert permission_for(action, resource) not in permissions_of(role)
