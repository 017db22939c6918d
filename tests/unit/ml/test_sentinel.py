"""The sentinel: a model of approved texts, its measures, its card. Small models, real training."""

from __future__ import annotations

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402
from torch.nn import functional  # noqa: E402

from angelos.core.errors import InvalidInput  # noqa: E402
from angelos.ml.language import character_losses, to_decoder  # noqa: E402
from angelos.ml.roles.base import Example, TrainedModel, hash_examples, make_card  # noqa: E402
from angelos.ml.roles.sentinel import PatchSentinel, score_texts  # noqa: E402

SMALL = {"block_size": 16, "n_layers": 1, "n_heads": 2, "d_model": 16, "max_steps": 40}
APPROVED = [Example(text=f"def f{i}(x):\n    return x + {i}") for i in range(20)]
HONEST = [Example(text=f"def g{i}(x):\n    return x + {i}") for i in range(20, 30)]
ATTACKS = [Example(text="QWzJk%9!" * (i + 1), label="noise") for i in range(10)]


@pytest.fixture(scope="module")
def model() -> TrainedModel:
    return PatchSentinel().train(APPROVED, SMALL, seed=1)


def test_what_is_unlike_history_scores_higher(model: TrainedModel):
    metrics = PatchSentinel().evaluate(model, [*HONEST, *ATTACKS])

    assert {metric.peer for metric in metrics} == {"entropy", "zlib ratio", "longest line"}
    assert all(metric.name == "auc, noise" for metric in metrics)
    assert metrics[0].value > 0.95
    assert metrics[0].low <= metrics[0].value <= metrics[0].high


def test_the_same_seed_gives_the_same_model(model: TrainedModel):
    again, other = (PatchSentinel().train(APPROVED, SMALL, seed=seed) for seed in (1, 2))

    assert model.hash == again.hash != other.hash
    assert model.data_hash == hash_examples(APPROVED) != hash_examples(HONEST)


def test_the_loss_of_a_text_is_that_of_each_character_counted_once(model: TrainedModel):
    decoder, text = to_decoder(model), "def f1(x):\n    return x + 1  # and on and on"
    ids = torch.tensor(decoder.tokenizer.encode("\n" + text))
    losses = []
    for at in range(1, len(ids)):
        start = 0 if at <= 16 else (at - 9) // 8 * 8  # windows of 16 move by 8
        logits = decoder(ids[None, start:at])[0, -1].detach()
        losses.append(float(functional.cross_entropy(logits, ids[at])))

    assert character_losses(decoder, [text]) == [pytest.approx(losses, abs=1e-4)]
    worst = max(sum(losses[i : i + 40]) / 40 for i in range(len(losses) - 39))
    assert score_texts(decoder, [text])[0] == pytest.approx(worst, abs=1e-4)


def test_a_texts_loss_does_not_depend_on_its_neighbours(model: TrainedModel):
    decoder, texts = to_decoder(model), ["x", "def f(x):" * 30, "", "\u00e9\u4e2d"]
    alone = [score_texts(decoder, [text])[0] for text in texts]

    assert score_texts(decoder, texts) == pytest.approx(alone, abs=1e-5)
    assert alone[2] == 0


def test_the_card_says_what_it_is_bad_at(model: TrainedModel):
    metrics = PatchSentinel().evaluate(model, [*HONEST, *ATTACKS])
    page = make_card(PatchSentinel(), model, "twenty functions", metrics).to_markdown()

    assert "readable malicious line" in page
    assert "auc, noise" in page
    assert model.hash[:16] in page


def test_what_cannot_work_is_refused(model: TrainedModel):
    with pytest.raises(InvalidInput, match="empty"):
        PatchSentinel().train([], SMALL, seed=1)
    with pytest.raises(InvalidInput, match="spam"):
        PatchSentinel().train(APPROVED, {"spam": 1}, seed=1)
    with pytest.raises(InvalidInput, match="honest"):
        PatchSentinel().evaluate(model, HONEST)
