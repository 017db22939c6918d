"""Simple completions of a line: the likes of what an editor has without a model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

_ORDERS = (8, 6, 4, 2)
_LONGEST = 40


def same_line(before: str) -> str:
    """Return how the last line with the same beginning goes on."""
    document, _, line = before.rpartition("\n")
    beginning = line.lstrip()
    for earlier in reversed(document.split("\n")):
        if earlier.lstrip().startswith(beginning) and len(earlier.lstrip()) > len(beginning):
            return earlier.lstrip()[len(beginning) :]
    return ""


def same_suffix(before: str) -> str:
    """Return how the document went on where its longest repeated ending last stood."""
    for size in range(min(24, len(before)), 2, -1):
        at = before.rfind(before[-size:], 0, len(before) - 1)
        if at >= 0:
            return before[at + size : at + size + _LONGEST].split("\n", 1)[0]
    return ""


class MostFrequent:
    """The most frequent next character after the longest known context of 8, 6, 4 or 2."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._counts: dict[int, dict[str, Counter[str]]] = {}
        for order in _ORDERS:
            counts: dict[str, Counter[str]] = defaultdict(Counter)
            for text in texts:
                for i in range(order, len(text)):
                    counts[text[i - order : i]][text[i]] += 1
            self._counts[order] = dict(counts)

    def __call__(self, before: str) -> str:
        """Return the rest of the line, or as far as contexts are known."""
        text = before[-_ORDERS[0] :]
        start = len(text)
        while len(text) - start < _LONGEST:
            counts = next((c for n in _ORDERS if (c := self._counts[n].get(text[-n:]))), None)
            character = counts.most_common(1)[0][0] if counts else "\n"
            if character == "\n":
                break
            text += character
        return text[start:]
