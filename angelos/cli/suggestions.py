"""What a mistyped word may stand for.

>>> tree = {"proposal": ("list", "approve"), "task": ("list", "run"), "up": ()}
>>> did_you_mean("", ["proposals"], tree)
' Did you mean `angelos proposal list`?'
>>> did_you_mean("task", ["lsit"], tree)
' Did you mean `angelos task list`?'
>>> did_you_mean("", ["approve", "prop-0193"], tree)
' Did you mean `angelos proposal approve`?'
>>> did_you_mean("", ["fly"], tree)
''
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher

Tree = Mapping[str, Sequence[str]]
"""Noun -> its verbs; a command that is no group has none."""

_PLURALS = {"people": "person"}
_MOST = 3
_ALIKE = 0.6
_WORSE = 0.1
"""What is less alike than the best match by more than this is not meant."""


def did_you_mean(noun: str, words: Sequence[str], tree: Tree) -> str:
    """Return the sentence that goes behind `No such command`, empty if nothing comes close.

    Args:
        noun: The group in which the word was looked up; empty for the root.
        words: The unknown word and what followed it.
        tree: All commands.
    """
    lines = [f"`angelos {line}`" for line in suggestions(noun, words, tree)[:_MOST]]
    return f" Did you mean {' or '.join(lines)}?" if lines else ""


def suggestions(noun: str, words: Sequence[str], tree: Tree) -> list[str]:
    """Return the commands that may be meant: words that are spelt alike, here or elsewhere."""
    word = words[0]
    singular = _PLURALS.get(word, word.removesuffix("s"))
    if not noun and singular != word and singular in tree:
        return [_with_verb(singular, words, tree, "list")]
    verbs = {verb for verbs in tree.values() for verb in verbs}
    if noun:
        verbs &= {*tree.get(noun, ()), word}
    lines: list[str] = []
    for near in _alike(word, verbs if noun else verbs | set(tree)):
        if near in tree and not noun:
            lines.append(_with_verb(near, words, tree))
        here = [noun] if near in tree.get(noun, ()) else list(tree)
        lines += [f"{name} {near}" for name in here if near in tree[name]]
    return lines


def _with_verb(noun: str, words: Sequence[str], tree: Tree, default: str = "") -> str:
    """Return a noun with the verb that followed it, if it has such a verb, else `default`."""
    verb = words[1] if words[1:] and words[1] in tree[noun] else default
    return f"{noun} {verb}" if verb in tree[noun] else noun


def _alike(word: str, names: Iterable[str]) -> list[str]:
    """Return the names that are about as much like `word` as the one that is most like it."""
    ratios = {name: SequenceMatcher(None, word, name).ratio() for name in sorted(names)}
    least = max([_ALIKE, *(ratio - _WORSE for ratio in ratios.values())])
    return sorted((n for n in ratios if ratios[n] >= least), key=lambda n: -ratios[n])
