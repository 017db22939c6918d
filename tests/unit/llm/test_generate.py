"""Generation: the filter is pure, the cache changes no token, the window slides past the block."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402
from torch import nn  # noqa: E402

from llm.config import ModelConfig, Sampling  # noqa: E402
from llm.data import CharacterTokenizer  # noqa: E402
from llm.generate import narrow  # noqa: E402
from llm.model import GPTDecoder  # noqa: E402

LETTERS = CharacterTokenizer(["abcdefghijk"])
SHAPE = ModelConfig(vocab_size=11, block_size=16, n_layers=2, n_heads=2, d_model=8, init_std=0.5)
START = torch.tensor([[1, 2, 3], [4, 5, 6]])


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = GPTDecoder(SHAPE).eval()
    made.tokenizer = LETTERS
    return made


def uncached(model, ids, count):
    """Greedy decoding that recomputes everything for each token."""
    for _ in range(count):
        ids = torch.cat([ids, model(ids[:, -16:])[:, -1].argmax(-1, keepdim=True)], dim=1)
    return ids


@settings(deadline=None)
@given(
    st.lists(st.integers(-80, 80), min_size=2, max_size=12, unique=True),
    st.integers(1, 14),
    st.floats(0.01, 1.0),
    st.floats(0.1, 3.0),
)
def test_the_filter_keeps_the_largest(values, top_k, top_p, temperature):
    logits = torch.tensor([values]) / 4  # far enough apart to stay apart when scaled
    cut = narrow(logits, Sampling(temperature=temperature, top_k=top_k))
    assert (cut > -inf).sum() == min(top_k, len(values))
    nucleus = narrow(logits, Sampling(temperature=temperature, top_p=top_p))[0]
    probabilities = (logits[0] / temperature).softmax(-1)
    kept = probabilities[nucleus > -inf]
    assert kept.sum() >= min(top_p, 0.9999) - 1e-5
    assert kept.sum() - kept.min() < top_p + 1e-5  # not one more than needed
    assert nucleus.argmax() == logits[0].argmax()


def test_cached_and_uncached_logits_agree(model):
    ids = torch.randint(11, (4, 16), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        whole, past = model(ids), torch.zeros(2, 2, 4, 2, 16, 4)
        pieces = [model(ids[:, :5], past=past[..., :5, :])]
        pieces += [model(ids[:, i : i + 1], past=past[..., : i + 1, :]) for i in range(5, 16)]
    assert (torch.cat(pieces, 1) - whole).abs().max() < 1e-5


@pytest.mark.parametrize("count", [0, 1, 13, 40])
def test_greedy_tokens_are_those_without_a_cache(model, count):
    """13 fill the block; 40 slide well past it."""
    with torch.no_grad():
        expected = uncached(model, START, count)
    found = model.generate(START, count, temperature=0.0)
    assert torch.equal(found, expected)
    assert found.dtype == torch.int64


def test_a_prompt_longer_than_the_block_is_read_by_its_end(model):
    prompt = torch.arange(40)[None] % 11
    found = model.generate(prompt, 5, temperature=0.0)
    assert torch.equal(found[:, 40:], model.generate(prompt[:, -16:], 5, temperature=0.0)[:, 16:])


def test_a_seed_repeats_a_text_and_another_does_not(model):
    first, again, other = (model.generate(START, 30, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_candidate_is_greedy_at_any_temperature(model):
    greedy = model.generate(START, 20, temperature=0.0)
    assert torch.equal(model.generate(START, 20, 5.0, top_k=1), greedy)
    assert torch.equal(model.generate(START, 20, 5.0, top_p=1e-9), greedy)


def test_a_stream_gives_the_same_tokens_one_by_one(model):
    streamed = torch.stack(list(model.stream(START, 10, seed=7)), dim=1)
    assert torch.equal(streamed, model.generate(START, 10, seed=7)[:, 3:])


def test_it_stops_after_the_stop_string(model):
    greedy = LETTERS.decode(uncached(model, START[:1], 13)[0].tolist())
    stop = greedy[7:9]
    found = LETTERS.decode(model.generate(START[:1], 13, 0.0, stop=stop)[0].tolist())
    assert found == greedy[: greedy.index(stop, 3) + 2]


def test_a_row_that_has_ended_waits_for_the_others(model):
    whole = model.generate(START, 13, temperature=0.0)
    stop = LETTERS.decode(whole[0, 5:7].tolist())
    found = model.generate(START, 13, 0.0, stop=stop)
    text = LETTERS.decode(found[0].tolist())
    assert text == text[: text.index(stop, 3) + 2].ljust(len(text), stop[-1])
    other = LETTERS.decode(found[1].tolist())
    assert len(other) == 16 or other.endswith(stop) or stop in other


def test_a_stop_string_in_the_prompt_does_not_count(model):
    assert model.generate(START, 4, 0.0, stop="d").size(1) > 3


def test_the_model_goes_back_to_training_and_its_tokens_may_be_trained_on(model):
    model.train()
    stream = model.stream(START, 5)
    next(stream)
    stream.close()
    assert model.training
    ids = model.generate(START, 8)
    model(ids[:, :-1], ids[:, 1:]).backward()
    assert model.tokens.weight.grad is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": inf}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"stop": "?"}, "'\\?'"),
    ],
)
def test_bad_options_are_refused_in_words(model, options, words):
    with pytest.raises(ValueError, match=words):
        model.generate(START, 2, **options)


@pytest.mark.parametrize(("ids", "count"), [([[]], 1), ([[11]], 1), ([[-1]], 1), ([[0]], -1)])
def test_bad_ids_are_refused_in_words(model, ids, count):
    with pytest.raises(ValueError, match="at least one id"):
        model.generate(torch.tensor(ids, dtype=torch.long), count)


def test_a_stop_string_needs_a_tokenizer(model):
    model.tokenizer = None
    with pytest.raises(ValueError, match=r"model\.tokenizer"):
        model.generate(START, 2, stop="a")


class Loud(nn.Linear):
    """A linear layer of somebody's own, as LoRA's are."""

    def forward(self, x):
        return super().forward(x) * 3


def hook(layer):
    layer.linear1.register_forward_hook(lambda _m, _x, y: y * 3)


def prepare(layer):
    layer.linear1.register_forward_pre_hook(lambda _m, x: (x[0] * 3,))


def parametrize(layer):
    torch.nn.utils.parametrizations.weight_norm(layer.linear1)
    layer.linear1.parametrizations.weight.original0.data *= 3


def subclass(layer):
    loud = Loud(8, 32, bias=False)
    loud.load_state_dict(layer.linear1.state_dict())
    layer.linear1 = loud


def override(layer):
    plain = layer.linear1.forward
    layer.linear1.forward = lambda x: plain(x) * 3


@pytest.mark.parametrize("change", [hook, prepare, parametrize, subclass, override])
def test_what_others_put_into_a_layer_counts_in_generation_too(model, change):
    """Decoding goes round the overhead of plain modules, and of plain ones only."""
    before = model.generate(START, 12, temperature=0.0)
    change(model.layers[1])
    with torch.no_grad():
        expected = uncached(model, START, 12)
    assert torch.equal(model.generate(START, 12, temperature=0.0), expected)
    assert not torch.equal(expected, before)


def test_a_hook_on_every_module_counts_too(model):
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, _x, _y: calls.append(m))
    try:
        model.generate(START, 1)
    finally:
        handle.remove()
    assert {type(m).__name__ for m in calls} >= {"Block", "Linear", "LayerNorm", "Dropout"}
