"""Measures an artefact in a process of its own, from its bytes and texts that no task had.

    async with JudgeProcess() as judge:
        report = await judge.measure(case)

Torch (385 MB) is loaded at the first case; the process ends when none came for a while. Whatever
the artefact is, it is data: safetensors are read, nothing of them is run.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import math
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Message
from angelos.core.models import ArtefactKind, ModelMetric
from angelos.ml.gates import Evidence, Measurements
from angelos.ml.intervals import mean_interval
from angelos.ml.registry.boxed import ADAPTER

_HINT = "Install it with `pip install 'angelos[ml]'` and start the system again."
_IDLE_S = 60.0


class JudgeCase(Message, frozen=True, kw_only=True):
    """An artefact, what it is measured beside, and on what."""

    kind: ArtefactKind
    artefact: bytes
    base: bytes = b""
    """Of an adapter: its base. Of a base: the one that it would replace; empty: there is none."""
    evidence: Evidence


class JudgeReport(Message, frozen=True, kw_only=True):
    """What was measured. Losses are finite, or the gates see that they are not."""

    measured: Measurements
    parameters: int
    metrics: tuple[ModelMetric, ...]


class JudgeProcess:
    """One process that measures, one case at a time."""

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._idle_s = idle_s
        self._lock = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def measure(self, case: JudgeCase) -> JudgeReport:
        """Return what an artefact measures.

        Raises:
            InvalidInput: It cannot be read, or does not fit its base.
            Unavailable: torch or peft are not installed here, or the process ended.
        """
        for package in ("torch", "peft"):
            if importlib.util.find_spec(package) is None:
                raise Unavailable(
                    f"{package}, which measures models, is not installed.", hint=_HINT
                )
        async with self._lock:
            if self._end is not None:
                self._end.cancel()
            if self._pool is None:
                spawn = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, mp_context=spawn, initializer=_be_modest)
            loop = asyncio.get_running_loop()
            try:
                body = await loop.run_in_executor(self._pool, judge, msgspec.msgpack.encode(case))
            except BrokenProcessPool as error:
                self._close()
                raise Unavailable("The process that measures models ended; ask again.") from error
            self._end = loop.call_later(self._idle_s, self._close)
        return msgspec.msgpack.decode(body, type=JudgeReport)

    def _close(self) -> None:
        if self._end is not None:
            self._end.cancel()
        pool, self._pool, self._end = self._pool, None, None
        if pool is not None:
            for process in list(getattr(pool, "_processes", {}).values()):
                with contextlib.suppress(OSError):
                    process.terminate()  # it holds nothing
            pool.shutdown(wait=False, cancel_futures=True)


def judge(body: bytes) -> bytes:
    """Return the report of a case; runs in the process that measures."""
    case = msgspec.msgpack.decode(body, type=JudgeCase)
    return msgspec.msgpack.encode(measure_case(case))


def measure_case(case: JudgeCase) -> JudgeReport:
    """Return what an artefact measures beside what it starts from.

    Raises:
        InvalidInput: It cannot be read, or does not fit its base.
    """
    from angelos.ml.measuring import compare_adapter, compare_base, compare_first
    from angelos.ml.training import loss_of, model_of

    evidence = case.evidence
    if case.kind is ArtefactKind.adapter:
        from angelos.ml.lora import AdapterHost

        host = AdapterHost(model_of(case.base))
        host.load(ADAPTER, case.artefact)
        compared, peer = compare_adapter(host, ADAPTER, evidence), "its base"
        with host.using(ADAPTER) as model:
            parameters = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    else:
        model = model_of(case.artefact)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        if case.base:
            old = model_of(case.base)
            compared = compare_base(model, lambda text: loss_of(old, text), evidence)
            peer = "the base before"
        else:
            compared, peer = compare_first(model, evidence), "character counts"
    metrics = (
        _metric("held-out loss", compared.after.heldout, compared.before.heldout, peer),
        _metric("loss on the base's text", compared.after.base, compared.before.base, peer),
        *(
            _metric(
                "loss on what must stay unlike", compared.after.unlike, compared.before.unlike, peer
            )
            for _ in evidence.unlike[:1]
        ),
    )
    return JudgeReport(measured=compared.measurements, parameters=parameters, metrics=metrics)


def _metric(name: str, after: Sequence[float], before: Sequence[float], peer: str) -> ModelMetric:
    """Return a mean over texts with its interval, beside the mean before."""
    mean, baseline = sum(after) / len(after), sum(before) / len(before)
    low, high = mean_interval(after) if math.isfinite(mean) else (math.nan, math.nan)
    return ModelMetric(
        name=name,
        value=_finite(mean),
        low=_finite(low),
        high=_finite(high),
        baseline=_finite(baseline),
        peer=peer,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _be_modest() -> None:
    """Leave the machine to others: one thread, and last in the queue for it."""
    import torch

    torch.set_num_threads(1)
    os.nice(10)
