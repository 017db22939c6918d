"""Whom another identity provider signs in is a viewer, and never the owner."""

from __future__ import annotations

import pytest
from jupyter_server.auth.identity import User

from angelos.core.ids import is_principal
from angelos.core.permissions import OWNER, Role
from jupyter_ext.auth.identity import principal_of, user_of


@pytest.mark.parametrize("name", ["ann", "owner", "a b", "ann~2", "", "\u0430nn", "x" * 300])
def test_a_foreign_user_is_a_viewer(name):
    principal = principal_of(User(username=name or "-", name=name))
    assert principal.role is Role.viewer
    assert principal.id != OWNER.id
    assert is_principal(principal.id)
    assert "~" not in principal.id


def test_our_own_users_are_who_they_are():
    assert principal_of(user_of(OWNER)) == OWNER
