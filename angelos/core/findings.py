"""What the gate saw in a patch that a person has to look at.

>>> GateFinding(rule=GateRule.syntax, path="a.py", line=3, reason="import of ctypes").where
'a.py:3'
"""

from __future__ import annotations

from enum import StrEnum

from angelos.core.messages import Message


class GateRule(StrEnum):
    """Which rule a person is asked for."""

    judge_changed = "judge-changed"
    """A file that judges (a test, a runner's settings, a CI file) was changed."""
    judge_removed = "judge-removed"
    """A file that judges was removed or moved."""
    tests_fewer = "tests-fewer"
    """There are fewer tests than `main` has."""
    tests_skipped = "tests-skipped"
    """A test that ran on `main` is skipped."""
    errors_expected = "errors-expected"
    """A notebook may raise errors where `main`'s may not."""
    shadows_module = "shadows-module"
    """A file has the name of a standard or installed module, or runs when Python starts."""
    looks_alike = "looks-alike"
    """A path differs from another only in case or in how a letter is written."""
    file_kind = "file-kind"
    """A link, a binary, or a kind of file that no rule understands."""
    syntax = "syntax"
    """Code that the rule over syntax trees does not understand."""
    unchecked = "unchecked"
    """The patch could not be checked in the time and memory allowed."""
    not_witnessed = "not-witnessed"
    """A step's end is only the word of a program that the patch may have changed."""
    main_fails = "main-fails"
    """A test fails on the candidate and on `main` as well."""
    results_differ = "results-differ"
    """`main`'s own version of a test that the patch changed fails on the candidate."""


class RiskKind(StrEnum):
    """What makes a change risky."""

    size = "size"
    """Files and added lines."""
    deleted = "deleted"
    """Files that it removes."""
    unseen = "unseen"
    """More than a person is shown."""
    long_line = "long-line"
    """A line so long that nobody reads it: encoded payloads have such."""
    protected = "protected"
    """Paths of which each change waits for a person."""
    record = "record"
    """How the author's earlier proposals ended."""
    uncovered = "uncovered"
    """Code that no test imports."""
    outputs = "outputs"
    """Cells of notebooks that lose the outputs they had."""
    sentinel = "sentinel"
    """How unlike approved history the added lines are, by a small model: one weak signal."""


class RiskFactor(Message, frozen=True, kw_only=True):
    """One reason why a change is risky, with its figure."""

    kind: RiskKind
    points: int
    """Of 1000."""
    figure: float
    """What was counted."""
    reason: str

    def __str__(self) -> str:
        """Return it as one phrase, for people to read."""
        return f"{self.reason} (+{self.points})"


class PatchScore(Message, frozen=True, kw_only=True):
    """How unlike approved history a patch is, beside three measures that need no model."""

    model: str
    """The version that says so, as `sentinel:3`; scores of two models are not compared."""
    text: int
    """Which of the texts is the most unlike, from 0; all figures are of that one."""
    loss: float
    """Nats a character of its worst 40 characters."""
    unlike: float
    """Part of approved pieces of the same length that the model never saw and finds less unlike."""
    pieces: int
    """How many such pieces there are; with few of them `unlike` says little."""
    entropy: float
    """Bits a character."""
    zlib_ratio: float
    """Compressed size by size."""
    longest_line: int
    read: int
    """Characters of all texts that were read."""
    skipped: int = 0
    """Characters that were not, because there are too many."""


class GateFinding(Message, frozen=True, kw_only=True):
    """One reason for which a person is asked."""

    rule: GateRule
    path: str = ""
    line: int = 0
    reason: str = ""

    @property
    def where(self) -> str:
        """The path, with the line if there is one."""
        return f"{self.path}:{self.line}" if self.line else self.path

    def __str__(self) -> str:
        """Return it as one phrase, for people to read."""
        return ": ".join(part for part in (self.where, self.reason) if part)
