"""What measures models is bounded: nothing that a box leaves holds up or ends the server."""

from __future__ import annotations

import json
import os

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.models import ArtefactKind
from angelos.ml.gates import Evidence
from angelos.ml.registry import judging
from angelos.ml.registry.judging import JudgeCase, JudgeProcess

pytest.importorskip("torch")
pytest.importorskip("peft")

CASE = JudgeCase(
    kind=ArtefactKind.base, artefact=b"", evidence=Evidence(heldout=("a",), base_text=("a",))
)


def end(_):
    os._exit(9)


async def test_a_case_that_ends_what_measures_it_is_refused_and_not_asked_for_ever(monkeypatch):
    monkeypatch.setattr(judging, "judge", end)
    async with JudgeProcess() as judge:
        with pytest.raises(InvalidInput, match="What measures it ended"):
            await judge.measure(CASE)


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_layers", 10**9), ("d_model", 10**6), ("block_size", 10**9), ("vocab_size", 10**9)],
)
def test_a_model_that_its_file_cannot_hold_is_not_made(name, value):
    from angelos.ml.training import make_model, model_body, model_of
    from llm.config import ModelConfig

    shape = ModelConfig(d_model=16, n_layers=1, n_heads=4, block_size=16)
    body = model_body(make_model(shape, ["text"], 1))
    assert model_of(body).config.d_model == 16
    size = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + size])
    checkpoint = json.loads(header["__metadata__"]["checkpoint"])
    checkpoint["model_config"][name] = value
    header["__metadata__"]["checkpoint"] = json.dumps(checkpoint)
    changed = json.dumps(header).encode()
    with pytest.raises(InvalidInput, match="larger than what holds it"):
        model_of(len(changed).to_bytes(8, "little") + changed + body[8 + size :])
