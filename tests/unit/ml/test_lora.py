"""Adapters: they have an effect, they merge to what they were, and they beat starting anew."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

import torch  # noqa: E402

from angelos.core.errors import Conflict, InvalidInput, NotFound  # noqa: E402
from angelos.ml.lora import (  # noqa: E402
    AdapterConfig,
    AdapterHost,
    activate,
    add_adapter,
    base_hash,
    read_adapter,
    save_adapter,
)
from angelos.ml.training import StepConfig, fit, loss_of, make_model, model_body, model_of  # noqa: E402
from llm.config import ModelConfig  # noqa: E402

SHAPE = ModelConfig(d_model=32, n_layers=2, n_heads=2, block_size=32)
ROOT = Path(__file__).resolve().parents[3]
PROSE = (ROOT / "README.md").read_text(encoding="utf-8")
CODE = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "llm").glob("*.py")))


@pytest.fixture(scope="module")
def base():
    model = make_model(SHAPE, [PROSE, CODE], seed=1)
    fit(model, model.parameters(), PROSE, StepConfig(steps=250, batch=16, rate=6e-3))
    return model.eval()


def adapted(base, seed: int = 2, config: AdapterConfig | None = None) -> bytes:
    config = config or AdapterConfig()
    model = copy.deepcopy(base)
    own = add_adapter(model, "a", config)
    fit(model, own, CODE, StepConfig(steps=20, rate=1e-2, seed=seed))
    return save_adapter(model, "a", config)


@pytest.fixture(scope="module")
def body(base) -> bytes:
    return adapted(base)


@pytest.fixture
def host(base, body) -> AdapterHost:
    host = AdapterHost(copy.deepcopy(base))
    host.load("code", body)
    return host


@pytest.fixture(scope="module")
def ids(base) -> torch.Tensor:
    return torch.tensor([base.tokenizer.encode(CODE[:32])])


def logits(host: AdapterHost, name: str | None, ids):
    with host.using(name) as model, torch.no_grad():
        return model(ids)


def test_a_fresh_adapter_changes_nothing(base, ids):
    model = copy.deepcopy(base)
    add_adapter(model, "a", AdapterConfig())
    assert torch.equal(model.eval()(ids), base(ids))


def test_every_parameter_of_an_adapter_gets_a_gradient_and_no_weight_of_the_base_does(base, ids):
    model = copy.deepcopy(base)
    own = add_adapter(model, "a", AdapterConfig())
    with torch.no_grad():
        for parameter in own:
            parameter.add_(0.1)
    model(ids, ids).backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in own)
    assert [p for p in model.parameters() if p.grad is not None] == own


@pytest.mark.parametrize("bias", [True, False])
def test_an_adapter_has_an_effect_in_evaluation_mode(bias, ids):
    model = make_model(ModelConfig(**{**vars(SHAPE), "bias": bias}), [PROSE, CODE], seed=3).eval()
    before = model(ids)
    for parameter in add_adapter(model, "a", AdapterConfig()):
        parameter.data.add_(0.1)
    model.eval()
    assert (model(ids) - before).abs().max() > 0.1
    activate(model, None)
    assert torch.equal(model(ids), before)


def test_merged_and_unmerged_agree_and_the_base_comes_back(host, base, ids):
    with torch.no_grad():
        with_adapter = logits(host, "code", ids)
        assert (host.merged("code")(ids) - with_adapter).abs().max() < 1e-5
        with host.merging("code") as model:
            assert (model(ids) - with_adapter).abs().max() < 1e-5
        assert torch.equal(logits(host, "code", ids), with_adapter)
        assert torch.equal(logits(host, None, ids), base(ids))
    assert base_hash(host.merged("code")) != host.base


def test_each_request_names_its_adapter(host, base, ids):
    host.load("other", adapted(base, seed=9))
    answers = {name: logits(host, name, ids) for name in ("code", "other", None)}
    for name in ("other", None, "code", "other", "code", None):
        assert torch.equal(logits(host, name, ids), answers[name])
    assert (answers["code"] - answers["other"]).abs().max() > 1e-3
    host.unload("other")
    assert host.names() == ["code"]
    assert torch.equal(logits(host, "code", ids), answers["code"])


def test_a_small_adapter_beats_training_from_scratch_for_as_many_steps(base):
    big = ModelConfig(d_model=128, n_layers=4, n_heads=4)
    model = make_model(big, [PROSE], seed=1)
    add_adapter(model, "a", AdapterConfig())
    assert len(save_adapter(model, "a", AdapterConfig())) <= 300_000
    scratch = make_model(SHAPE, [PROSE, CODE], seed=4)
    fit(scratch, scratch.parameters(), CODE, StepConfig(steps=30, rate=6e-3))
    ours = copy.deepcopy(base)
    fit(ours, add_adapter(ours, "a", AdapterConfig()), CODE, StepConfig(steps=30, rate=2e-2))
    assert loss_of(ours, CODE) < loss_of(scratch, CODE)
    assert loss_of(ours, CODE) < loss_of(base, CODE)
    activate(ours, None)
    assert loss_of(ours, PROSE) == loss_of(base, PROSE)


def test_training_twice_gives_the_same_bytes(base, body):
    assert adapted(base) == body


def test_a_base_goes_to_bytes_and_back(base, ids):
    copy_of_base = model_of(model_body(base))
    assert base_hash(copy_of_base) == base_hash(base)
    assert torch.equal(copy_of_base(ids), base(ids))


def test_what_does_not_fit_is_refused_and_leaves_nothing(base, body):
    other = AdapterHost(make_model(SHAPE, [PROSE, CODE], seed=8))
    with pytest.raises(InvalidInput, match="another base"):
        other.load("code", body)
    host = AdapterHost(copy.deepcopy(base))
    for strange in (b"", b"\x80\x04.", body[:-5], body[:100], b"\xff" * 64):
        with pytest.raises(InvalidInput):
            host.load("code", strange)
        assert host.names() == []
    host.load("code", body)
    with pytest.raises(Conflict):
        host.load("code", body)
    with pytest.raises(NotFound), host.using("nobody"):
        pass


def test_numbers_that_are_not_finite_are_refused(base):
    model = copy.deepcopy(base)
    add_adapter(model, "a", AdapterConfig())[0].data.fill_(float("nan"))
    with pytest.raises(InvalidInput, match="finite"):
        read_adapter(save_adapter(model, "a", AdapterConfig()))
