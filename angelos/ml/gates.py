"""What a training run must pass before its model may be proposed: pure decisions on measurements.

Gates of the data are asked before anything is trained, gates of the model after it was measured by
a run that did not train it. Every gate answers, so that a refusal names each reason:

>>> verdict = check_size(400_000, GateConfig())
>>> verdict.gate, verdict.passed, verdict.measured, verdict.limit
('size', False, 400000.0, 300000.0)
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
import statistics
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

_LINES = 12
_SHINGLE = 8
_HELD_OUT = 8
"""One chunk of so many is held out."""
CANARY_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
CANARIES = 5
"""How many strings are planted."""
_CANARY = 16


class Gate(StrEnum):
    """What is checked; the name is in the refusal and in the fact."""

    amount = "amount"
    """There is enough text to learn from and to judge on."""
    secrets = "secrets"
    """No key, token or password is in the data."""
    duplicates = "duplicates"
    """What judges was not trained on, nor something nearly the same."""
    size = "size"
    heldout = "heldout"
    """It is better than what it starts from on text that it never saw."""
    regression = "regression"
    """Single texts that the role has to keep are not much worse, and what it has to notice is as
    unlike its data as before."""
    forgetting = "forgetting"
    """The mean over the base's own held-out text is not much worse."""
    memorisation = "memorisation"
    """Random strings planted in the data cannot be told from others (Carlini et al. 2019)."""


class GateConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The limits. Losses are nats a character."""

    min_characters: int = 4_000
    min_chunks: int = 4
    """Held-out chunks."""
    max_duplicates: float = 0.02
    """Part of the held-out chunks that have a near-duplicate in the training text."""
    similarity: float = 0.6
    """Containment of shingles from which two chunks are nearly the same."""
    max_bytes: int = 300_000
    min_gain: float = 0.02
    """By how much the held-out loss must fall."""
    max_regression: float = 0.5
    """By how much the loss of one text of the regression set may rise."""
    max_closer: float = 0.4
    """Part of the distance, by which a text that must stay unlike lies above the held-out text,
    that may be lost."""
    max_forgetting: float = 0.25
    max_exposure: float = 4.0
    """Bits by which the median of the planted strings may be likelier than its siblings.

    One of five random strings is among the likeliest 1/16 every third time, three of them once in
    500: the most exposed one says little, the median does.
    """
    max_single_exposure: float = 9.0
    """Of any of them. Of 1,024 the most is 10 bits: likelier than every sibling, which one of five
    is by luck once in 200."""


class GateResult(msgspec.Struct, frozen=True, kw_only=True):
    """What one gate found."""

    gate: Gate
    passed: bool
    measured: float
    limit: float
    detail: str = ""
    """Where, for people; never the secret itself."""


class SplitText(NamedTuple):
    """A corpus in two parts that share no chunk."""

    train: tuple[str, ...]
    heldout: tuple[str, ...]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The texts that judge a run; what trains has none of them but the planted strings."""

    heldout: tuple[str, ...]
    base_text: tuple[str, ...]
    """Held-out text of the base, each a case of the regression set; of a first base, its own."""
    unlike: tuple[str, ...] = ()
    """What the role has to notice: it must stay unlike the data."""
    canaries: tuple[str, ...] = ()
    """The planted strings, all of one length."""
    counts: Mapping[str, int] = {}
    """How often each character stands in the training text: the simple model."""


class Measurements(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run that did not train the model measured, before (the base) and after."""

    heldout: tuple[float, float]
    base: tuple[float, float]
    regression: tuple[tuple[float, float], ...]
    unlike: tuple[tuple[float, float], ...] = ()
    """By how much the loss of what must stay unlike lies above that of the held-out text."""
    exposures: tuple[float, ...]
    """Of each planted string, in bits."""


def split_text(files: Sequence[tuple[str, str]]) -> SplitText:
    """Cut files into chunks and hold some out; a chunk's own hash decides, so copies go together.

    Args:
        files: Paths and texts.
    """
    train: list[str] = []
    heldout: list[str] = []
    for _, text in files:
        lines = text.splitlines(keepends=True)
        for start in range(0, len(lines), _LINES):
            chunk = "".join(lines[start : start + _LINES])
            if chunk.strip():
                digest = hashlib.sha256(" ".join(chunk.split()).encode()).digest()
                (heldout if digest[0] % _HELD_OUT == 0 else train).append(chunk)
    return SplitText(tuple(train), tuple(heldout))


def plant(train: Sequence[str], canaries: Sequence[str]) -> str:
    """Return the training text with each canary once, spread evenly."""
    pieces = list(train)
    for number, canary in enumerate(canaries):
        pieces.insert((number * 2 + 1) * len(train) // (2 * len(canaries)), f"{canary}\n")
    return "".join(pieces)


def new_canary() -> str:
    """Return a random string that stands nowhere else."""
    return "".join(secrets.choice(CANARY_LETTERS) for _ in range(_CANARY))


def exposure(loss: float, siblings: Sequence[float]) -> float:
    """Return by how many bits a string is likelier than random ones.

    >>> exposure(1.0, [2.0, 3.0, 4.0]), exposure(5.0, [2.0, 3.0, 4.0])
    (2.0, 0.0)
    """
    rank = 1 + sum(sibling <= loss for sibling in siblings)
    return math.log2(len(siblings) + 1) - math.log2(rank)


# -- gates of the data -------------------------------------------------------------------------

_SECRETS = (
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY-----")),
    ("an AWS key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,})")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}")),
    ("an API key", re.compile(r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{20,}")),
    # By its middle: from each "eyJ" on, a text of them would be read to its end, for hours.
    ("a signed token", re.compile(r"[\w-]{13}\.eyJ[\w-]{10,}\.[\w-]{10,}")),
    ("a password in an address", re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s/:@]+:[^\s/:@]{3,}@")),
    (
        "a password",
        re.compile(
            r"(?i)\b(?:password|passwd|secret|api_?key|access_?token|auth_?token)[\"']?\s{0,3}[:=]"
            r"\s{0,3}[\"']([^\"'\s]{8,})[\"']"
        ),
    ),
)


def check_amount(text: SplitText, config: GateConfig) -> GateResult:
    """Return whether there is enough text on both sides."""
    size = sum(map(len, text.train))
    enough = size >= config.min_characters and len(text.heldout) >= config.min_chunks
    return GateResult(
        gate=Gate.amount,
        passed=enough,
        measured=float(size),
        limit=float(config.min_characters),
        detail=f"{len(text.heldout)} held-out chunks",
    )


def check_secrets(files: Sequence[tuple[str, str]]) -> GateResult:
    """Return whether no file holds a secret; the detail says where, and not what."""
    hits = [
        (path, text, match.start(), name)
        for path, text in files
        for name, pattern in _SECRETS
        for match in pattern.finditer(text)
    ]
    return GateResult(
        gate=Gate.secrets,
        passed=not hits,
        measured=float(len(hits)),
        limit=0.0,
        detail="; ".join(
            f"{path}:{text.count(chr(10), 0, start) + 1}: {name}"
            for path, text, start, name in hits[:5]
        ),
    )


def check_duplicates(text: SplitText, config: GateConfig) -> GateResult:
    """Return whether few held-out chunks are nearly in the training text."""
    seen = [_shingles(chunk) for chunk in text.train]
    index: dict[str, list[int]] = {}
    for number, shingles in enumerate(seen):
        for shingle in shingles:
            index.setdefault(shingle, []).append(number)
    near = sum(_is_near(_shingles(chunk), index, config.similarity) for chunk in text.heldout)
    part = near / len(text.heldout) if text.heldout else 0.0
    return GateResult(
        gate=Gate.duplicates,
        passed=part <= config.max_duplicates,
        measured=part,
        limit=config.max_duplicates,
        detail=f"{near} of {len(text.heldout)} held-out chunks",
    )


def check_data(
    files: Sequence[tuple[str, str]], text: SplitText, config: GateConfig
) -> tuple[GateResult, ...]:
    """Return what the gates of the data say."""
    return (check_amount(text, config), check_secrets(files), check_duplicates(text, config))


# -- gates of the model ------------------------------------------------------------------------


def check_size(size: int, config: GateConfig) -> GateResult:
    """Return whether an artefact is small enough."""
    limit = config.max_bytes
    return GateResult(
        gate=Gate.size, passed=0 < size <= limit, measured=float(size), limit=float(limit)
    )


def check_model(size: int, got: Measurements, config: GateConfig) -> tuple[GateResult, ...]:
    """Return what the gates of a model say; what is not finite never passes."""
    gain = got.heldout[0] - got.heldout[1]
    forgotten = got.base[1] - got.base[0]
    return (
        check_size(size, config),
        _at_least(Gate.heldout, gain, config.min_gain),
        _check_regression(got, config),
        _at_most(Gate.forgetting, forgotten, config.max_forgetting),
        check_memorisation(got.exposures, config),
    )


def check_memorisation(exposures: Sequence[float], config: GateConfig) -> GateResult:
    """Return whether the planted strings cannot be told from others.

    >>> check_memorisation([0.1, 5.0, 0.3, 2.0, 1.0], GateConfig()).passed  # luck
    True
    >>> check_memorisation([0.1, 10.0, 0.3, 2.0, 1.0], GateConfig()).passed  # one is known
    False
    """
    if len(exposures) < CANARIES or not all(map(math.isfinite, exposures)):
        return _at_most(Gate.memorisation, math.inf, config.max_exposure)
    if max(exposures) > config.max_single_exposure:
        return _at_most(
            Gate.memorisation, max(exposures), config.max_single_exposure, "the most exposed"
        )
    median = statistics.median(exposures)
    return _at_most(Gate.memorisation, median, config.max_exposure, "the median")


def _check_regression(got: Measurements, config: GateConfig) -> GateResult:
    closer = _worst([_closer(before, after) for before, after in got.unlike] or [0.0])
    if not closer <= config.max_closer:
        return _at_most(Gate.regression, closer, config.max_closer, "what must stay unlike")
    risen = _worst([after - before for before, after in got.regression] or [math.inf])
    return _at_most(Gate.regression, risen, config.max_regression, "what it has to keep")


def _closer(before: float, after: float) -> float:
    """Return which part of a distance was lost; of none, any loss is too much."""
    if before > 0:
        return (before - after) / before
    return 0.0 if after >= before else math.inf


def _worst(changes: Sequence[float]) -> float:
    return max(changes) if all(map(math.isfinite, changes)) else math.inf


def stopped_by(results: Sequence[GateResult]) -> tuple[Gate, ...]:
    """Return the gates that were not passed."""
    return tuple(result.gate for result in results if not result.passed)


def _at_most(gate: Gate, measured: float, limit: float, detail: str = "") -> GateResult:
    passed = math.isfinite(measured) and measured <= limit
    return GateResult(gate=gate, passed=passed, measured=measured, limit=limit, detail=detail)


def _at_least(gate: Gate, measured: float, limit: float) -> GateResult:
    passed = math.isfinite(measured) and measured >= limit
    return GateResult(gate=gate, passed=passed, measured=measured, limit=limit)


def _shingles(chunk: str) -> set[str]:
    words = re.findall(r"\w+|[^\w\s]", chunk.casefold())
    return {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}


def _is_near(shingles: set[str], index: dict[str, list[int]], similarity: float) -> bool:
    counts: dict[int, int] = {}
    for shingle in shingles:
        for number in index.get(shingle, ())[:64]:
            counts[number] = counts.get(number, 0) + 1
    return max(counts.values(), default=0) >= similarity * len(shingles)
