"""Settings are checked where they are written, and a run can be repeated from its file."""

from __future__ import annotations

import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.llm.needs import need_ml

need_ml()

from llm.config import ConfigError, ModelConfig, RunConfig, Sampling, TrainingConfig  # noqa: E402

text = st.text(st.characters(exclude_categories=["Cs"]))


def from_toml(toml):
    return RunConfig.from_dict(tomllib.loads(toml))


@settings(deadline=None)
@given(
    corpus=text,
    checkpoint=text,
    rate=st.floats(1e-6, 1.0),
    steps=st.integers(1, 10**6),
    schedule=st.sampled_from(["linear", "cosine"]),
    bias=st.booleans(),
)
def test_a_run_comes_back_from_its_own_toml(corpus, checkpoint, rate, steps, schedule, bias):
    training = TrainingConfig(learning_rate=rate, max_steps=steps, schedule=schedule)
    run = RunConfig(
        corpus=corpus, checkpoint=checkpoint, model=ModelConfig(bias=bias), training=training
    )
    assert from_toml(run.to_toml()) == run


def test_a_file_may_leave_out_what_it_does_not_change():
    run = from_toml('corpus = "a.txt"\n[training]\nlearning_rate = 1\n')
    assert run.training.learning_rate == 1.0
    assert run.model == ModelConfig()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", "corpus"),
        ("corpus = 3", "corpus = 3: Expected `str`, got `int`"),
        ('corpus = "a"\ncolour = 1', "RunConfig got an unexpected .* 'colour'; known: corpus"),
        ('corpus = "a"\n[model]\nn_head = 4', "ModelConfig got an unexpected .* 'n_head'"),
        ('corpus = "a"\nmodel = 4', "model = 4: Expected `object`, got `int`"),
        ('corpus = "a"\nunknown = "guess"', "Literal.'error', 'skip', 'replace'"),
        ('corpus = "a"\n[training]\nmax_steps = 0', "max_steps = 0: Expected `int` >= 1"),
        ('corpus = "a"\n[training]\nmax_steps = true', "Expected `int`, got `bool`"),
        ('corpus = "a"\n[training]\nmax_steps = "ten"', "max_steps = 'ten': Expected `int`"),
        ('corpus = "a"\n[training]\nlearning_rate = nan', "learning_rate = nan"),
        ('corpus = "a"\n[training]\nlearning_rate = inf', "learning_rate = inf"),
        ('corpus = "a"\n[training]\nschedule = "steep"', "'linear', 'cosine'"),
        ('corpus = "a"\n[training]\ndevice = "abacus"', "'auto', 'cpu', 'cuda', 'mps'"),
        ("corpus =", "Invalid value"),
    ],
)
def test_a_bad_file_is_refused_in_words(toml, words):
    with pytest.raises(ValueError, match=words):
        from_toml(toml)


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_size": 0},
        {"dropout": 1.0},
        {"init_std": 0},
        {"vocab_size": -1},
        {"n_layers": 2.0},
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ModelConfig.from_dict(wrong)


def test_numbers_may_come_as_words_as_they_do_from_a_shell():
    assert Sampling(temperature="0.5", top_k="3", stop="3") == Sampling(  # type: ignore[arg-type]
        temperature=0.5, top_k=3, stop="3"
    )


def test_settings_do_not_change_under_a_run():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().block_size = 3  # type: ignore[misc]
