"""Fakes and fixtures for people who test what they build on AngelOS.

In a `conftest.py`:

    from angelos.testing import clock, database, journal, queue, stores, valkey  # noqa: F401

    async def test_it_says_so(journal, clock):
        await journal.append([make_fact("task.accepted", "task-1", clock=clock)])
        fact = await next_fact(journal, kind="task.accepted")

`stores` starts a real PostgreSQL and Valkey once a session; each test gets a fresh database and
an empty Valkey. The fakes (`MemoryJournal`, `MemoryEnvelopeQueue`, `ManualClock`) need neither.
"""

from angelos.testing.fixtures import (
    StoreAddresses,
    clock,
    database,
    eventually,
    facts_until,
    journal,
    make_fact,
    need,
    next_fact,
    queue,
    stores,
    valkey,
)
from angelos.testing.intake import MemoryGenerations, MemoryIntake
from angelos.testing.memory import ManualClock, MemoryContents, MemoryJournal
from angelos.testing.queues import MemoryEnvelopeQueue, MemoryLeases
from angelos.testing.repository import MemoryRepository
from angelos.testing.revisions import signed_bundle
from angelos.testing.sandbox import ScriptedBox, ScriptedSandbox

__all__ = [
    "ManualClock",
    "MemoryContents",
    "MemoryEnvelopeQueue",
    "MemoryGenerations",
    "MemoryIntake",
    "MemoryJournal",
    "MemoryLeases",
    "MemoryRepository",
    "ScriptedBox",
    "ScriptedSandbox",
    "StoreAddresses",
    "clock",
    "database",
    "eventually",
    "facts_until",
    "journal",
    "make_fact",
    "need",
    "next_fact",
    "queue",
    "signed_bundle",
    "stores",
    "valkey",
]
