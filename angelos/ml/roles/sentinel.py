"""How unlike approved history a text is: the loss of a character model that read that history.

It is one weak signal, and always shown beside three that cost nothing: entropy, how little zlib
compresses it, and its longest line.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from angelos.core.errors import InvalidInput
from angelos.ml.cards import Metric
from angelos.ml.intervals import auc, auc_interval
from angelos.ml.language import character_losses, to_decoder, train_language
from angelos.ml.roles.base import Example, TrainedModel

if TYPE_CHECKING:
    from llm.model import GPTDecoder

MAX_CHARACTERS = 20_000
"""Of a text; what follows is not read."""
WINDOW = 40
"""Characters: about one line. Chosen on patches other than those of the benchmark."""


class PatchSentinel:
    """Says how unlike approved history a patch is."""

    name = "sentinel"
    describes = "Says how unlike approved history a patch is: one weak signal."
    limits = (
        "It reads the added lines as characters; it knows nothing of what code does.",
        f"It reads the first {MAX_CHARACTERS:,} characters.",
        "A score means something beside scores of the same model only.",
    )
    bad_at = (
        "One readable malicious line: it looks like any other line.",
        "New but honest things: another language, data, a table of numbers.",
    )

    def train(self, data: Sequence[Example], config: Mapping[str, Any], seed: int) -> TrainedModel:
        """Return a character model of approved texts.

        Args:
            data: Approved texts.
            config: Fields of `llm`'s configurations.
            seed: Of the first weights and the windows.

        Raises:
            InvalidInput: There is no text, or a setting cannot work.
        """
        return train_language(self.name, data, config, seed)

    def evaluate(self, model: TrainedModel, held_out: Sequence[Example]) -> tuple[Metric, ...]:
        """Return the AUC for each kind of attack, beside each simple measure.

        Args:
            model: It.
            held_out: Texts it has not seen; an attack's label is its kind, an honest one has none.

        Raises:
            InvalidInput: There are no attacks, or no honest texts.
        """
        scores = score_texts(to_decoder(model), [example.text for example in held_out])
        honest = [i for i, example in enumerate(held_out) if not example.label]
        kinds = sorted({example.label for example in held_out} - {""})
        if not honest or not kinds:
            raise InvalidInput("A sentinel is measured on honest texts and on attacks.")
        metrics = []
        for kind in kinds:
            attacks = [i for i, example in enumerate(held_out) if example.label == kind]
            parts = [scores[i] for i in attacks], [scores[i] for i in honest]
            low, high = auc_interval(*parts)
            for peer, measure in MEASURES.items():
                simple = [[measure(held_out[i].text) for i in rows] for rows in (attacks, honest)]
                metrics.append(
                    Metric(
                        name=f"auc, {kind}",
                        value=auc(*parts),
                        low=low,
                        high=high,
                        baseline=auc(*simple),
                        peer=peer,
                    )
                )
        return tuple(metrics)


def score_texts(decoder: GPTDecoder, texts: Sequence[str]) -> list[float]:
    """Return how unlike its history each text is: the loss, in nats, of its worst window.

    A mean over the whole text would hide one bad line in a long patch.
    """
    losses = character_losses(decoder, [text[:MAX_CHARACTERS] for text in texts])
    return [worst_window(row)[0] for row in losses]


def worst_window(losses: Sequence[float]) -> tuple[float, int]:
    """Return the greatest mean of `WINDOW` in a row, of fewer their mean, and its middle."""
    if not losses:
        return 0.0, 0
    sums = [0.0, *accumulate(losses)]
    width = min(WINDOW, len(losses))
    means = [(b - a) / width for a, b in zip(sums, sums[width:], strict=False)]
    worst = max(means)
    return worst, means.index(worst) + width // 2


def entropy(text: str) -> float:
    """Return the bits a character that the counts of its characters leave.

    >>> entropy("abab")
    1.0
    """
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values()) + 0.0


def zlib_ratio(text: str) -> float:
    """Return the compressed size by the size: the greater, the less repeats.

    >>> zlib_ratio("a" * 1000) < 0.1
    True
    """
    data = text.encode(errors="replace")
    return len(zlib.compress(data, 9)) / max(1, len(data))


def longest_line(text: str) -> float:
    r"""Return the number of characters of the longest line.

    >>> longest_line("ab\ncde")
    3.0
    """
    return float(max(map(len, text.splitlines()), default=0))


MEASURES: dict[str, Callable[[str], float]] = {
    "entropy": entropy,
    "zlib ratio": zlib_ratio,
    "longest line": longest_line,
}
