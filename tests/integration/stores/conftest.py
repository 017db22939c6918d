"""The journal and the queue twice: in memory and in Valkey, for the tests of what both promise."""

from __future__ import annotations

import pytest

from angelos.adapters.stores.valkey import ValkeyJournal, ValkeyQueue
from angelos.testing import MemoryJournal, MemoryQueue

CAPACITY = 20


@pytest.fixture(params=["memory", "valkey"])
def any_journal(request):
    if request.param == "memory":
        return MemoryJournal()
    return ValkeyJournal(request.getfixturevalue("valkey"))


@pytest.fixture(params=["memory", "valkey"])
def any_queue(request):
    if request.param == "memory":
        return MemoryQueue(capacity=CAPACITY)
    return ValkeyQueue(request.getfixturevalue("valkey"), capacity=CAPACITY)
