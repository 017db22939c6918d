"""Measures an artefact in a process of its own, from its bytes and texts that no task had.

    async with JudgeProcess() as judge:
        report = await judge.measure(case)

Torch (385 MB) is loaded at the first case; the process ends when none came for a while. Whatever
the artefact is, it is data: safetensors are read, nothing of them is run.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import math
import os
import resource
from collections.abc import Sequence
from typing import Self

import msgspec

from angelos.adapters.host.worker import WorkerProcess
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.messages import Message
from angelos.core.models import ArtefactKind, ModelMetric
from angelos.ml.gates import Evidence, Measurements
from angelos.ml.intervals import mean_interval
from angelos.ml.registry.boxed import ADAPTER

_HINT = "Install it with `pip install 'angelos[ml]'` and start the system again."
_IDLE_S, _TIMEOUT_S = 60.0, 600.0
_TRIES = 2
_MEMORY = 3 << 30
_NICE = 10
log = logging.getLogger(__name__)


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
    """One process that measures, one case at a time, within bounds of time and memory."""

    def __init__(self, idle_s: float = _IDLE_S, timeout_s: float = _TIMEOUT_S) -> None:
        self._worker = WorkerProcess("what measures models")
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._lock = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._close()

    async def measure(self, case: JudgeCase) -> JudgeReport:
        """Return what an artefact measures.

        Raises:
            InvalidInput: It cannot be read, does not fit its base, or ends what measures it.
            Unavailable: torch or peft are not installed here.
        """
        for package in ("torch", "peft"):
            if importlib.util.find_spec(package) is None:
                raise Unavailable(
                    f"{package}, which measures models, is not installed.", hint=_HINT
                )
        async with self._lock:
            if self._end is not None:
                self._end.cancel()
            try:
                body = await self._judged(msgspec.msgpack.encode(case))
            finally:
                loop = asyncio.get_running_loop()
                self._end = loop.call_later(self._idle_s, self._worker.close)
        return msgspec.msgpack.decode(body, type=JudgeReport)

    async def _judged(self, case: bytes) -> bytes:
        for _ in range(_TRIES):  # the machine may have been at fault once
            try:
                return await self._worker.call(judge, case, timeout_s=self._timeout_s)
            except Unavailable as error:
                log.warning("A model could not be measured: %s", error)
        raise InvalidInput(
            f"What measures it ended, or took over {self._timeout_s:g} s, {_TRIES} times."
        )

    def _close(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._worker.close()


def judge(body: bytes) -> bytes:
    """Return the report of a case; runs in the process that measures."""
    _be_modest()
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
    """Leave the machine to others: one thread, last in the queue for it, bounded memory."""
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    import torch

    torch.set_num_threads(1)
    os.nice(max(0, _NICE - os.nice(0)))
