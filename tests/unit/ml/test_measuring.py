"""Real adapters before the gates: a good one passes, a regressing and a repeating one do not."""

from __future__ import annotations

import copy
import random

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

from angelos.ml.gates import (  # noqa: E402
    CANARIES,
    CANARY_LETTERS,
    Evidence,
    Gate,
    GateConfig,
    check_model,
    new_canary,
    plant,
    stopped_by,
)
from angelos.ml.lora import AdapterConfig, AdapterHost, add_adapter, save_adapter  # noqa: E402
from angelos.ml.measuring import compare_adapter  # noqa: E402
from angelos.ml.training import StepConfig, fit, make_model  # noqa: E402
from llm.config import ModelConfig  # noqa: E402

SHAPE = ModelConfig(d_model=32, n_layers=2, n_heads=2, block_size=32)
WORDS = "the cat sat on a mat and saw rain fall over old grey stone walls".split()  # noqa: SIM905


def sentences(seed: int, count: int, end: str) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=9)) + end for _ in range(count)]


BASE, NEW = sentences(1, 600, ".\n"), sentences(3, 600, " !?\n")
BASE_HELD_OUT = ["".join(sentences(seed, 12, ".\n")) for seed in range(10, 14)]
NEW_HELD_OUT = ["".join(sentences(seed, 12, " !?\n")) for seed in range(20, 24)]


@pytest.fixture(scope="module")
def base():
    model = make_model(SHAPE, BASE, seed=1)
    fit(model, model.parameters(), "".join(BASE), StepConfig(steps=200, rate=6e-3))
    return model


def judged(base, train: list[str], steps: StepConfig, copies: int = 1) -> tuple[Gate, ...]:
    drawn = random.Random(7)
    length = len(new_canary())
    canaries = ["".join(drawn.choices(CANARY_LETTERS, k=length)) for _ in range(CANARIES)]
    text = plant(train, canaries * copies)
    model = copy.deepcopy(base)
    fit(model, add_adapter(model, "a", AdapterConfig()), text, steps)
    body = save_adapter(model, "a", AdapterConfig())
    host = AdapterHost(copy.deepcopy(base))
    host.load("a", body)
    evidence = Evidence(
        heldout=tuple(NEW_HELD_OUT), base_text=tuple(BASE_HELD_OUT), canaries=tuple(canaries)
    )
    got = compare_adapter(host, "a", evidence).measurements
    return stopped_by(check_model(len(body), got, GateConfig()))


def test_a_good_adapter_passes_every_gate(base):
    assert judged(base, NEW, StepConfig(steps=60, rate=5e-3)) == ()


def test_a_regressing_data_set_is_stopped_by_regression_and_forgetting(base):
    drawn = random.Random(5)
    noise = ["".join(drawn.choices("qxzkvj#%&", k=40)) + "\n" for _ in range(300)]
    gates = judged(base, noise, StepConfig(steps=80, rate=2e-2))
    assert {Gate.regression, Gate.forgetting, Gate.heldout} <= {*gates}


def test_an_adapter_that_repeats_its_data_is_stopped_by_memorisation(base):
    gates = judged(base, NEW[:10], StepConfig(steps=150, rate=1e-2), copies=4)
    assert Gate.memorisation in gates
