"""One identity cannot hold every socket."""

from __future__ import annotations

import pytest

from angelos.core.errors import Busy
from angelos.core.ids import PrincipalId
from angelos.hub.limits import SocketLimit

VIC, ANN = PrincipalId("person/vic"), PrincipalId("person/ann")


def test_one_socket_too_many_is_busy_and_the_next_identity_is_not_affected():
    limit = SocketLimit(2)
    with limit.held(VIC), limit.held(VIC):
        with pytest.raises(Busy) as error, limit.held(VIC):
            pytest.fail("the third was let in")
        assert error.value.extra["retry_after_s"] > 0
        with limit.held(ANN), limit.held(ANN):
            pass
    with limit.held(VIC), limit.held(VIC):
        pass


def test_a_failed_socket_is_given_back():
    limit = SocketLimit(1)
    for _ in range(3):
        with pytest.raises(OSError, match="gone"), limit.held(VIC):
            raise OSError("gone")
