"""Which agent or node label should take a task: the nearest centre of earlier tasks' embeddings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from angelos.core.errors import InvalidInput
from angelos.ml.cards import Metric
from angelos.ml.intervals import mean_interval
from angelos.ml.roles.base import Example, TrainedModel, hash_examples

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]
"""Returns a vector of length one for each text."""
_FEWEST = 3


class TaskRouter:
    """Proposes who should take a task, by what it resembles."""

    name = "router"
    describes = "Proposes which agent or node label should take a task, by meaning."
    limits = (
        "It proposes; the policy decides, and a person may always choose.",
        f"A label needs at least {_FEWEST} tasks to learn from.",
        "Vectors of one embedding model mean nothing to another.",
    )
    bad_at = (
        "A task for two agents at once, or for none of them: it always names one.",
        "Tasks in other languages than those of the embedding model (English).",
        "Names that only insiders know.",
    )

    def __init__(self, embed: Embed, keywords: Mapping[str, Sequence[str]] | None = None) -> None:
        """Take the embedding model.

        Args:
            embed: It.
            keywords: Words by label, for the simple thing that it is measured beside.
        """
        self._embed = embed
        self._keywords = {label: frozenset(words) for label, words in (keywords or {}).items()}

    def train(self, data: Sequence[Example], config: Mapping[str, Any], seed: int) -> TrainedModel:
        """Return the centre of each label's tasks; nothing in it is random.

        Args:
            data: Tasks, each with the label that took it.
            config: It has no settings.
            seed: Recorded only.

        Raises:
            InvalidInput: There are no two labels, or one has too few tasks, or a setting is given.
        """
        import torch

        counts = Counter(example.label for example in data)
        if config:
            raise InvalidInput(f"A router has no setting {next(iter(config))!r}.")
        if len(counts) < 2:  # noqa: PLR2004 - between one there is no choice
            raise InvalidInput("A router needs tasks of at least two labels.")
        rare = sorted(label for label, count in counts.items() if count < _FEWEST or not label)
        if rare:
            raise InvalidInput(f"A label needs {_FEWEST} tasks to learn from; see {rare[0]!r}.")
        labels = sorted(counts)
        vectors = torch.tensor([list(v) for v in self._embed([e.text for e in data])])
        owner = torch.tensor([labels.index(example.label) for example in data])
        centres = torch.stack([vectors[owner == i].mean(0) for i in range(len(labels))])
        return TrainedModel(
            role=self.name,
            state={"centres": torch.nn.functional.normalize(centres)},
            config={"labels": labels, "majority": counts.most_common(1)[0][0]},
            seed=seed,
            data_hash=hash_examples(data),
        )

    def rank(self, model: TrainedModel, text: str) -> list[tuple[str, float]]:
        """Return every label with its likeness to a task, the best first."""
        return self._rank(model, [text])[0]

    def evaluate(self, model: TrainedModel, held_out: Sequence[Example]) -> tuple[Metric, ...]:
        """Return the share of tasks that go to the right label, beside keywords and the majority.

        Args:
            model: It.
            held_out: Tasks that it has not seen.

        Raises:
            InvalidInput: There are none.
        """
        if not held_out:
            raise InvalidInput("A router is measured on at least one task.")
        majority = model.config["majority"]
        ranked = self._rank(model, [example.text for example in held_out])
        right = [
            float(row[0][0] == example.label) for row, example in zip(ranked, held_out, strict=True)
        ]
        simple = {"the majority": [float(e.label == majority) for e in held_out]}
        if self._keywords:
            simple["keywords"] = [
                float(self._by_keyword(e.text, majority) == e.label) for e in held_out
            ]
        low, high = mean_interval(right)
        share = sum(right) / len(right)
        return tuple(
            Metric(
                name="accuracy",
                value=share,
                low=low,
                high=high,
                baseline=sum(values) / len(values),
                peer=peer,
            )
            for peer, values in simple.items()
        )

    def _rank(self, model: TrainedModel, texts: Sequence[str]) -> list[list[tuple[str, float]]]:
        import torch

        vectors = torch.tensor([list(vector) for vector in self._embed(texts)])
        rows = (vectors @ model.state["centres"].T).tolist()
        labels = model.config["labels"]
        return [sorted(zip(labels, row, strict=True), key=lambda pair: -pair[1]) for row in rows]

    def _by_keyword(self, text: str, otherwise: str) -> str:
        words = set(re.findall(r"\w+", text.lower()))
        hits = {label: len(words & keys) for label, keys in self._keywords.items()}
        best = max(hits, key=lambda label: hits[label])
        return best if hits[best] else otherwise
