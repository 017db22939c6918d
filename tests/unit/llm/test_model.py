"""The decoder computes what the papers say, looks only backwards and has true gradients."""

from __future__ import annotations

import math

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812

from llm.config import ConfigError, ModelConfig  # noqa: E402
from llm.model import GPTDecoder  # noqa: E402

SMALL = ModelConfig(vocab_size=11, block_size=16, n_layers=2, n_heads=2, d_model=8, init_std=0.5)


def make(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return GPTDecoder(config).eval()


def draw(config=SMALL, rows=3, length=None, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, length or config.block_size)
    return torch.randint(config.vocab_size, shape, generator=generator)


def layer_norm(x, weight):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / torch.sqrt(variance + 1e-5) * weight


def reference(weights, config, ids):
    """GPT-2 by the formulas: Vaswani et al. 2017, eq. 1, and Radford et al. 2019, section 2.3."""
    length, size = ids.size(1), config.d_model // config.n_heads
    x = weights["tokens.weight"][ids] + weights["positions.weight"][:length]
    future = torch.ones(length, length).triu(1).bool()
    for i in range(config.n_layers):
        w = {k.removeprefix(f"layers.{i}."): v for k, v in weights.items()}
        projected = layer_norm(x, w["norm1.weight"]) @ w["self_attn.in_proj.weight"].T
        heads = []
        for h in range(config.n_heads):
            q, k, v = (
                projected[..., j * config.d_model + h * size :][..., :size] for j in range(3)
            )
            scores = q @ k.transpose(1, 2) / math.sqrt(size)
            heads.append(scores.masked_fill(future, -math.inf).softmax(-1) @ v)
        x = x + torch.cat(heads, -1) @ w["self_attn.out_proj.weight"].T
        inner = layer_norm(x, w["norm2.weight"]) @ w["linear1.weight"].T
        gelu = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        x = x + gelu @ w["linear2.weight"].T
    return layer_norm(x, weights["norm.weight"]) @ weights["tokens.weight"].T


@pytest.mark.parametrize("config", [SMALL, ModelConfig(vocab_size=65)])
def test_it_equals_the_reference_in_logits_and_loss(config):
    model, ids, targets = make(config), draw(config), draw(config, seed=2)
    with torch.no_grad():
        ours, theirs = model(ids), reference(model.state_dict(), config, ids)
        chosen = theirs.log_softmax(-1).gather(2, targets[..., None])
        assert (ours - theirs).abs().max() < 1e-5
        assert abs(model(ids, targets) + chosen.mean()) < 1e-5


def test_a_later_token_changes_nothing_before_it():
    model, ids = make(), draw()
    changed = ids.clone()
    changed[:, 9:] = (ids[:, 9:] + 1) % SMALL.vocab_size
    with torch.no_grad():
        assert torch.equal(model(ids)[:, :9], model(changed)[:, :9])
        assert not torch.allclose(model(ids)[:, 9:], model(changed)[:, 9:])


def test_the_head_is_the_token_embedding():
    model = make()
    assert sum(p.numel() for p in model.parameters()) == 11 * 8 + 16 * 8 + 2 * (12 * 64 + 16) + 8
    with torch.no_grad():
        model.tokens.weight.zero_()
        assert not model(draw()).any()


@pytest.mark.parametrize("bias", [False, True])
def test_its_gradients_are_those_of_finite_differences(bias):
    config = ModelConfig(
        vocab_size=3, block_size=4, n_layers=1, n_heads=2, d_model=4, bias=bias, init_std=0.5
    )
    model = make(config).double()
    ids, names = draw(config, rows=2), [name for name, _ in model.named_parameters()]

    def loss(*weights):
        call = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(model, call, (ids, ids.flip(1)))

    assert torch.autograd.gradcheck(loss, tuple(model.parameters()), fast_mode=True)


@pytest.mark.parametrize("bias", [False, True])
def test_the_layers_load_into_torchs_encoder_and_back(bias):
    config = ModelConfig(vocab_size=11, n_layers=2, n_heads=2, d_model=8, bias=bias, init_std=0.5)
    model, other, ids = make(config), make(config, seed=5), draw(config)
    layer = nn.TransformerEncoderLayer(
        8, 2, 32, 0.0, F.gelu, batch_first=True, norm_first=True, bias=bias
    )
    norm = nn.LayerNorm(8, bias=bias)
    encoder = nn.TransformerEncoder(layer, 2, norm, enable_nested_tensor=False).eval()
    encoder.load_state_dict(model.encoder_state())
    with torch.no_grad():
        x = model.tokens(ids) + model.positions.weight
        mask = nn.Transformer.generate_square_subsequent_mask(ids.size(1))
        theirs = encoder(x, mask=mask, is_causal=True)
        assert (model(ids) - theirs @ model.tokens.weight.T).abs().max() < 1e-5
        other.tokens.load_state_dict(model.tokens.state_dict())
        other.positions.load_state_dict(model.positions.state_dict())
        other.load_encoder_state(encoder.state_dict())
        assert torch.equal(other(ids), model(ids))


def test_low_precision_stays_close():
    model, ids = make(ModelConfig(vocab_size=65)), draw(ModelConfig(vocab_size=65))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(ids, ids)
    assert abs(low - model(ids, ids)) < 0.02


def test_dropout_works_in_training_only():
    config = ModelConfig(vocab_size=11, dropout=0.5)
    model, ids = make(config), draw(config)
    assert torch.equal(model(ids), model(ids))
    model.train()
    assert not torch.equal(model(ids), model(ids))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"ids 0\.\.17 overrun the block"):
        make()(draw(length=17))
    with pytest.raises(ConfigError, match="vocab_size must be above 0"):
        GPTDecoder(ModelConfig())
    with pytest.raises(ConfigError, match="d_model a multiple of n_heads"):
        GPTDecoder(ModelConfig(vocab_size=3, d_model=10, n_heads=4))
