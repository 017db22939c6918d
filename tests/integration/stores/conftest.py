"""The journal twice: in memory and in Valkey, for the tests of what it promises."""

from __future__ import annotations

import pytest

from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.testing import MemoryJournal


@pytest.fixture(params=["memory", "valkey"])
def any_journal(request):
    if request.param == "memory":
        return MemoryJournal()
    return ValkeyJournal(request.getfixturevalue("valkey"))
