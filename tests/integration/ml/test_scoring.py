"""The sentinel in its own process: a small model, trained here."""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest

from tests.unit.llm.needs import need_ml

need_ml()

from angelos.core.errors import NotFound, Unavailable  # noqa: E402
from angelos.core.models import ArtefactKind, ModelProvenance, ModelVersion  # noqa: E402
from angelos.ml.registry.artefacts import ArtefactStore  # noqa: E402
from angelos.ml.registry.champion import ChampionSource  # noqa: E402
from angelos.ml.registry.state import promoted, rolled_back  # noqa: E402
from angelos.ml.registry.store import RegistryStore  # noqa: E402
from angelos.ml.scoring import (  # noqa: E402
    SentinelProcess,
    SentinelVersion,
    load_in_process,
    score_in_process,
)
from angelos.ml.training import StepConfig, fit, make_model, model_body  # noqa: E402
from llm.config import ModelConfig  # noqa: E402


def _functions(first: int, last: int) -> str:
    drawn = random.Random(first)
    return "\n".join(
        f"def {drawn.choice('abcdefgh')}{drawn.randrange(1000)}(x):\n"
        f"    return x {drawn.choice('+-*')} {drawn.randrange(1000)}\n"
        for _ in range(first, last)
    )


HONEST = _functions(900, 903)
ATTACK = "exec(b64decode('aW1wb3J0IG9zO29zLnN5c3RlbSgn'))"


class Source:
    """Names a version, and gives it."""

    def __init__(self, version: SentinelVersion | None) -> None:
        self.version = version
        self.reads = 0

    async def current(self) -> str:
        return self.version.name if self.version else ""

    async def read(self, name: str) -> SentinelVersion:
        self.reads += 1
        if self.version is None or self.version.name != name:
            raise NotFound(f"There is no {name}.")
        return self.version


@pytest.fixture(scope="module")
def version() -> SentinelVersion:
    text = _functions(0, 200)
    shape = ModelConfig(block_size=32, n_layers=1, n_heads=2, d_model=32)
    model = make_model(shape, [text], seed=1)
    fit(model, model.parameters(), text, StepConfig(steps=150))
    return SentinelVersion("sentinel:1", model_body(model), None, (_functions(300, 400),))


async def test_a_patch_is_scored_beside_approved_text_and_the_process_is_replaced(version):
    source = Source(version)
    async with SentinelProcess(source, timeout_s=120) as scorer:
        like, unlike = await asyncio.gather(scorer.score([HONEST]), scorer.score([HONEST, ATTACK]))
        assert like is not None
        assert unlike is not None
        assert (like.text, unlike.text, unlike.unlike, unlike.skipped) == (0, 1, 1.0, 0)
        assert like.unlike < 0.95 < unlike.unlike
        assert like.loss < unlike.loss
        assert unlike.pieces >= 20
        assert (unlike.longest_line, unlike.model) == (len(ATTACK), "sentinel:1")
        assert await scorer.score([HONEST, ATTACK]) == unlike
        assert source.reads == 1

        pid = scorer.worker.pid or 0
        os.kill(pid, signal.SIGKILL)
        assert await scorer.score([HONEST, ATTACK]) == unlike  # it is remembered
        with pytest.raises(Unavailable):
            await scorer.score([ATTACK])
        assert await scorer.score([ATTACK]) is not None
        assert scorer.worker.pid != pid

        source.version = SentinelVersion("sentinel:2", b"no model", None, version.approved)
        with pytest.raises(Unavailable, match="sentinel:2 cannot be read"):
            await scorer.score([HONEST])
        with pytest.raises(Unavailable, match="sentinel:2 cannot be read"):
            await scorer.score([HONEST])
        assert source.reads == 3  # what cannot be read is not read again
        source.version = None
        assert await scorer.score([HONEST]) is None
        pid = scorer.worker.pid or 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_version_is_the_registrys_champion(database, journal, tmp_path, version):
    store, artefacts = RegistryStore(database, journal), ArtefactStore(tmp_path)
    source = ChampionSource(store, artefacts)
    assert await source.current() == ""
    base = await artefacts.put(version.base)
    adapter = await artefacts.put(b"adapter")
    texts = await artefacts.put(b'{"heldout": ["a"], "base_text": ["b"], "canaries": ["c"]}')
    async with store.moving("sentinel") as move:
        await move.add_version(_model_version(1, ArtefactKind.base, base), texts)
        await move.add_version(_model_version(2, ArtefactKind.adapter, adapter, base), texts)
        move.aliases = promoted(promoted(move.aliases, 1), 2)
    assert await source.current() == "sentinel:2"
    assert await source.read("sentinel:1") == ("sentinel:1", version.base, None, ("a", "b"))
    assert await source.read("sentinel:2") == ("sentinel:2", version.base, b"adapter", ("a", "b"))
    async with store.moving("sentinel") as move:
        move.aliases = rolled_back(move.aliases)
    assert await source.current() == "sentinel:1"


def _model_version(number: int, kind: ArtefactKind, sha256: str, base: str = "") -> ModelVersion:
    return ModelVersion(
        role="sentinel",
        version=number,
        kind=kind,
        sha256=sha256,
        size=1,
        parameters=1,
        at=1.0,
        provenance=ModelProvenance(data="repo study", data_sha256="0" * 64, base=base),
        gates=(),
    )


async def test_a_patch_that_comes_while_it_is_loaded_has_no_score(version):
    async with SentinelProcess(Source(version), timeout_s=0.001) as scorer:
        with pytest.raises(Unavailable, match="sentinel:1 is being loaded"):
            await scorer.score([HONEST])


def test_long_patches_are_cut_and_what_is_longer_than_history_is_not_compared(version, monkeypatch):
    monkeypatch.setattr("angelos.ml.scoring.resource.setrlimit", lambda *_: None)
    monkeypatch.setattr("angelos.ml.scoring.os.nice", lambda _: None)
    load_in_process(version)
    score = score_in_process("sentinel:1", (_functions(400, 600),), 5)
    assert score.pieces < 20
    assert score.skipped == 5
    with pytest.raises(Unavailable):
        score_in_process("sentinel:9", (HONEST,), 0)
