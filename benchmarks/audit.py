"""The audit log: entries a second, their size, proofs, and a start, as the log grows.

1. Lasting facts into the log with fsync as it runs, 500 at once, against the same bytes by plain
   `COPY` into a table of one column: what the tree, the leaves and the salts cost.
2. Bytes an entry on disk, indexes and all, against that table.
3. The proof of a random entry of the whole log, read from the database, against recomputing the
   tree from its leaves, which is what a log without tiles does.
4. A start: the check of the log from its last checkpoint and control's fold from where it was
   saved, against the fold of every fact (of this log; most of its facts leave no state).
5. The check of every entry, which runs beside the system, entries a second.
6. How long another's fact waits until control has folded it, while one peer sends 100,000 as fast
   as it can: with at most 1,000 of them unfolded, and without that limit.

Beside the time that passed, 1 and 3 give the CPU time of this process and of PostgreSQL, which
other programs on the machine do not lengthen.

    python benchmarks/audit.py [--quick] [--json] [--entries N]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.snapshots import SignedSnapshots
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.control.config import ControlConfig
from angelos.control.projection import Projection
from angelos.control.state.models import replace
from angelos.core.facts import Fact, Kind, TaskResult
from angelos.core.frames import FactReport
from angelos.core.ids import Offset, PrincipalId
from angelos.core.messages import Status, Tier
from angelos.core.permissions import Principal, Role
from angelos.core.signing import SigningKey
from angelos.governance.log.checkpoint import LogKeys
from angelos.governance.log.merkle import Frontier, leaf_hash
from angelos.governance.log.models import new_entry
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.signer.client import LocalSigner
from angelos.hub.config import HubConfig
from angelos.hub.fairness import FoldCredits, Turns
from angelos.hub.journal_writer import JournalWriter
from angelos.hub.models import Peer
from angelos.testing import make_fact

BATCH = 500
ROUNDS = 5


def facts(first: int, count: int) -> list[Fact]:
    """Return facts of ends of tasks, as a node reports them."""
    payload = TaskResult(
        status=Status.ok, exit_code=0, stdout="42\n", stderr="", duration_s=0.012,
        node="node/exec1", tier=Tier.full, evidence={},
    )  # fmt: skip
    made = Fact.of(payload, at=1.7e9, actor=PrincipalId("node/exec1"), subject="task", outcome="ok")
    return [
        msgspec.structs.replace(made, subject=f"task-{n:032x}", offset=Offset(f"{n + 1}-0"))
        for n in range(first, first + count)
    ]


class Bench:
    """A log on a PostgreSQL of its own."""

    def __init__(
        self, database: Database, store: AuditStore, signer: LocalSigner, postgres: int
    ) -> None:
        self.database, self.store, self.signer = database, store, signer
        self.size = 0
        self._postgres = postgres

    def cpu(self) -> float:
        """Return the CPU seconds of this process and of PostgreSQL up to now."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                pid, _, rest = stat.read_text().partition(" (")
                fields = rest.rpartition(") ")[2].split()
                if self._postgres in (int(pid), int(fields[1])):
                    # The children's that ended are counted with the postmaster.
                    ticks += sum(map(int, fields[11 : 15 if int(pid) == self._postgres else 13]))
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    async def append(self, batches: int) -> float:
        """Append batches of facts; return seconds."""
        made = [facts(self.size + n * BATCH, BATCH) for n in range(batches)]
        began = time.perf_counter()
        for batch in made:
            await self.store.project(batch)
        self.size += batches * BATCH
        return time.perf_counter() - began

    async def plain(self, batches: int) -> float:
        """Copy the same data into a plain table; return seconds."""
        made = [facts(n * BATCH, BATCH) for n in range(batches)]
        began = time.perf_counter()
        for batch in made:
            async with (
                self.database.transaction() as connection,
                connection.cursor() as cursor,
                cursor.copy("copy plain (body) from stdin (format binary)") as copy,
            ):
                copy.set_types(["bytea"])
                for fact in batch:
                    await copy.write_row((fact.data + fact.subject.encode(),))
        return time.perf_counter() - began


def row(work: str, unit: str, ours: list[float], peer: str, theirs: list[float], *,
        at_least: float | None = None, more_is_better: bool = False) -> dict[str, Any]:  # fmt: skip
    """Return one row of the result; a ratio above 1 means that ours is better."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": unit, "ours": round(a, 3), "peer": peer, "theirs": round(b, 3),
        "ratio": round(a / b if more_is_better else b / a, 3), "at_least": at_least,
        "ours_min_max": [round(min(ours), 3), round(max(ours), 3)],
        "theirs_min_max": [round(min(theirs), 3), round(max(theirs), 3)],
    }  # fmt: skip


async def appends(bench: Bench) -> dict[str, Any]:
    """Time appends, turn about with the plain table."""
    ours, theirs, cpu, batches = [], [], 0.0, 10
    for _ in range(ROUNDS):
        before = bench.cpu()
        ours.append(batches * BATCH / await bench.append(batches))
        cpu += bench.cpu() - before
        theirs.append(batches * BATCH / await bench.plain(batches))
    result = row("lasting facts into the log, durable", "entries/s", ours, "plain COPY", theirs,
                 at_least=10_000.0, more_is_better=True)  # fmt: skip
    return result | {"cpu_us_each": round(cpu / (ROUNDS * batches * BATCH) * 1e6, 1)}


async def grow(bench: Bench, entries: int) -> None:
    """Bring the log to its size, and sign it."""
    while bench.size < entries:
        await bench.append(min(20, (entries - bench.size) // BATCH + 1))
    await bench.store.sign(1.0, None, bench.signer)


async def proofs(bench: Bench, count: int) -> dict[str, Any]:
    """Time proofs against recomputing the tree."""
    signed = await bench.store.last()
    assert signed is not None
    ours, theirs, proof = [], [], None
    leaf = new_entry(facts(0, 1)[0])
    assert leaf is not None
    before = bench.cpu()
    for _ in range(count):
        index = random.randrange(signed.checkpoint.size)
        began = time.perf_counter()
        proof = await bench.store.prove(index, signed)
        ours.append((time.perf_counter() - began) * 1e3)
        proof.verify_in(signed.checkpoint)
    cpu = bench.cpu() - before
    assert proof is not None
    proof.verify([bench.signer.epoch])
    for _ in range(3):
        began = time.perf_counter()
        Frontier().extend(leaf.leaf for _ in range(signed.checkpoint.size)).root()
        theirs.append((time.perf_counter() - began) * 1e3)
    result = row(f"proof of one entry of {signed.checkpoint.size:,}", "ms", ours,
                 "the tree from its leaves", theirs)  # fmt: skip
    return result | {"cpu_us_each": round(cpu / count * 1e6, 1)}


async def sizes(bench: Bench) -> dict[str, Any]:
    """Return bytes an entry."""
    async with bench.database.transaction() as connection:
        result = await connection.execute(
            "select sum(pg_total_relation_size(oid)) filter (where relname <> 'plain') / %s,"
            " sum(pg_total_relation_size(oid)) filter (where relname = 'plain')"
            " / (select count(*) from plain) from pg_class"
            " where relname in ('audit_block', 'audit_tail', 'audit_tile', 'plain')",
            (bench.size,),
        )
        row_ = await result.fetchone()
    assert row_ is not None
    return row("an entry on disk", "B", [float(row_[0])], "plain COPY", [float(row_[1])])


async def starts(bench: Bench, journal: ValkeyJournal, rounds: int) -> dict[str, Any]:
    """Time a start with the saved fold, and one without."""
    key, clock, config = SigningKey(os.urandom(32)), SystemClock(), ControlConfig()

    async def start(*, save: bool = False) -> float:
        began = time.perf_counter()
        async with LogService(journal, bench.database, bench.signer, clock) as log:
            snapshots = SignedSnapshots(bench.database, journal, log, key)
            projection = Projection(journal, clock, config, snapshots)
            await projection.load()
            elapsed = time.perf_counter() - began
            if save:
                await projection.save()
        return elapsed

    await journal.append([make_fact(Kind.task_refused, "task-x", data={"reason": "no"})])
    whole = [await start(save=True)]
    saved = [await start() for _ in range(rounds)]
    return row(f"start at {bench.size:,} facts", "s", saved, "without the saved fold", whole)


class Folding:
    """An `Admission` that accepts every fact, and knows what control has folded."""

    def __init__(self, projection: Projection) -> None:
        self.folds, self.folded = projection.folds, projection.folded

    def admitted(self, fact: Fact) -> Fact | None:
        """Return the fact."""
        return fact

    async def catch_up(self) -> None:
        """Return at once."""


async def delays(journal: ValkeyJournal, count: int, unfolded: int) -> list[float]:
    """Return the seconds that each of another's facts waited while `count` were sent."""
    projection = Projection(journal, SystemClock(), ControlConfig())
    projection.state = replace(projection.state, offset=await journal.last())
    admission, turns = Folding(projection), Turns()
    of = FoldCredits(admission, unfolded).of
    result: list[float] = []

    def sender(name: str) -> Callable[[int], Awaitable[None]]:
        peer = Peer(
            principal=Principal(id=PrincipalId(name), role=Role.node), node_role="", not_after=9e9
        )
        idle: Any = None  # nothing is posted or settled
        writer = JournalWriter(journal, admission, idle, idle, idle, turns, of(peer.principal.id))

        async def send(number: int) -> None:
            data = {"status": "ok", "exit_code": 0, "stdout": "", "stderr": "", "duration_s": 0.1,
                    "node": name, "tier": "full", "evidence": {}}  # fmt: skip
            batch = [
                make_fact(Kind.task_finished, f"task-{n}", actor=name, outcome="ok", data=data)
                for n in range(number)
            ]
            reports = [FactReport(fact.id, msgspec.msgpack.encode(fact)) for fact in batch]
            await writer.write(peer, reports)

        return send

    async def flood(send: Callable[[int], Awaitable[None]]) -> None:
        for _ in range(count // 250):
            await send(250)

    following = asyncio.create_task(projection.follow(lambda _: None))
    flooding = asyncio.create_task(flood(sender("node/loud")))
    calm = sender("node/calm")
    while not flooding.done():
        await asyncio.sleep(0.02)
        began = time.perf_counter()
        await calm(1)
        await projection.folded(await journal.last())
        result.append(time.perf_counter() - began)
    await flooding
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return result


async def folds(journal: ValkeyJournal, count: int) -> dict[str, Any]:
    """Time the fold of others' facts in a flood."""
    ours = [1e3 * s for s in await delays(journal, count, HubConfig().unfolded)]
    theirs = [1e3 * s for s in await delays(journal, count, 10**9)]
    return row(f"another's fact until it is folded, in a flood of {count:,}", "ms", ours,
               "without the limit", theirs)  # fmt: skip


async def checks(bench: Bench) -> dict[str, Any]:
    """Time the check of every entry, against hashing alone."""
    signed = await bench.store.last()
    leaf = new_entry(facts(0, 1)[0])
    assert signed is not None
    assert leaf is not None
    size = signed.checkpoint.size
    began = time.perf_counter()
    await bench.store.check_all(signed)
    ours = size / (time.perf_counter() - began)
    began = time.perf_counter()
    Frontier().extend(leaf_hash(leaf.body) for _ in range(size)).root()
    theirs = size / (time.perf_counter() - began)
    return row("check of every entry, beside the system", "entries/s", [ours],
               "hashing them", [theirs], more_is_better=True)  # fmt: skip


async def main() -> None:
    """Run all and print them, last as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 60 s; a smoke test")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    parser.add_argument("--entries", type=int, default=0, help="of the log that is proved from")
    options = parser.parse_args()
    entries = options.entries or (20_000 if options.quick else 1_000_000)
    with tempfile.TemporaryDirectory(prefix="angelos-bench-") as name:
        folder = Path(name)
        async with (
            EmbeddedPostgres(folder / "postgres", folder / "run") as postgres,
            EmbeddedValkey(folder / "valkey", folder / "run") as valkey,
            Database(postgres.url) as database,
        ):
            await database.migrate(["angelos.hub", "angelos.control", "angelos.governance"])
            async with database.transaction() as connection:
                await connection.execute("create table plain (body bytea)")
            store = AuditStore(database)
            origin = await store.origin()
            signer = LocalSigner(LogKeys(origin, os.urandom(32), os.urandom(32)), origin)
            bench = Bench(database, store, signer, postgres.pid)
            rows = [await appends(bench)]
            await grow(bench, entries)
            rows += [await sizes(bench), await proofs(bench, 50 if options.quick else 500)]
            rows.append(await checks(bench))
            client = connect(valkey.url)
            rows.append(await starts(bench, ValkeyJournal(client, database), 3))
            rows.append(await folds(ValkeyJournal(client), 20_000 if options.quick else 100_000))
            await client.aclose()
    if not options.json:
        for r in rows:
            print(f"{r['work']}: {r['ours']} {r['unit']} (min, max {r['ours_min_max']}); "
                  f"{r['peer']}: {r['theirs']} {r['theirs_min_max']}"
                  + (f"; CPU {r['cpu_us_each']} us" if "cpu_us_each" in r else ""))  # fmt: skip
    machine = {
        "cpus": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }
    print(json.dumps({"benchmark": "audit", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
