"""Settings are checked where they are written, and a run can be repeated from its file."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm.config import ConfigError, ModelConfig, RunConfig, TrainingConfig, from_dict

text = st.text(st.characters(exclude_categories=["Cs"]))


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
    assert RunConfig.from_toml(run.to_toml()) == run


def test_a_file_may_leave_out_what_it_does_not_change():
    run = RunConfig.from_toml('corpus = "a.txt"\n[training]\nlearning_rate = 1\n')
    assert run.training.learning_rate == 1.0
    assert run.model == ModelConfig()


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("", "corpus"),
        ("corpus = 3", "of type str"),
        ('corpus = "a"\ncolour = 1', "unknown RunConfig key 'colour'; known: corpus"),
        ('corpus = "a"\n[model]\nn_head = 4', "unknown ModelConfig key 'n_head'"),
        ('corpus = "a"\nmodel = 4', "of type ModelConfig"),
        ('corpus = "a"\nunknown = "guess"', "one of"),
        ('corpus = "a"\n[training]\nmax_steps = 0', "at least 1"),
        ('corpus = "a"\n[training]\nmax_steps = true', "of type int"),
        ('corpus = "a"\n[training]\nlearning_rate = nan', "at least"),
        ('corpus = "a"\n[training]\nschedule = "steep"', "'linear', 'cosine'"),
        ('corpus = "a"\n[training]\npatience = 3\nvalidation_interval = 0', "validation_interval"),
        ("corpus =", "Invalid value"),
    ],
)
def test_a_bad_file_is_refused_in_words(toml, words):
    with pytest.raises(ValueError, match=words):
        RunConfig.from_toml(toml)


@pytest.mark.parametrize(
    "wrong",
    [
        {"block_size": 0},
        {"dropout": 1.0},
        {"d_model": 10, "n_heads": 4},
        {"init_std": 0},
        {"vocab_size": -1},
        {"n_layers": 2.0},
    ],
)
def test_a_shape_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        from_dict(ModelConfig, wrong)


def test_settings_do_not_change_under_a_run():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ModelConfig().block_size = 3  # type: ignore[misc]
