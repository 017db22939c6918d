"""A live document in memory: what it logs, and that it is freed."""

from __future__ import annotations

import gc
from pathlib import Path

import pycrdt

from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.replica import Replica
from angelos.core.ids import START


def test_a_replica_takes_an_update_once_and_logs_only_what_is_new():
    state = crdt.build("a.txt", "one\n" * 500)
    replica = Replica("a.txt", state, START)
    update = crdt.change("a.txt", state, "one\n" * 500 + "two\n")
    whole = crdt.union("a.txt", state, update)
    logged = replica.apply(whole)
    assert logged is not None
    assert len(logged) < 100 < len(whole)
    assert replica.apply(update) is None
    assert replica.apply(whole) is None
    assert crdt.text_of("a.txt", state, logged) == replica.text()


def test_a_replica_defers_updates_until_the_gap_is_closed():
    state = crdt.build("a.txt", "one\n")
    first = crdt.change("a.txt", state, "one\ntwo\n")
    second = crdt.change("a.txt", crdt.union("a.txt", state, first), "one\ntwo\nthree\n")
    replica = Replica("a.txt", state, START)
    assert replica.apply(second) == second
    assert replica.apply(second) is None
    assert (replica.text(), replica.deferred) == ("one\n", [second])
    assert replica.apply(first) is not None
    assert (replica.text(), replica.deferred) == ("one\ntwo\nthree\n", [])


def test_documents_are_freed():
    """An observed pycrdt document is never freed: every observer has to go again."""
    state = crdt.build("a.txt", "x" * 200_000)

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def work():
        update = crdt.change("a.txt", state, "y" + "x" * 200_000)
        crdt.inverse("a.txt", state, update)
        crdt.contains("a.txt", state, update)
        Replica("a.txt", state, START).apply(update)

    for _ in range(5):
        work()
    before = resident()
    for _ in range(60):
        work()
    assert resident() - before < 20_000_000


def test_snapshots_of_pycrdt_are_not_used():
    """`Doc.from_snapshot` restores wrong text (FACTS.md); states are replayed instead."""
    for source in Path(crdt.__file__).parent.glob("*.py"):
        assert "from_snapshot(" not in source.read_text()
    assert hasattr(pycrdt.Doc, "from_snapshot")
