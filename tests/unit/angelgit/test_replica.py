"""A live document in memory: what it logs, and that it is freed."""

from __future__ import annotations

import gc
import random
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


def test_updates_in_any_order_are_all_seen():
    """pycrdt alone goes on waiting for some of them, though all have come."""
    for seed in range(40):
        drawn, docs = random.Random(seed), [pycrdt.Doc() for _ in range(3)]
        updates: list[bytes] = []
        texts = [doc.get("source", type=pycrdt.Text) for doc in docs]
        for doc in docs:
            doc.observe(lambda event, into=updates: into.append(bytes(event.update)))
        for step in range(25):
            at = drawn.randrange(3)
            if drawn.random() < 0.7 or not len(texts[at]):
                texts[at].insert(drawn.randrange(len(texts[at]) + 1), f"{step},")
            else:
                place = drawn.randrange(len(texts[at]))
                del texts[at][place : min(len(texts[at]), place + 3)]
            docs[drawn.randrange(3)].apply_update(docs[at].get_update())
        for doc in docs[1:]:
            docs[0].apply_update(doc.get_update())
        drawn.shuffle(updates)
        replica = Replica("a.txt", crdt.EMPTY, START)
        for update in updates:
            replica.apply(update)
        assert (replica.text(), replica.deferred) == (str(texts[0]), []), seed
