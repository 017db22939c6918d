"""Memory beside hnswlib and faiss: what is found, how long it takes, and what the gate lets in.

    python benchmarks/memory.py [--quick] [--json] [--only PART] [--count N] [--locomo FILE]
                                [--tune]

    nearest      recall@10 and milliseconds a search of N vectors of 384 numbers: pgvector's HNSW as
                 memory asks it, beside hnswlib and an exact scan by faiss, in one run, in turns;
                 then insertions a minute into them, vectors given
    questions    reciprocal rank of the passage that answers each of 117 questions about the
                 reference, by vectors, by words and by both, with an interval of the difference
    docs         which part of the documentation's headings has its section among the first five
    gate         refused of labelled junk, and refused of what is worth keeping

`--only` measures one part: each ends within minutes. With --locomo, a file of LoCoMo (Maharana et
al. 2024) that you bring, the same as `questions` for its evidence; --tune compares weights on the
half that is for that. Needs the extras `bench` and `memory`; starts a PostgreSQL of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import platform
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from angelos.adapters.host.embedded import EmbeddedPostgres
from angelos.adapters.stores.postgres import Database
from angelos.core.ids import PrincipalId
from angelos.core.memories import MemoryView, new_memory_id
from angelos.memory.config import MemoryConfig
from angelos.memory.embedding import MiniLmEmbedder
from angelos.memory.gate import junk, normal
from angelos.memory.ranking import WEIGHTS, FusionWeights, Ranks, ranked
from angelos.memory.store import Draft, MemoryStore
from angelos.wiring.stores import planes_for

DIMENSIONS = 384
SPACE = "agent/bench"
ROOT = Path(__file__).parent.parent
PARTS = ("gate", "nearest", "questions", "docs")
_HEADING = re.compile(r"^#{1,4} (.+)$", re.MULTILINE)


def clustered(count: int, rng: np.random.Generator) -> np.ndarray:
    """Return unit vectors in clusters, as texts have them; uniform ones have no near neighbours."""
    centres = rng.normal(size=(max(count // 50, 1), DIMENSIONS)).astype(np.float32)
    vectors = centres[rng.integers(len(centres), size=count)]
    vectors = vectors + 0.6 * rng.normal(size=vectors.shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def memory(text: str, number: int = 0) -> MemoryView:
    """Return a memory of a text."""
    return MemoryView(
        id=new_memory_id(1_000 + number),
        namespace=SPACE,
        text=text,
        by=PrincipalId(SPACE),
        at=float(number),
        confirmed_at=float(number),
    )


async def fill(database: Database, vectors: np.ndarray) -> None:
    """Copy vectors in as memories and index them then, as a restore does."""
    columns = "id, namespace, text, normal, embedding, model, said_by, at, confirmed_at"
    async with database.transaction() as connection, connection.cursor() as cursor:
        await cursor.execute("select indexdef from pg_indexes where indexname = 'memory_embedding'")
        (index,) = await cursor.fetchone() or ("",)
        await cursor.execute("drop index memory_embedding")
        async with cursor.copy(f"copy memory ({columns}) from stdin") as copy:
            for number, vector in enumerate(vectors):
                text = f"memory number {number}"
                row = (new_memory_id(number), SPACE, text, text, _text(vector), "bench", SPACE)
                await copy.write_row((*row, 0, 0))
        await cursor.execute("set local maintenance_work_mem = '1GB'")
        await cursor.execute(index)
    async with database.transaction() as connection:
        await connection.execute("analyze memory")


async def timed(ask: Callable[[Any], Awaitable[Any]], questions: Any) -> tuple[list[Any], dict]:
    """Return the answers, and the median and 99th percentile in milliseconds."""
    answers, times = [], []
    for question in questions:
        began = time.perf_counter()
        answers.append(await ask(question))
        times.append((time.perf_counter() - began) * 1_000)
    times.sort()
    p99 = times[min(len(times) - 1, len(times) * 99 // 100)]
    return answers, {"p50": round(statistics.median(times), 2), "p99": round(p99, 2)}


async def nearest(database: Database, count: int, questions: int) -> dict[str, Any]:
    """Measure searches of `count` vectors, and of the peers on the same vectors."""
    import faiss
    import hnswlib

    rng = np.random.default_rng(0)
    vectors = clustered(count, rng)
    asked = vectors[rng.integers(count, size=questions)]
    asked = asked + 0.02 * rng.normal(size=asked.shape).astype(np.float32)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    began = time.perf_counter()
    await fill(database, vectors)
    built = time.perf_counter() - began
    flat = faiss.IndexFlatIP(DIMENSIONS)
    flat.add(vectors)
    peer = hnswlib.Index("cosine", DIMENSIONS)
    peer.init_index(count, M=16, ef_construction=128)
    peer.add_items(vectors)
    peer.set_ef(200)
    store = MemoryStore(database, MemoryConfig(candidates=10))

    async def ours(vector: np.ndarray) -> list[int]:
        views = await store.by_vector((SPACE,), vector.tolist(), "bench", 1.0)
        return [int(view.text.rpartition(" ")[2]) for view in views]

    async def exact(vector: np.ndarray) -> list[int]:
        return flat.search(vector[None], 10)[1][0].tolist()

    async def theirs(vector: np.ndarray) -> list[int]:
        return peer.knn_query(vector[None], 10)[0][0].tolist()

    ways = {"memory": ours, "faiss flat": exact, "hnswlib": theirs}
    times: dict[str, dict[str, float]] = {}
    answers: dict[str, list[list[int]]] = {}
    await timed(ours, asked[:50])  # what a first search reads from disk
    for name, way in ways.items():
        answers[name], times[name] = await timed(way, asked)
    for name, found in answers.items():
        hits = [
            len(set(a) & set(b)) / 10 for a, b in zip(found, answers["faiss flat"], strict=True)
        ]
        times[name]["recall@10"] = round(statistics.mean(hits), 4)
    return {"vectors": count, "built_s": round(built, 1), **times}


async def insertions(database: Database, count: int) -> dict[str, Any]:
    """Measure additions into what is there: alone, and after a look at the nearest, 8 at once."""
    store = MemoryStore(database, MemoryConfig())
    vectors = clustered(2 * count, np.random.default_rng(1))
    began = time.perf_counter()
    for number, vector in enumerate(vectors[:count]):
        await store.add(_draft(number, vector))
    added = time.perf_counter() - began
    numbers = iter(range(count, 2 * count))

    async def remember() -> None:
        for number in numbers:
            draft = _draft(number, vectors[number])
            await store.near(draft, 1.0, 5)
            await store.add(draft)

    began = time.perf_counter()
    await asyncio.gather(*(remember() for _ in range(8)))
    remembered = time.perf_counter() - began
    return {"a_minute": round(count / added * 60), "checked": round(count / remembered * 60)}


def _draft(number: int, vector: np.ndarray) -> Draft:
    view = memory(f"added one at a time {number}", number)
    return Draft(view, normal(view.text), vector.tolist(), "bench")


def sections() -> list[tuple[str, str]]:
    """Return headings of the documentation as questions, each with the text below it."""
    pairs = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "reference" in path.parts or "_build" in path.parts:
            continue
        pieces = _HEADING.split(path.read_text(encoding="utf-8"))
        for heading, body in zip(pieces[1::2], pieces[2::2], strict=True):
            text = " ".join(body.split())[:1_500]
            if len(text) > 120 and len(heading.split()) > 1:
                pairs.append((heading.strip(), text))
    return pairs


def locomo(path: Path) -> list[tuple[str, str]]:
    """Return questions of LoCoMo, each with the turn of the dialogue that answers it.

    The file is a list of samples: `conversation` has lists of turns (`dia_id`, `speaker`, `text`)
    beside other values, `qa` a list of `question` and `evidence`, ids of turns of which the first
    counts; a question whose evidence is no turn is left out.
    """
    pairs = []
    for sample in json.loads(path.read_text(encoding="utf-8")):
        turns = {
            turn["dia_id"]: f"{turn['speaker']}: {turn['text']}"
            for session in sample["conversation"].values()
            if isinstance(session, list)
            for turn in session
        }
        pairs += [
            (qa["question"], turns[qa["evidence"][0]])
            for qa in sample["qa"]
            if qa.get("evidence") and qa["evidence"][0] in turns
        ]
    return pairs


class Ranking(NamedTuple):
    """What both ways give for one question, best first, and what is right."""

    right: str
    near: list[str]
    words: list[str]

    def rank(self, weights: FusionWeights | None) -> int | None:
        """Return the rank of what is right, fused with weights; None: not among the first 10."""
        order = self.fused(weights or WEIGHTS)
        return order.index(self.right) + 1 if self.right in order else None

    def fused(self, weights: FusionWeights) -> list[str]:
        """Return the first 10 of both ways."""
        first = {text: rank for rank, text in enumerate(self.near, 1)}
        second = {text: rank for rank, text in enumerate(self.words, 1)}
        candidates = [(t, Ranks(first.get(t), second.get(t)), 1.0) for t in {**first, **second}]
        return [text for text, score in ranked(candidates, 10, weights) if score > 0]

    @property
    def tunes(self) -> bool:
        """Whether the hash of the right passage puts it into the half for tuning."""
        return bool(hashlib.sha256(self.right.encode()).digest()[0] % 2)


VECTOR, TEXT = FusionWeights(1, 0, 5), FusionWeights(0, 1, 5)


async def rankings(
    database: Database, pairs: list[tuple[str, str]], embedder: MiniLmEmbedder
) -> list[Ranking]:
    """Return what both ways give for questions; a pair without a question is only a passage."""
    async with database.transaction() as connection:
        await connection.execute("truncate memory cascade")
    store = MemoryStore(database, MemoryConfig())
    texts = list(dict.fromkeys(text for _, text in pairs))
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        await store.add(Draft(memory(text), normal(text), vector, embedder.name))
    asked = [(question, right) for question, right in pairs if question]
    vectors = await embedder.embed([question for question, _ in asked])
    rows = []
    for (question, right), vector in zip(asked, vectors, strict=True):
        near = await store.by_vector((SPACE,), vector, embedder.name, 1.0)
        words = await store.by_text((SPACE,), question, 1.0)
        rows.append(Ranking(right, [v.text for v in near], [v.text for v in words]))
    return rows


def reciprocal(rows: list[Ranking], weights: FusionWeights) -> np.ndarray:
    """Return the reciprocal rank of what is right for each question, 0 behind the tenth."""
    ranks = [row.rank(weights) for row in rows]
    return np.array([1 / rank if rank else 0.0 for rank in ranks])


def compared(rows: list[Ranking]) -> dict[str, Any]:
    """Return the mean reciprocal rank of each way, and by how much both are better than each.

    The interval is of 10,000 samples of the questions, drawn with replacement.
    """
    hybrid = reciprocal(rows, WEIGHTS)
    result: dict[str, Any] = {"questions": len(rows), "hybrid": round(float(hybrid.mean()), 3)}
    drawn = np.random.default_rng(0).integers(len(rows), size=(10_000, len(rows)))
    for name, weights in (("vector", VECTOR), ("text", TEXT)):
        alone = reciprocal(rows, weights)
        gains = (hybrid - alone)[drawn].mean(1)
        low, high = np.quantile(gains, [0.025, 0.975])
        result[name] = round(float(alone.mean()), 3)
        gain = float((hybrid - alone).mean())
        result[f"hybrid - {name}"] = [round(float(value), 3) for value in (gain, low, high)]
    return result


def tuned(rows: list[Ranking]) -> list[tuple[float, FusionWeights]]:
    """Return the mean reciprocal rank of a grid of weights, on the half for tuning, best first."""
    half = [row for row in rows if row.tunes]
    grid = [
        FusionWeights(1.0, text, offset)
        for text in (0.25, 0.5, 0.75, 1.0, 1.5)
        for offset in (1.0, 3.0, 5.0, 10.0, 20.0, 60.0)
    ]
    scored = [(round(float(reciprocal(half, weights).mean()), 4), weights) for weights in grid]
    return sorted(scored, key=lambda row: -row[0])


def questions() -> list[tuple[str, str]]:
    """Return questions about the reference, each with its passage, and passages without one."""
    lines = (ROOT / "benchmarks/data/questions.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["question"], row["text"]) for row in map(json.loads, lines)]


def answered(rows: list[Ranking]) -> dict[str, Any]:
    """Return for each way which part of the questions has its text among the first five."""
    ways = {"vector": VECTOR, "text": TEXT, "hybrid": WEIGHTS}
    hits = {
        way: statistics.mean(row.right in row.fused(weights)[:5] for row in rows)
        for way, weights in ways.items()
    }
    return {"questions": len(rows), **{way: round(hit, 3) for way, hit in hits.items()}}


def gate() -> dict[str, Any]:
    """Return the parts of labelled junk and of labelled sentences that are refused."""
    lines = (Path(__file__).parent / "data" / "memories.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in lines.splitlines()]
    worth = [row["text"] for row in rows if row["keep"]]
    rest = [row["text"] for row in rows if not row["keep"]]
    return {
        "junk_refused": round(sum(junk(t) is not None for t in rest) / len(rest), 3),
        "worth_refused": round(sum(junk(t) is not None for t in worth) / len(worth), 3),
        "texts": len(rows),
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Return every figure, or those of one part."""
    parts = [options.only] if options.only else [*PARTS, *(["locomo"] if options.locomo else [])]
    count = options.count or (2_000 if options.quick else 100_000)
    folder = Path(tempfile.mkdtemp(prefix="angelos-memory-"))
    result: dict[str, Any] = {"gate": gate()} if "gate" in parts else {}
    if parts == ["gate"]:
        return result
    async with EmbeddedPostgres(folder / "data", folder) as postgres, Database(postgres.url) as db:
        await db.migrate(await planes_for(db))
        if "nearest" in parts:
            result["nearest"] = await nearest(db, count, 100 if options.quick else 1_000)
            result["insertions"] = await insertions(db, 100 if options.quick else 2_500)
        async with MiniLmEmbedder() as embedder:
            if "questions" in parts:
                rows = await rankings(db, questions(), embedder)
                if options.tune:
                    return {"tuning": tuned(rows)[:12]}
                result["tuning half"] = compared([row for row in rows if row.tunes])
                result["questions"] = compared([row for row in rows if not row.tunes])
            if "docs" in parts:
                result["docs"] = answered(await rankings(db, sections(), embedder))
            if "locomo" in parts:
                rows = await rankings(db, locomo(options.locomo), embedder)
                result["locomo"] = answered(rows) | compared(rows)
    shutil.rmtree(folder, ignore_errors=True)
    return result


def bounds(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what was measured beside what it has to be; a ratio of 1 or more is enough."""
    rows = []
    if near := result.get("nearest"):
        ours, peer, work = near["memory"], near["hnswlib"], f"of {near['vectors']:,} x 384"
        rows += [
            _bound(f"recall@10 {work}", "", ours["recall@10"], 0.98, peer["recall@10"]),
            _bound(f"search {work}, p99", "ms", ours["p99"], 10.0, peer["p99"]),
        ]
    if added := result.get("insertions"):
        for name, work in (
            ("a_minute", "one at a time"),
            ("checked", "after the nearest, 8 at once"),
        ):
            rows.append(_bound(f"insertions, {work}", "/min", added[name], 10_000, None))
    for part in ("questions", "locomo"):
        for way in ("vector", "text") if part in result else ():
            gain, low, high = result[part][f"hybrid - {way}"]
            row = _bound(f"{part}: reciprocal rank, hybrid - {way}", "", gain, 0.0, None)
            rows.append(row | {"low": low, "high": high, "ratio": float(low > 0)})
    return rows


def _bound(work: str, unit: str, ours: float, bound: float, theirs: float | None) -> dict[str, Any]:
    ratio = bound / ours if unit == "ms" else ours / bound if bound else 0.0
    peer = "hnswlib" if theirs is not None else ""
    return {"work": work, "unit": unit, "ours": ours, "bound": bound, "peer": peer,
            "theirs": theirs, "ratio": round(ratio, 3), "at_least": 1.0}  # fmt: skip


def _text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=[*PARTS, "locomo"], help="this part alone")
    parser.add_argument("--count", type=int, help="how many vectors")
    parser.add_argument("--locomo", type=Path, help="locomo10.json, if you have it")
    parser.add_argument("--tune", action="store_true", help="compare weights of the fusion")
    options = parser.parse_args()
    if options.only == "locomo" and not options.locomo:
        parser.error("--only locomo needs --locomo FILE")
    if options.tune:
        options.only = "questions"
    result = asyncio.run(measure(options))
    rows = bounds(result)
    if not options.json:
        for name, row in result.items():
            print(f"{name:<12} {json.dumps(row)}")
        for row in rows:
            verdict = "reached" if row["ratio"] >= row["at_least"] else "MISSED"
            limit = "at most" if row["unit"] == "ms" else "at least"
            interval = f" ({row['low']} to {row['high']})" if "low" in row else ""
            print(f"{row['work']}: {row['ours']} {row['unit']}{interval}, {limit} {row['bound']}: "
                  f"{verdict}")  # fmt: skip
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"benchmark": "memory", "machine": machine, "rows": rows, "figures": result}))


if __name__ == "__main__":
    main()
