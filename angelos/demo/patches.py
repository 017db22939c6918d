r"""What the agents and the person of the demo change: pure functions of the file's text.

A place is found by its text and not by its line number, since the modules differ between versions
of Python.

    >>> replace_once("a = 1\n", "1", "2")
    'a = 2\n'
"""

from __future__ import annotations

import difflib
import json

STATISTICS = "study/statistics.py"
DIFFLIB = "study/difflib.py"

TITLE = "Basic statistics module.\n"

MIDRANGE = '''\
def midrange(data):
    """Return the mean of the smallest and the largest value.

    >>> midrange([1, 2, 9])
    5.0
    """
    values = sorted(data)
    if not values:
        raise StatisticsError('midrange requires at least one data point')
    return (values[0] + values[-1]) / 2


'''

RMS = '''\
def rms(data):
    """Return the root mean square.

    >>> rms([3, 4, 5, 0, 0])
    3.1622776601683795
    """
    values = [x * x for x in data]
    if not values:
        raise StatisticsError('rms requires at least one data point')
    return math.sqrt(fsum(values) / len(values))


'''

TYPED = "\n# Reviewed by the owner: midrange and rms are wanted.\n"


class PatchError(ValueError):
    """The text lacks what the patch was to change."""


def replace_once(text: str, old: str, new: str) -> str:
    """Replace the only occurrence of `old`; raise `PatchError` if there is not exactly one."""
    if text.count(old) != 1:
        raise PatchError(f"{old!r} occurs {text.count(old)} times in the text, not once")
    return text.replace(old, new)


def unified(path: str, before: str, after: str) -> str:
    """Return the unified diff of one file."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return "".join(lines)


def with_midrange(text: str) -> str:
    """Return `statistics.py` with `midrange` before `geometric_mean`, and a title that says so."""
    text = replace_once(text, TITLE, "Basic statistics module, with midrange.\n")
    return replace_once(text, "def geometric_mean(", MIDRANGE + "def geometric_mean(")


def with_rms(text: str) -> str:
    """Return `statistics.py` with `rms` before `median_low`."""
    return replace_once(text, "def median_low(", RMS + "def median_low(")


def with_other_title(text: str) -> str:
    """Return `statistics.py` with another title than the one that `with_midrange` gives it."""
    return replace_once(text, TITLE, "Statistics, the short way.\n")


def broken_statistics(text: str) -> str:
    """Return a mutant of `statistics.py`: the mean divides by one too many."""
    return replace_once(
        text, "return _convert(total / n, T)", "return _convert(total / (n + 1), T)"
    )


def broken_difflib(text: str) -> str:
    """Return a mutant of `difflib.py`: the ratio counts matches once."""
    return replace_once(text, "return 2.0 * matches / length", "return 1.0 * matches / length")


def looser_tolerance(text: str) -> str:
    """Return `constants.py` with another tolerance: a change that a person has to agree to."""
    return replace_once(text, "TOLERANCE = 1e-9", "TOLERANCE = 1e-8")


def without_review(text: str) -> str:
    """Return `angelos.toml` with nothing protected: what no agent may propose."""
    return replace_once(text, 'protected = ["study/constants.py"]', "protected = []")


def wrong_reference(text: str) -> str:
    """Return `reference.json` with a wrong mean: no doctest sees it, the health command does."""
    body = json.loads(text)
    body["mean"] += 1
    return json.dumps(body, indent=1) + "\n"
