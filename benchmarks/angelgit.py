"""AngelGit beside its peers, row by row; growth rows beside themselves.

    python benchmarks/angelgit.py [--quick] [--json] [--rounds N] [--only ROW ...] [--list]

Every row sets up what it needs, so that each can be run alone within a few minutes. Peers that are
not installed are named as such. Ratios above 1 mean that we are better.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pycrdt

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import DataDir
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.angelgit.service import AngelGit
from angelos.client.rooms import RoomClient, clock_of
from angelos.core.ids import DocumentId, PrincipalId, Revision, new_proposal_id
from angelos.core.repository import NewText
from angelos.core.signing import SigningKey

sys.path.insert(0, str(Path(__file__).parent))
from peers.git_http import git_http_backend
from peers.jupyter_room import plain_jupyter

ADA, EVE = PrincipalId("agent/ada"), PrincipalId("person/eve")
TEST_S = 0.1
GROWTH = 1.5
"""How much longer a proposal may take in a tree of a hundred times as many files."""
_TABLES = """select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c
where c.relkind = 'r' and c.relname like 'angelgit%'"""
_WHOLE = "select pg_database_size(current_database())"
Row = dict[str, Any]


class Options(NamedTuple):
    """How much is measured."""

    rounds: int
    quick: bool
    trace: Path | None
    """The automerge-paper editing trace (https://github.com/automerge/automerge-perf)."""


class Repository(NamedTuple):
    """AngelGit on stores of its own."""

    git: AngelGit
    database: Database
    folder: Path


# -- what rows are made of -------------------------------------------------------------------


def files(count: int) -> dict[str, bytes]:
    """Return small Python files in twenty folders."""
    return {
        f"d{i % 20}/f{i}.py": "".join(
            f"line {j} of {i}: {(j * 7919 + i) % 10007}\n" for j in range(20)
        ).encode()
        for i in range(count)
    }


def changed(text: bytes, line: int, word: str = "CHANGED") -> str:
    """Return a text of `files` with one line changed."""
    return text.decode().replace(f"line {line} ", f"{word} {line} ", 1)


def row(work: str, peer: str, times: tuple[list[float], list[float]], at_least: float) -> Row:
    """Return a row of two interleaved series of seconds."""
    ours, theirs = times
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "ms", "ours": round(a * 1e3, 2), "peer": peer,
        "theirs": round(b * 1e3, 2), "ratio": round(b / a, 3), "at_least": at_least,
        "ours_min_max": [round(min(ours) * 1e3, 2), round(max(ours) * 1e3, 2)],
        "theirs_min_max": [round(min(theirs) * 1e3, 2), round(max(theirs) * 1e3, 2)],
    }  # fmt: skip


def bound(work: str, unit: str, ours: float, most: float, **more: object) -> Row:
    """Return a row of a figure that must not be above a bound."""
    least = 1.0 if unit == "bytes" else 1e-3
    return {
        "work": work, "unit": unit, "ours": round(ours, 3), "peer": "bound", "theirs": most,
        "ratio": round(most / max(ours, least), 3), "at_least": 1.0, **more,
    }  # fmt: skip


def missing(work: str, peer: str, at_least: float) -> Row:
    """Return a row of a peer that is not here."""
    return {"work": work, "peer": f"{peer}: not installed", "ratio": None, "at_least": at_least}


async def turn_about(
    rounds: int,
    ours: Callable[[int], Awaitable[float]],
    theirs: Callable[[int], Awaitable[float]],
) -> tuple[list[float], list[float]]:
    """Run both turn about after one warm-up each; each returns the seconds that it took."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(-1, rounds):
        pair = [(ours, times[0]), (theirs, times[1])]
        for work, into in pair if number % 2 else reversed(pair):
            seconds = await work(number)
            if number >= 0:
                into.append(seconds)
    return times


@asynccontextmanager
async def repository() -> AsyncIterator[Repository]:
    """Run AngelGit on stores of its own."""
    with tempfile.TemporaryDirectory(prefix="angelgit-") as name:
        folder, runtime = Path(name), Path(tempfile.mkdtemp(prefix="ag-", dir="/tmp"))
        async with (
            EmbeddedPostgres(folder / "postgres", runtime) as postgres,
            EmbeddedValkey(folder / "valkey", runtime) as valkey,
            Database(postgres.url) as database,
        ):
            await database.migrate(["angelos.angelgit"])
            client = connect(valkey.url)
            async with make(database, client, folder) as git:
                yield Repository(git, database, folder)
            await client.aclose()


def make(database: Database, client: Any, folder: Path) -> AngelGit:
    """Return AngelGit, to be entered."""
    key = SigningKey(b"k" * 32)
    return AngelGit(
        database, client, key, SystemClock(), ValkeyJournal(client), folder / "workspace"
    )


async def measured(database: Database, query: str) -> int:
    """Return a number of bytes, less what a full vacuum frees."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as connection:
        await connection.execute("vacuum full")
        row = await (await connection.execute(query.encode())).fetchone()
    return int(row[0]) if row else 0


class Git:
    """The git program in one folder, durable as we are."""

    def __init__(self, folder: Path, tree: dict[str, bytes] | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self("init", "-q", "-b", "main")
        for path, content in (tree or {}).items():
            self.write(path, content)
        if tree:
            self("add", ".")
            self("commit", "-qm", "import")

    def __call__(self, *words: str) -> str:
        argv = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org",
                "-c", "core.fsync=all", "-c", "core.fsyncMethod=fsync", "-c", "gc.auto=0",
                "-c", "merge.renames=false", *words]  # fmt: skip
        done = subprocess.run(argv, cwd=self.folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def write(self, path: str, content: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(content)

    async def timed(self, *commands: Sequence[str]) -> float:
        def work() -> float:
            began = time.perf_counter()
            for words in commands:
                self(*words)
            return time.perf_counter() - began

        return await asyncio.to_thread(work)


async def promote(git: AngelGit, repo: str, edits: Sequence[NewText]) -> Revision:
    """Propose new texts and move `main` to them."""
    base = await git.head(repo, "main")
    proposal = new_proposal_id()
    await git.propose(proposal, repo, base, edits, ADA, "one line")
    candidate = await git.candidate(proposal)
    await git.advance(repo, candidate.revision, base)
    return candidate.revision


def trace_of(options: Options) -> tuple[list[list[tuple[int, int, str]]], str]:
    """Return the transactions of the editing trace, and its last text."""
    assert options.trace is not None
    with gzip.open(options.trace) as file:
        data = json.load(file)
    rows = [[tuple(patch) for patch in txn["patches"]] for txn in data["txns"]]
    rows = rows[:20_000] if options.quick else rows
    text: list[str] = []
    for patches in rows:
        for at, gone, new in patches:
            text[at : at + gone] = new
    return rows, "".join(text)


# -- rows ------------------------------------------------------------------------------------


async def commit(options: Options) -> list[Row]:
    """Time the commit of one file, all durable."""
    rows: list[Row] = []
    work = "commit of one file, all durable"
    async with repository() as (git, _, folder):
        base = await git.create("commits", {"a.py": b"x = -1\n"}, ADA, "import")
        program = Git(folder / "git", {"a.py": b"x = -1\n"})
        cpu: list[float] = []

        async def ours(number: int) -> float:
            nonlocal base
            proposal, edit = new_proposal_id(), NewText(path="a.py", text=f"x = {time.time()}\n")
            await git.propose(proposal, "commits", base, [edit], ADA, f"{number}")
            began, used = time.perf_counter(), time.process_time()
            base = await git.merge(proposal)
            cpu.append(time.process_time() - used)
            return time.perf_counter() - began

        async def theirs(_: int) -> float:
            program.write("a.py", f"x = {time.time()}\n".encode())
            return await program.timed(("add", "a.py"), ("commit", "-qm", "one line"))

        times = await turn_about(options.rounds, ours, theirs)
        rows.append(row(work, "git CLI, core.fsync=all", times, 3.0))
        most = statistics.median(cpu) * 1e3
        rows.append(bound(f"{work}: CPU of our process", "ms", most, 3.0))
        if find_spec("pygit2") is None:
            return [*rows, missing(work, "pygit2", 0.5)]
        peer = _pygit2_commits(folder / "pygit2")
        times = await turn_about(options.rounds, ours, peer)
        rows.append(row(work, "pygit2, ENABLE_FSYNC_GITDIR", times, 0.5))
    return rows


def _pygit2_commits(folder: Path) -> Callable[[int], Awaitable[float]]:
    pygit2 = import_module("pygit2")
    pygit2.option(pygit2.enums.Option.ENABLE_FSYNC_GITDIR, 1)
    repo = pygit2.init_repository(str(folder))
    who = pygit2.Signature("a", "a@example.org")

    async def one(_: int) -> float:
        began = time.perf_counter()
        builder = repo.TreeBuilder()
        builder.insert("a.py", repo.create_blob(f"x = {time.time()}\n".encode()), 0o100644)
        parents = [] if repo.is_empty else [repo.head.target]
        repo.create_commit("HEAD", who, who, "one line", builder.write(), parents)
        return time.perf_counter() - began

    return one


async def merge(options: Options) -> list[Row]:
    """Time the merge of 100 files of which 50 changed on both sides."""
    work = "merge of 100 files, 50 changed on both sides"
    tree = files(100)
    both = list(tree)[:50]
    async with repository() as (git, _, folder):

        async def ours(number: int) -> float:
            repo = f"merge{number + 1}"
            base = await git.create(repo, tree, ADA, "import")
            proposals = []
            for line in (3, 15):
                edits = [NewText(path=path, text=changed(tree[path], line)) for path in both]
                proposals.append(new_proposal_id())
                await git.propose(proposals[-1], repo, base, edits, ADA, "fifty files")
            await git.merge(proposals[0])
            began = time.perf_counter()
            await git.merge(proposals[1])
            return time.perf_counter() - began

        async def theirs(number: int) -> float:
            program = _two_branches(folder / f"git{number}", tree, both)
            return await program.timed(("merge", "-q", "--no-ff", "-m", "merge", "other"))

        times = await turn_about(min(options.rounds, 5), ours, theirs)
        rows = [row(work, "git CLI, core.fsync=all", times, 4.0)]
        if find_spec("pygit2") is None:
            return [*rows, missing(work, "pygit2 in memory", 1 / 3)]

        async def in_memory(number: int) -> float:
            program = _two_branches(folder / f"pygit2-{number}", tree, both)
            repo = import_module("pygit2").Repository(str(program.folder))
            heads = [repo.branches[name].target for name in ("main", "other")]
            began = time.perf_counter()
            index = repo.merge_commits(*heads)
            assert index.conflicts is None
            return time.perf_counter() - began

        times = await turn_about(
            min(options.rounds, 5), lambda number: ours(number + 100), in_memory
        )
        return [*rows, row(work, "pygit2 in memory, nothing written", times, 0.333)]


def _two_branches(folder: Path, tree: dict[str, bytes], both: list[str]) -> Git:
    program = Git(folder, tree)
    for branch, line in (("other", 15), ("main", 3)):
        program("checkout", "-q", *(["-b"] if branch == "other" else []), branch)
        for path in both:
            program.write(path, changed(tree[path], line).encode())
        program("commit", "-qam", branch)
    return program


async def batch(options: Options) -> list[Row]:
    """Time the landing of many one-file proposals, from all waiting to `main` moved."""
    count = 32 if options.quick else 512
    rounds = 1 if options.quick else 3
    tree = files(count)
    work = f"{count} one-file proposals of 20 authors, one {TEST_S} s test on each side"
    async with repository() as (git, _, folder):

        async def ours(number: int) -> float:
            repo = f"batch{number + 1}"
            base = await git.create(repo, tree, ADA, "import")
            proposals = []
            for i, path in enumerate(tree):
                edits = [NewText(path=path, text=changed(tree[path], 7))]
                proposals.append(new_proposal_id())
                author = PrincipalId(f"agent/a{i % 20}")
                await git.propose(proposals[-1], repo, base, edits, author, "one line")
            began = time.perf_counter()
            candidate = await git.candidate(*proposals)
            assert not candidate.left_out
            await asyncio.sleep(TEST_S)
            await git.advance(repo, candidate.revision, base)
            return time.perf_counter() - began

        async def theirs(number: int) -> float:
            program = Git(folder / f"git{number}", tree)
            for i, path in enumerate(tree):
                program("checkout", "-q", "-b", f"p{i}", "main")
                program.write(path, changed(tree[path], 7).encode())
                program("commit", "-qam", f"p{i}")
            program("checkout", "-q", "main")
            merges = [("merge", "-q", "--no-ff", "-m", f"p{i}", f"p{i}") for i in range(count)]
            return await program.timed(*merges) + TEST_S

        times = await turn_about(rounds, ours, theirs)
    return [row(work, "sequential git merge, core.fsync=all", times, 20.0)]


async def growth(options: Options) -> list[Row]:
    """Time one-line proposals in growing trees, and measure what they add."""
    sizes = (100, 1_000) if options.quick else (100, 1_000, 10_000)
    trees: list[dict[str, float]] = []
    async with repository() as (git, database, _):
        for count in sizes:
            repo, tree = f"tree-{count}", files(count)
            await git.create(repo, tree, ADA, "import")
            # PostgreSQL counts in pages: few proposals say nothing of the bytes of one.
            paths = list(tree)[: max(20, options.rounds) + 1]
            await promote(git, repo, [NewText(path=paths[0], text=changed(tree[paths[0]], 7))])
            tables, whole = await measured(database, _TABLES), await measured(database, _WHOLE)
            times = []
            for path in paths[1:]:
                began = time.perf_counter()
                await promote(git, repo, [NewText(path=path, text=changed(tree[path], 7))])
                times.append(time.perf_counter() - began)
            rounds = len(paths) - 1
            trees.append(
                {
                    "files": count,
                    "ms": round(statistics.median(times) * 1e3, 2),
                    "bytes": (await measured(database, _TABLES) - tables) / rounds,
                    "whole": (await measured(database, _WHOLE) - whole) / rounds,
                }
            )
    small, large = trees[0], trees[-1]
    times_more = large["files"] / small["files"]
    exponent = round(math.log(large["ms"] / small["ms"]) / math.log(times_more), 3)
    work = f"one-line proposal, {small['files']:.0f} -> {large['files']:.0f} files"
    return [
        {
            "work": f"{work}: time", "unit": "ms", "ours": large["ms"], "peer": "itself",
            "theirs": small["ms"], "ratio": round(GROWTH * small["ms"] / large["ms"], 3),
            "at_least": 1.0, "exponent": exponent, "trees": trees,
        },
        bound(f"{work}: AngelGit's tables", "bytes", large["bytes"], 4_096),
        bound(f"{work}: whole database", "bytes", large["whole"], 8_192),
    ]  # fmt: skip


async def play(
    rows: list[list[tuple[int, int, str]]],
    send: Callable[[bytes], Awaitable[None]],
    state: Sequence[bytes],
) -> float:
    """Send what a page makes of the edits; return the seconds, the page's own among them."""
    page: pycrdt.Doc[Any] = pycrdt.Doc()
    for update in state:
        page.apply_update(update)
    source = page.get("source", type=pycrdt.Text)
    began = time.perf_counter()
    for start in range(0, len(rows), 100):
        before = page.get_state()
        with page.transaction():
            for at, gone, new in (patch for txn in rows[start : start + 100] for patch in txn):
                if gone:
                    del source[at : at + gone]
                if new:
                    source.insert(at, new)
        await send(page.get_update(before))
    return time.perf_counter() - began


async def trace(options: Options) -> list[Row]:
    """Time the editing trace through `ingest`, beside bare pycrdt."""
    work = "automerge-paper trace, own client ids, 100 edits an update, acknowledged by the log"
    if options.trace is None:
        return [missing(work, "the trace (--trace FILE)", 0.667)]
    rows, final = trace_of(options)
    rounds = 1 if options.quick else 3
    async with repository() as (git, _, _):

        async def ours(number: int) -> float:
            repo = f"trace{number + 1}"
            await git.create(repo, {"paper.txt": b""}, ADA, "import")
            document = _document(git, f"{repo}/paper.txt")

            async def send(update: bytes) -> None:
                await git.ingest(document, update, EVE)

            spent = await play(rows, send, await git.room_updates(document))
            assert len(await git.read_live(repo, "paper.txt")) == len(final.encode())
            return spent

        async def theirs(_: int) -> float:
            server: pycrdt.Doc[Any] = pycrdt.Doc()
            server.get("source", type=pycrdt.Text)

            async def send(update: bytes) -> None:
                server.apply_update(update)

            return await play(rows, send, ())

        return [row(work, "bare pycrdt", await turn_about(rounds, ours, theirs), 0.667)]


def _document(git: AngelGit, path: str) -> DocumentId:
    address = git.locate(path)
    assert address is not None
    return address.document


async def history(options: Options) -> list[Row]:
    """Measure what the trace's history takes, and time restores of its revisions."""
    works = ("store of the trace's history, a revision each 1,000 edits",
             "restore of any revision of it")  # fmt: skip
    if options.trace is None:
        return [missing(work, "the trace (--trace FILE)", 0.5) for work in works]
    rows, _ = trace_of(options)
    async with repository() as (git, database, folder):
        await git.create("paper", {"paper.txt": b""}, ADA, "import")
        program = Git(folder / "git", {"paper.txt": b""})
        text: list[str] = []
        before = await measured(database, _TABLES)
        revisions: list[tuple[Revision, str]] = []
        for number, patches in enumerate(rows, 1):
            for at, gone, new in patches:
                text[at : at + gone] = new
            if number % 1_000 == 0:
                body = "".join(text)
                made = await promote(git, "paper", [NewText(path="paper.txt", text=body)])
                revisions.append((made, body))
                program.write("paper.txt", body.encode())
                program("commit", "-qam", "edits")
        ours = await measured(database, _TABLES) - before
        program("gc", "-q", "--aggressive", "--prune=now")
        pack = sum(f.stat().st_size for f in (folder / "git/.git/objects/pack").iterdir())
        rows_ = [
            {
                "work": works[0], "unit": "bytes", "ours": ours, "peer": "git gc --aggressive",
                "theirs": pack, "ratio": round(pack / ours, 3), "at_least": 0.5,
                "revisions": len(revisions),
            }
        ]  # fmt: skip
        if find_spec("loro") is None:
            return [*rows_, missing(works[1], "loro", 0.5)]
        peer = _loro_checkouts(rows)

        async def restore(number: int) -> float:
            revision, body = revisions[(number * 37) % len(revisions)]
            git._stores.forget_objects()
            began = time.perf_counter()
            content = await git.read("paper", revision, "paper.txt")
            spent = time.perf_counter() - began
            assert content == body.encode()
            return spent

        times = await turn_about(options.rounds, restore, peer)
        return [*rows_, row(works[1], "loro checkout", times, 0.5)]


def _loro_checkouts(rows: list[list[tuple[int, int, str]]]) -> Callable[[int], Awaitable[float]]:
    doc = import_module("loro").LoroDoc()
    text, points = doc.get_text("source"), []
    for number, patches in enumerate(rows, 1):
        for at, gone, new in patches:
            if gone:
                text.delete(at, gone)
            if new:
                text.insert(at, new)
        if number % 1_000 == 0:
            doc.commit()
            points.append(doc.state_frontiers)

    async def one(number: int) -> float:
        doc.checkout_to_latest()
        began = time.perf_counter()
        doc.checkout(points[(number * 37) % len(points)])
        str(doc.get_text("source").to_string())
        return time.perf_counter() - began

    return one


async def notebook(options: Options) -> list[Row]:
    """Time the merge of a 10 MB notebook in which each side changed one line."""
    size = 1_000_000 if options.quick else 10_000_000
    work = f"{size // 1_000_000} MB notebook, one line changed on each side"
    cells = [
        {
            "cell_type": "code", "execution_count": None, "id": f"cell{i}", "metadata": {},
            "outputs": [], "source": "".join(f"value_{i}_{j} = {j}\n" for j in range(400)),
        }
        for i in range(max(1, size // 8_500))
    ]  # fmt: skip
    page = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    base = json.dumps(page, indent=1)
    local = base.replace("value_3_7 = 7\\n", "value_3_7 = 70\\n")
    remote = base.replace("value_9_7 = 7\\n", "value_9_7 = 70\\n")
    rounds = 1 if options.quick else 3
    async with repository() as (git, _, _):
        blocked: list[float] = []

        async def ours(number: int) -> float:
            repo = f"nb{number + 1}"
            at = await git.create(repo, {"big.ipynb": base.encode()}, ADA, "import")
            proposals = [new_proposal_id(), new_proposal_id()]
            for proposal, text in zip(proposals, (local, remote), strict=True):
                edits = [NewText(path="big.ipynb", text=text)]
                await git.propose(proposal, repo, at, edits, ADA, "one line")
            await git.merge(proposals[0])
            async with _watched(blocked):
                began = time.perf_counter()
                await git.merge(proposals[1])
                return time.perf_counter() - began

        if find_spec("nbdime") is None:
            await ours(0)
            return [missing(work, "nbdime", 3.0), _blocked(work, blocked)]
        merging = import_module("nbdime.merging.notebooks")
        nodes = [json.loads(text) for text in (base, local, remote)]
        nbformat = import_module("nbformat")
        nodes = [nbformat.from_dict(node) for node in nodes]

        async def theirs(_: int) -> float:
            began = time.perf_counter()
            await asyncio.to_thread(merging.merge_notebooks, *nodes)
            return time.perf_counter() - began

        times = await turn_about(rounds, ours, theirs)
        return [row(work, "nbdime merge", times, 3.0), _blocked(work, blocked)]


def _blocked(work: str, blocked: list[float]) -> Row:
    return bound(f"{work}: event loop blocked", "ms", max(blocked) * 1e3, 50.0)


@asynccontextmanager
async def _watched(blocked: list[float]) -> AsyncIterator[None]:
    """Measure how long the event loop does not turn."""

    async def watch() -> None:
        worst = 0.0
        try:
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                worst = max(worst, time.perf_counter() - began - 0.001)
        finally:
            blocked.append(worst)

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def start(options: Options) -> list[Row]:
    """Time the start of AngelGit with many files, beside an empty one."""
    count = 1_000 if options.quick else 10_000
    async with repository() as (git, database, folder):
        client = connect_again(git)
        await git.__aexit__(None, None, None)

        async def timed() -> float:
            began = time.perf_counter()
            async with make(database, client, folder):
                return time.perf_counter() - began

        empty = [await timed() for _ in range(3)]
        async with make(database, client, folder) as filled:
            await filled.create("many", files(count), ADA, "import")
        full = [await timed() for _ in range(3)]
    more = statistics.median(full) - statistics.median(empty)
    work = f"start with {count} files, beyond an empty start"
    return [bound(work, "s", more, 2.0, empty_s=round(statistics.median(empty), 3))]


def connect_again(git: AngelGit) -> Any:
    """Return the client of a repository that is about to be closed."""
    return git._live.log._client


# -- rows with a whole server ------------------------------------------------------------------


@asynccontextmanager
async def server(tree: dict[str, bytes]) -> AsyncIterator[DataDir]:
    """Run `angelos up` with one repository, `many`."""
    from angelos.demo.world import start_up

    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="angelgit-up-"))
        world = await start_up(Path(folder) / "data", stack)
        texts = {path: body.decode() for path, body in tree.items()}
        await world.angelos.repos.create("many", texts, "import")
        yield DataDir(Path(folder) / "data")


async def clone(options: Options) -> list[Row]:
    """Time clones over HTTP by the git program."""
    count = 100 if options.quick else 1_000
    tree = files(count)
    with tempfile.TemporaryDirectory(prefix="clones-") as name:
        folder = Path(name)
        async with server(tree) as data:
            system = data.system()
            source = Git(folder / "source", tree)
            async with git_http_backend(folder) as address:
                address_ = system.url.replace("://", f"://owner:{system.token}@", 1)
                ours_url = f"{address_}/angelgit/many.git"

                async def cloned(url: str, target: Path) -> float:
                    return await source.timed(("clone", "-q", url, str(target)))

                async def ours(number: int) -> float:
                    return await cloned(ours_url, folder / f"ours{number}")

                async def theirs(number: int) -> float:
                    return await cloned(f"{address}/source/.git", folder / f"theirs{number}")

                times = await turn_about(min(options.rounds, 7), ours, theirs)
    return [row(f"clone of {count} files over HTTP", "git http-backend", times, 1.0)]


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


async def type_keys(room: RoomClient, count: int) -> float:
    """Type one key a message, as fast as they are taken; return the seconds until all are."""
    doc, source, socket = room._doc, room._source, room._socket
    assert socket is not None
    updates: list[bytes] = []
    subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
    began = time.perf_counter()
    for number in range(count):
        source += "x" if number % 60 else "\n"
        await socket.write_message(pycrdt.create_update_message(updates.pop()), binary=True)
    doc.unobserve(subscription)
    clock = clock_of(doc.get_state(), doc.client_id)
    await room._wait(lambda: clock_of(room._server.get_state(), doc.client_id) >= clock)
    return time.perf_counter() - began


async def keystrokes(options: Options) -> list[Row]:
    """Time keystrokes through a room's WebSocket, beside Jupyter's own room."""
    count = 2_000 if options.quick else 40_000
    rounds = 1 if options.quick else 3
    work = f"{count} keystrokes through a room's WebSocket"
    names = [f"k{number}.md" for number in range(-1, rounds)] + ["p99.md"]
    ours, theirs, cpu = [], [], []
    async with server(dict.fromkeys(names, b"x\n")) as data, plain_jupyter(names) as jupyter:
        system, running = data.system(), data.server()
        assert running is not None
        for number in range(-1, rounds):
            used = cpu_of(running.pid)
            path = f"many/k{number}.md"
            async with RoomClient(system.url, system.token, path, 600.0) as room:
                a = await type_keys(room, count)
            used = cpu_of(running.pid) - used
            async with RoomClient(jupyter.url, jupyter.token, f"k{number}.md", 600.0) as room:
                b = await type_keys(room, count)
            if number >= 0:
                ours.append(a)
                theirs.append(b)
                cpu.append(used / count)
        waits = []
        async with RoomClient(system.url, system.token, "many/p99.md") as room:
            for _ in range(200 if options.quick else 1_000):
                began = time.perf_counter()
                await room.insert(0, "x")
                waits.append(time.perf_counter() - began)
    p99 = sorted(waits)[len(waits) * 99 // 100]
    return [
        row(work, "Jupyter's own room", (ours, theirs), 0.667),
        bound(f"{work}: CPU of the server a key", "us", statistics.median(cpu) * 1e6, 100.0),
        bound("one keystroke acknowledged, p99", "ms", p99 * 1e3, 10.0),
    ]


ROWS = {
    "commit": commit, "merge": merge, "batch": batch, "growth": growth, "trace": trace,
    "keystrokes": keystrokes, "history": history, "notebook": notebook, "clone": clone,
    "start": start,
}  # fmt: skip


async def run(names: Sequence[str], options: Options, *, as_json: bool) -> list[Row]:
    """Run rows; one that fails says so and the others go on."""
    results: list[Row] = []
    for name in names:
        began = time.perf_counter()
        try:
            made = await ROWS[name](options)
        except Exception as error:  # noqa: BLE001 - the other rows are worth having
            made = [{"work": name, "error": f"{type(error).__name__}: {error}"[:500]}]
        for one in made:
            if not as_json:
                print(_line(name, one), file=sys.stderr)
        if not as_json:
            print(f"  ({name}: {time.perf_counter() - began:.0f} s)", file=sys.stderr)
        results += made
    return results


def _line(name: str, one: Row) -> str:
    if "error" in one:
        return f"{name}: failed: {one['error']}"
    if one["ratio"] is None:
        return f"{one['work']}: {one['peer']}"
    more = f", exponent {one['exponent']}" if "exponent" in one else ""
    return (
        f"{one['work']}: {one['ours']} {one['unit']} ({one['peer']}: {one['theirs']}; "
        f"{one['ratio']}x, at least {one['at_least']}x{more})"
    )


def main() -> None:
    """Run the benchmark and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, not evidence")
    parser.add_argument("--json", action="store_true", help="print only the line of JSON")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--list", action="store_true", help="print the names of the rows")
    parser.add_argument(
        "--trace", type=Path, default=Path(os.environ.get("ANGELOS_TRACE", "")), metavar="FILE",
        help="automerge-paper.json.gz of the editing traces (josephg/editing-traces)",
    )  # fmt: skip
    args = parser.parse_args()
    if args.list:
        print("\n".join(ROWS))
        return
    rounds = args.rounds or (3 if args.quick else 20)
    options = Options(rounds, args.quick, args.trace if args.trace.is_file() else None)
    rows = asyncio.run(run(args.only, options, as_json=args.json))
    machine = {
        "cpus": os.cpu_count(), "system": platform.platform(),
        "python": platform.python_version(), "load": os.getloadavg()[0],
    }  # fmt: skip
    print(json.dumps({"benchmark": "angelgit", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
