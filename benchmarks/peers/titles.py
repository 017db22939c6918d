"""Titles of commits by rule, and by a learned scope; `f1` says how near a title is to another."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

_STOP = frozenset(["a", "an", "and", "are", "as", "be", "by", "for", "in", "is", "it", "its", "not",
                   "of", "on", "or", "that", "the", "to", "with"])  # fmt: skip
_SYMBOL = re.compile(r"\b(?:def|class|function)\s+(\w+)")
_PHRASES = (
    re.compile(r"(?:async )?def test_(\w+)"),
    re.compile(r"(?:async )?(?:def|class) (\w+)"),
    re.compile(r'"""(.+?)(?:[.:;] |\.?"""|\.?$)'),
    re.compile(r"#+ (.+?)\.?$"),
    re.compile(r"(?:[-*] )?([A-Z`*][^.:;]{15,})"),
)


class FileDiff(NamedTuple):
    """What a commit does to one file."""

    path: str
    added: list[str]
    removed: list[str]
    context: list[str]


def parse(diff: str) -> list[FileDiff]:
    """Return the files of a unified diff, in order."""
    files: list[FileDiff] = []
    for line in diff.splitlines():
        if line.startswith("diff --git"):
            files.append(FileDiff(line.rpartition(" b/")[2], [], [], []))
        elif files and line.startswith("@@"):
            files[-1].context.append(line.split("@@", 2)[-1])
        elif files and line.startswith("+") and not line.startswith("+++ "):
            files[-1].added.append(line[1:])
        elif files and line.startswith("-") and not line.startswith("--- "):
            files[-1].removed.append(line[1:])
    return files


def words(text: str) -> list[str]:
    """Return the words of a text that say something."""
    plain = re.sub(r"([a-z])([A-Z])", r"\1 \2", text.replace("_", " ")).lower()
    return [word for word in re.findall(r"[a-z0-9]+", plain) if word not in _STOP]


def f1(title: str, subject: str) -> float:
    """Return the harmonic mean of precision and recall of a title's words."""
    ours, theirs = Counter(words(title)), Counter(words(subject))
    shared = sum((ours & theirs).values())
    return 2 * shared / (sum(ours.values()) + sum(theirs.values())) if shared else 0.0


def symbol(files: Sequence[FileDiff]) -> str:
    """Return the first changed symbol with its file."""
    for file in files:
        for line in (*file.added, *file.context):
            if match := _SYMBOL.search(line):
                return f"{PurePosixPath(file.path).name}: {match[1]}"
    return PurePosixPath(files[0].path).name if files else ""


def phrase(files: Sequence[FileDiff]) -> str:
    """Return the first added test name, name, docstring, comment or heading as words."""
    for file in files:
        for line in file.added:
            for pattern in _PHRASES:
                match = pattern.match(line.strip())
                if (
                    match
                    and 2 <= len(re.findall(r"[A-Za-z0-9]+", match[1].replace("_", " "))) <= 16
                ):
                    return match[1].replace("_", " ").strip("*` ")
    return symbol(files)


def folder(files: Sequence[FileDiff]) -> str:
    """Return the folder in which most lines change, below the package."""
    counts: Counter[str] = Counter()
    for file in files:
        parts = file.path.split("/")
        deep = parts[0] == "angelos" and len(parts) > 2
        name = parts[1] if deep else parts[0]
        counts[name.removesuffix("_ext")] += len(file.added) + len(file.removed)
    return counts.most_common(1)[0][0] if counts else ""


class LearnedScope:
    """The scope that subjects begin with, learned from the parts of paths (naive Bayes)."""

    def __init__(self, commits: Sequence[tuple[str, Sequence[FileDiff]]]) -> None:
        self._totals: Counter[str] = Counter()
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        for subject, files in commits:
            scope, colon, _ = subject.partition(":")
            if colon and files:
                self._totals[scope.lower()] += 1
                self._counts[scope.lower()].update(_parts(files))
        self._known = set[str]().union(*self._counts.values())

    def __call__(self, files: Sequence[FileDiff]) -> str:
        """Return the likeliest scope."""
        parts = _parts(files)

        def likelihood(scope: str) -> float:
            counts = self._counts[scope]
            size = sum(counts.values()) + 0.05 * len(self._known)
            rows = (n * math.log((counts[p] + 0.05) / size) for p, n in parts.items())
            return math.log(self._totals[scope]) + 8 * sum(rows)

        return max((s for s, n in self._totals.items() if n > 2), key=likelihood, default="")


def _parts(files: Sequence[FileDiff]) -> dict[str, float]:
    counts: Counter[str] = Counter()
    for file in files:
        weight = math.log(1 + len(file.added) + len(file.removed))
        for part in re.split(r"[/.]", file.path):
            counts[part] += weight
    total = sum(counts.values()) or 1
    return {part: count / total for part, count in counts.items()}
