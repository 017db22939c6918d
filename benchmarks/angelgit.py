"""AngelGit's commits and merges, and how they grow, beside the git command line.

1. A one-line proposal, from `propose` to `main` moved, in trees of 100, 1,000 and 10,000 files:
   its time, and the bytes that it adds to AngelGit's tables.
2. The commit of one file, all durable, against `git commit` with `core.fsync=all`.

    python benchmarks/angelgit.py [--quick] [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.angelgit.service import AngelGit
from angelos.core.ids import PrincipalId, Revision, new_proposal_id
from angelos.core.repository import NewText
from angelos.core.signing import SigningKey

ADA = PrincipalId("agent/ada")
SIZES = (100, 1_000, 10_000)
GROWTH = 1.5
"""How much longer a proposal may take in a tree of a hundred times as many files."""
BYTES = 4_096
_TABLES = """select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c
where c.relkind = 'r' and c.relname like 'angelgit%'"""


def files(count: int) -> dict[str, bytes]:
    """Return small Python files in twenty folders."""
    return {
        f"d{i % 20}/f{i}.py": "".join(
            f"line {j} of {i}: {(j * 7919 + i) % 10007}\n" for j in range(20)
        ).encode()
        for i in range(count)
    }


@asynccontextmanager
async def repository(folder: Path) -> AsyncIterator[tuple[AngelGit, Database]]:
    """Run AngelGit on stores of its own."""
    runtime = Path(tempfile.mkdtemp(prefix="ag-", dir="/tmp"))
    async with (
        EmbeddedPostgres(folder / "postgres", runtime) as postgres,
        EmbeddedValkey(folder / "valkey", runtime) as valkey,
        Database(postgres.url) as database,
    ):
        await database.migrate(["angelos.angelgit"])
        client = connect(valkey.url)
        git = AngelGit(
            database, client, SigningKey.generate(), SystemClock(), ValkeyJournal(client),
            folder / "workspace",
        )  # fmt: skip
        async with git:
            yield git, database


async def stored(database: Database) -> int:
    """Return the bytes of AngelGit's tables, less what a full vacuum frees."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
        await connection.execute("vacuum full")
        row = await (await connection.execute(_TABLES)).fetchone()
    return int(row[0]) if row else 0


async def promote(git: AngelGit, repo: str, path: str, text: str) -> Revision:
    """Propose a new text and move `main` to it."""
    base = await git.head(repo, "main")
    proposal = new_proposal_id()
    await git.propose(proposal, repo, base, [NewText(path=path, text=text)], ADA, "one line")
    candidate = await git.candidate(proposal)
    await git.advance(repo, candidate.revision, base)
    return candidate.revision


async def growth(git: AngelGit, database: Database, count: int, rounds: int) -> dict[str, Any]:
    """Time one-line proposals in a tree of `count` files, and measure what they add."""
    repo, tree = f"tree-{count}", files(count)
    await git.create(repo, tree, ADA, "import")
    paths = list(tree)[: rounds + 1]
    await promote(git, repo, paths[0], tree[paths[0]].decode().replace("line 7 ", "LINE 7 "))
    before, times = await stored(database), []
    for path in paths[1:]:
        text = tree[path].decode().replace("line 7 ", "LINE 7 ")
        began = time.perf_counter()
        await promote(git, repo, path, text)
        times.append(time.perf_counter() - began)
    added = (await stored(database) - before) / rounds
    return {"files": count, "ms": round(statistics.median(times) * 1e3, 2), "bytes": round(added)}


def git_commits(folder: Path, rounds: int) -> list[float]:
    """Time commits of one file by the git command line, durable as ours are."""
    run = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org",
           "-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync"]  # fmt: skip
    folder.mkdir()
    subprocess.run([*run, "init", "-q"], check=True)
    times = []
    for number in range(rounds + 1):
        (folder / "a.py").write_text(f"x = {number}\n")
        began = time.perf_counter()
        subprocess.run([*run, "add", "a.py"], check=True)
        subprocess.run([*run, "commit", "-qm", "one line"], check=True)
        times.append(time.perf_counter() - began)
    return times[1:]


async def commits(git: AngelGit, rounds: int) -> list[float]:
    """Time proposals merged into `dev`, each one commit of one file."""
    base = await git.create("commits", {"a.py": b"x = 0\n"}, ADA, "import")
    times = []
    for number in range(1, rounds + 2):
        proposal = new_proposal_id()
        edit = NewText(path="a.py", text=f"x = {number}\n")
        await git.propose(proposal, "commits", base, [edit], ADA, "one line")
        began = time.perf_counter()
        base = await git.merge(proposal)
        times.append(time.perf_counter() - began)
    return times[1:]


async def measure(rounds: int, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    """Return the rows of the result."""
    with tempfile.TemporaryDirectory(prefix="angelgit-") as name:
        folder = Path(name)
        async with repository(folder) as (git, database):
            ours = await commits(git, rounds)
            theirs = git_commits(folder / "git", rounds)
            trees = [await growth(git, database, count, rounds) for count in sizes]
    a, b = statistics.median(ours), statistics.median(theirs)
    rows = [
        {
            "work": "commit of one file, all durable", "unit": "ms", "ours": round(a * 1e3, 2),
            "peer": "git CLI, core.fsync=all", "theirs": round(b * 1e3, 2),
            "ratio": round(b / a, 2), "at_least": 3.0,
        }
    ]  # fmt: skip
    small, large = trees[0], trees[-1]
    what = f"one-line proposal, {small['files']} -> {large['files']} files"
    rows.append(
        {
            "work": f"{what}, time", "unit": "ms", "ours": large["ms"], "peer": "itself",
            "theirs": small["ms"], "ratio": round(GROWTH * small["ms"] / large["ms"], 2),
            "at_least": 1.0, "trees": trees,
        }
    )  # fmt: skip
    rows.append(
        {
            "work": f"{what}, AngelGit's tables", "unit": "bytes", "ours": large["bytes"],
            "peer": "bound", "theirs": BYTES, "ratio": round(BYTES / max(1, large["bytes"]), 2),
            "at_least": 1.0,
        }
    )  # fmt: skip
    return rows


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, not evidence")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    rounds, sizes = (3, (100, 1_000)) if args.quick else (args.rounds, SIZES)
    rows = asyncio.run(measure(rounds, sizes))
    if not args.json:
        for row in rows:
            print(f"{row['work']}: {row['ours']} {row['unit']} ({row['peer']}: {row['theirs']}, "
                  f"{row['ratio']}x, at least {row['at_least']}x)", file=sys.stderr)  # fmt: skip
    machine = {"cpus": os.cpu_count(), "system": platform.platform()}
    print(json.dumps({"benchmark": "angelgit", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
