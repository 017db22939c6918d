"""The canary: on the labs node the challenger answers beside the champion, on the same inputs.

Inputs are the newest patches of the system, what a role is asked of, and text that judged the
version where there are too few. Answers are compared, and none is used. `ModelRegistry.tried`
decides by the counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from angelos.core.errors import AngelError, NotFound, Unavailable
from angelos.core.ids import TaskId
from angelos.core.messages import Status
from angelos.core.models import (
    ApprovePromotion,
    ArtefactKind,
    ModelAliases,
    ModelVersion,
    PromotionView,
    ShadowReport,
)
from angelos.core.permissions import Principal
from angelos.ml.gates import Evidence
from angelos.ml.registry.boxed import ANSWERS, ARTEFACT, BASE, PLAN, AnswerPlan, Answers
from angelos.ml.registry.ports import ApprovedHistory, BoxedEnd, BoxedProgram, BoxedTasks
from angelos.ml.registry.programs import ARGV, program_files
from angelos.ml.registry.service import ModelRegistry

log = logging.getLogger(__name__)
MAX_INPUTS = 64
_FEWEST = 16
_CHARACTERS = 4_000
_WAIT_S = 30.0
_RETRY_S = 5.0
_ANSWER_BYTES = 100_000


class CanaryTrial:
    """Starts canaries and sees them to their end."""

    def __init__(
        self, registry: ModelRegistry, tasks: BoxedTasks, history: ApprovedHistory
    ) -> None:
        self._registry = registry
        self._tasks = tasks
        self._history = history
        self._group: asyncio.TaskGroup | None = None
        self._followed: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def running(self, group: asyncio.TaskGroup) -> AsyncIterator[CanaryTrial]:
        """Go on with open canaries, and follow new ones, in a group whose owner ends them."""
        self._group = group
        for promotion in await self._registry.store.open_promotions():
            if promotion.state == "canary":
                self._follow(promotion.id)
        try:
            yield self
        finally:
            self._group = None
            for task in tuple(self._followed):
                task.cancel()

    async def approve(
        self, caller: Principal, promotion: str, body: ApprovePromotion, trace: str = ""
    ) -> PromotionView:
        """Count an approval and start the canary; as `ModelRegistry.approve` raises."""
        try:
            return await self._registry.approve(caller, promotion, body, self._start, trace)
        finally:
            self._follow(promotion)  # it may count though the journal does not have its fact yet

    async def view(self, promotion: str, wait_s: float = 0.0) -> PromotionView:
        """Return a promotion; with `wait_s`, wait up to that many seconds for its canary's end."""
        current = await self._registry.promotion(promotion)
        try:
            async with asyncio.timeout(wait_s or None):
                while wait_s and current.state == "canary":
                    async with self._changed:
                        current = await self._registry.promotion(promotion)
                        if current.state == "canary":
                            await self._changed.wait()
        except TimeoutError:
            pass
        return current

    # -- one canary --------------------------------------------------------------------------

    async def _start(
        self, caller: Principal, version: ModelVersion, aliases: ModelAliases
    ) -> TaskId:
        champion = None
        if aliases.champion is not None:
            champion, _ = await self._registry.store.version(version.role, aliases.champion)
        plan = AnswerPlan(inputs=await self._inputs(version), beside=champion is not None)
        inputs = {
            **program_files(),
            PLAN: msgspec.json.encode(plan),
            **await self._bodies("challenger", version),
        }
        if champion is not None:
            inputs |= await self._bodies("champion", champion)
        label = f"canary {version.name}"
        program = BoxedProgram((*ARGV, "answer"), inputs, ANSWERS, label, on_labs=True)
        return await self._tasks.start(caller, program)

    async def _inputs(self, version: ModelVersion) -> tuple[str, ...]:
        texts = [text for text in await self._history.recent(MAX_INPUTS) if text.strip()]
        if len(texts) < _FEWEST:
            _, kept = await self._registry.store.version(version.role, version.version)
            body = await self._registry.artefacts.get(kept)
            texts += msgspec.json.decode(body, type=Evidence).heldout
        return tuple(text[:_CHARACTERS] for text in texts[:MAX_INPUTS])

    async def _bodies(self, folder: str, version: ModelVersion) -> dict[str, bytes]:
        """Return the artefacts of a version by their paths, their hashes checked."""
        artefact = await self._registry.artefacts.get(version.sha256)
        if version.kind is ArtefactKind.base:
            return {f"{folder}/{BASE}": artefact}
        base = await self._registry.artefacts.get(version.provenance.base)
        return {f"{folder}/{BASE}": base, f"{folder}/{ARTEFACT}": artefact}

    def _follow(self, promotion: str) -> None:
        if self._group is None:
            raise Unavailable("The system is stopping; the canary goes on with its next start.")
        task = self._group.create_task(self._finish(promotion), name=f"canary {promotion}")
        self._followed.add(task)
        task.add_done_callback(self._followed.discard)

    async def _finish(self, promotion: str) -> None:
        """See a canary to its end; only the end of the server leaves it open."""
        reason = ""
        while True:
            try:
                if (current := await self._open_canary(promotion)) is None:
                    await self._registry.store.flush()
                    break
                report, fault = (None, reason) if reason else await self._report(current)
                await self._registry.tried(promotion, report, fault)
                continue
            except Unavailable as error:
                log.warning("%s is decided later: %s", promotion, error)
            except AngelError as error:
                if not reason:
                    reason = error.detail or error.code
                    continue
                log.warning("%s is decided later: %s", promotion, error)
            except Exception:
                log.exception("%s has failed", promotion)
                reason = "Its answers could not be read; see the log."
            await asyncio.sleep(_RETRY_S)
        async with self._changed:
            self._changed.notify_all()

    async def _open_canary(self, promotion: str) -> PromotionView | None:
        """Return a promotion as it is kept; None if it is not being tried."""
        try:
            current = await self._registry.promotion(promotion)
        except NotFound:
            return None
        return current if current.state == "canary" else None

    async def _report(self, promotion: PromotionView) -> tuple[ShadowReport | None, str]:
        task = promotion.task
        if task is None:
            return None, "It was never started."
        end: BoxedEnd | None = None
        while end is None:
            end = await self._tasks.end(task, _WAIT_S)
        if end.status is not Status.ok or not end.output:
            return None, f"Its task ended as {end.status}: {end.said[-300:].strip()}"
        body = await self._tasks.read(end.output)
        if len(body) > _ANSWER_BYTES:
            return None, f"Its answers have {len(body)} bytes."
        answers = msgspec.json.decode(body, type=Answers)
        aliases = await self._registry.store.aliases(promotion.role)
        beside = aliases.champion
        return compared(answers, self._registry.limits.tolerance, beside, task), ""


def compared(
    answers: Answers, tolerance: float, beside: int | None, task: TaskId | None = None
) -> ShadowReport:
    """Return how two models' answers differ.

    >>> compared(Answers(challenger=(1.0, 2.0), champion=(1.5, 9.0)), 1.0, 3).differing
    1
    >>> compared(Answers(challenger=(1.0, None), champion=(1.5, 2.0)), 1.0, 3).answered
    1

    An input that one of both has no answer to is one on which they differ:

    >>> compared(Answers(challenger=(1.0, 2.0)), 1.0, 3).differing
    2
    """
    pairs = zip(answers.challenger, answers.champion, strict=False)
    gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
    inputs = max(len(answers.challenger), len(answers.champion))
    alone = inputs - len(gaps) if beside is not None else 0
    return ShadowReport(
        inputs=inputs,
        answered=sum(value is not None for value in answers.challenger),
        differing=sum(gap > tolerance for gap in gaps) + alone,
        tolerance=tolerance,
        largest=max(gaps, default=0.0),
        beside=beside,
        task=task,
    )
