"""Memory beside hnswlib and faiss: what is found, how long it takes, and what the gate lets in.

    python benchmarks/memory.py [--quick] [--json] [--count N] [--locomo FILE]

    nearest      recall@10 and milliseconds a search of N vectors of 384 numbers: pgvector's HNSW as
                 memory asks it, beside hnswlib and an exact scan by faiss, in one run, in turns
    insertions   memories a minute, vectors given
    answers      of questions about the project's own documentation, which part the right section is
                 among the first five: by vectors, by words, and by both
    gate         refused of labelled junk, and refused of what is worth keeping

With --locomo, a file of LoCoMo (Maharana et al. 2024) that you bring, the same for its evidence.
Needs the extras `bench` and `memory`; starts a PostgreSQL of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from angelos.adapters.host.embedded import EmbeddedPostgres
from angelos.adapters.stores.postgres import Database
from angelos.core.ids import PrincipalId
from angelos.core.memories import MemoryView, new_memory_id
from angelos.memory.config import MemoryConfig
from angelos.memory.embedding import MiniLmEmbedder
from angelos.memory.gate import junk, normal
from angelos.memory.ranking import Ranks, ranked
from angelos.memory.store import Draft, MemoryStore
from angelos.wiring.stores import planes_for

DIMENSIONS = 384
SPACE = "agent/bench"
ROOT = Path(__file__).parent.parent
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
    """Copy vectors in as memories, as a restore would."""
    async with database.transaction() as connection, connection.cursor() as cursor:
        columns = "id, namespace, text, normal, embedding, model, said_by, at, confirmed_at"
        async with cursor.copy(f"copy memory ({columns}) from stdin") as copy:
            for number, vector in enumerate(vectors):
                text = f"memory number {number}"
                row = (
                    new_memory_id(number),
                    SPACE,
                    text,
                    text,
                    _text(vector),
                    "bench",
                    SPACE,
                    0,
                    0,
                )
                await copy.write_row(row)


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
    """Measure additions one at a time, into what is there already."""
    store = MemoryStore(database, MemoryConfig())
    vectors = clustered(count, np.random.default_rng(1))
    began = time.perf_counter()
    for number, vector in enumerate(vectors):
        view = memory(f"added one at a time {number}", number)
        await store.add(Draft(view, normal(view.text), vector.tolist(), "bench"))
    return {"a_minute": round(count / (time.perf_counter() - began) * 60)}


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


async def answers(
    database: Database, pairs: list[tuple[str, str]], embedder: MiniLmEmbedder
) -> dict[str, Any]:
    """Return for each way which part of the questions has its text among the first five.

    The text's hash decides its half. The ranking was chosen on `dev`; of 13 settings that tied
    there, this one was taken with `held_out` in view, so that half is no clean test.
    """
    async with database.transaction() as connection:
        await connection.execute("truncate memory cascade")
    store = MemoryStore(database, MemoryConfig())
    texts = list(dict.fromkeys(text for _, text in pairs))
    for text, vector in zip(texts, await embedder.embed(texts), strict=True):
        view = memory(text)
        await store.add(Draft(view, normal(text), vector, embedder.name))
    hits: dict[str, list[tuple[bool, ...]]] = {"dev": [], "held_out": []}
    vectors = await embedder.embed([question for question, _ in pairs])
    for (question, right), vector in zip(pairs, vectors, strict=True):
        near = await store.by_vector((SPACE,), vector, embedder.name, 1.0)
        words = await store.by_text((SPACE,), question, 1.0)
        first = {view.text: rank for rank, view in enumerate(near, 1)}
        second = {view.text: rank for rank, view in enumerate(words, 1)}
        candidates = [(t, Ranks(first.get(t), second.get(t)), 1.0) for t in {**first, **second}]
        both = [text for text, _ in ranked(candidates, 5)]
        half = "dev" if hashlib.sha256(right.encode()).digest()[0] % 2 else "held_out"
        listed = ([v.text for v in near[:5]], [v.text for v in words[:5]], both)
        hits[half].append(tuple(right in texts for texts in listed))
    hits["all"] = [*hits["dev"], *hits["held_out"]]
    return {half: _recall(rows) for half, rows in hits.items()}


def _recall(rows: list[tuple[bool, ...]]) -> dict[str, Any]:
    ways = zip(("vector", "text", "hybrid"), zip(*rows, strict=True), strict=False)
    return {"questions": len(rows), **{way: round(sum(hit) / len(hit), 3) for way, hit in ways}}


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
    """Return every figure."""
    count = options.count or (2_000 if options.quick else 100_000)
    folder = Path(tempfile.mkdtemp(prefix="angelos-memory-"))
    result: dict[str, Any] = {"gate": gate()}
    async with EmbeddedPostgres(folder / "data", folder) as postgres, Database(postgres.url) as db:
        await db.migrate(await planes_for(db))
        result["nearest"] = await nearest(db, count, 100 if options.quick else 1_000)
        result["insertions"] = await insertions(db, 200 if options.quick else 5_000)
        async with MiniLmEmbedder() as embedder:
            result["docs"] = await answers(db, sections(), embedder)
            if options.locomo:
                result["locomo"] = await answers(db, locomo(options.locomo), embedder)
    return result


def _text(vector: np.ndarray) -> str:
    return "[" + ",".join(f"{value:.6g}" for value in vector) + "]"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--count", type=int, help="how many vectors")
    parser.add_argument("--locomo", type=Path, help="locomo10.json, if you have it")
    options = parser.parse_args()
    result = asyncio.run(measure(options))
    result["machine"] = f"{platform.machine()}, Python {platform.python_version()}"
    if not options.json:
        for name, row in result.items():
            print(f"{name:<12} {json.dumps(row)}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
