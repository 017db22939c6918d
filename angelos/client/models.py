"""Role models: versions, what each alias names, and who moves it.

run = await angelos.models.start("sentinel", "adapter", repo="study")
run = await angelos.models.run(run.id, wait=60)      # "registered", or what stopped it
promotion = await angelos.models.propose("sentinel", run.version)
view = await angelos.models.get(f"sentinel:{run.version}")
await angelos.models.approve(promotion.id, view.digest)
await angelos.models.rollback("sentinel", "too many alarms")
"""

from __future__ import annotations

from typing import Literal

from angelos.client.transport import Transport, segments
from angelos.core.ids import Revision
from angelos.core.models import (
    ApprovePromotion,
    ArtefactKind,
    EvaluateModel,
    ModelEvaluation,
    ModelList,
    ModelView,
    NamedData,
    PromotionList,
    PromotionView,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
    RunList,
    RunView,
    StartTraining,
    StepSettings,
)

_PATIENCE_S = 120.0
"""Where torch is loaded first."""


class ModelCollection:
    """The role models of a system: `angelos.models`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, role: str = "", limit: int = 50) -> tuple[ModelView, ...]:
        """Return versions, newest first.

        Args:
            role: Of this role; by default of all.
            limit: At most so many.

        Raises:
            InvalidInput: This is no name of a role.
            Forbidden: The caller may not read models.
        """
        query: dict[str, object] = {"role": role or None, "limit": limit}
        return (await self._transport.call("GET", "/models", ModelList, query=query)).models

    async def get(self, model: str) -> ModelView:
        """Return a version: its provenance, figures and gates.

        Args:
            model: `ROLE:VERSION`, or a role, whose champion is meant.

        Raises:
            NotFound: There is none.
        """
        return await self._transport.call("GET", "/models" + segments(model), ModelView)

    async def start(
        self,
        role: str,
        kind: Literal["base", "adapter"] = "adapter",
        *,
        repo: str = "",
        revision: Revision | None = None,
        data: NamedData | None = None,
        settings: StepSettings | None = None,
    ) -> RunView:
        """Train a base, or adapt the champion's base; the gates of the data answer at once.

        Args:
            role: Whose model it is.
            kind: A whole model, or a LoRA adapter.
            repo: A repository, whose `main` it learns from.
            revision: Of the history of that `main`; by default its head.
            data: A data set instead of a repository; a person alone may give one.
            settings: How long and how fast it learns.

        Returns:
            The run; `state` is `refused` where a gate stops the data.

        Raises:
            InvalidInput: The role is none that is trained here, or the data has the wrong form.
            NotFound: There is no such repository or revision, or no base to adapt.
            Forbidden: The caller may not train on this.
            Busy: Too many runs are open, of all or of the caller.
            Unavailable: No node can run it.
        """
        body = StartTraining(
            kind=ArtefactKind(kind),
            repo=repo,
            revision=revision,
            data=data,
            settings=settings or StepSettings(),
        )
        path = "/models" + segments(role, "runs")
        return await self._transport.call("POST", path, RunView, body=body)

    async def run(self, run: str, wait: float = 0) -> RunView:
        """Return a training run.

        Args:
            run: Its id.
            wait: Seconds to wait for its end first; the server bounds them (60).

        Raises:
            NotFound: There is none of this id.
        """
        path = "/model-runs" + segments(run)
        query: dict[str, object] = {"wait": wait or None}
        return await self._transport.call("GET", path, RunView, query=query, patience_s=wait)

    async def runs(self, limit: int = 50) -> tuple[RunView, ...]:
        """Return training runs, newest first.

        Args:
            limit: At most so many.

        Raises:
            Forbidden: The caller may not read models.
        """
        query: dict[str, object] = {"limit": limit}
        return (await self._transport.call("GET", "/model-runs", RunList, query=query)).runs

    async def evaluate(
        self,
        model: str,
        *,
        repo: str = "",
        revision: Revision | None = None,
        data: NamedData | None = None,
    ) -> ModelEvaluation:
        """Measure a version again, by default on the texts that judged it.

        Args:
            model: `ROLE:VERSION`, or a role, whose champion is meant.
            repo: Measure it on this repository's `main` instead.
            revision: Of the history of that `main`; by default its head.
            data: Measure it on these texts instead.

        Raises:
            NotFound: There is no such version, repository or revision.
            Tampered: Its artefact is not what was stored.
            Unavailable: The server cannot measure models (the extra `ml`).
        """
        body = EvaluateModel(repo=repo, revision=revision, data=data)
        path = "/models" + segments(model, "evaluate")
        return await self._transport.call(
            "POST", path, ModelEvaluation, body=body, patience_s=_PATIENCE_S
        )

    async def promotions(self, role: str, limit: int = 50) -> tuple[PromotionView, ...]:
        """Return the promotions of a role, newest first.

        Args:
            role: Which one.
            limit: At most so many.

        Raises:
            InvalidInput: This is no name of a role.
        """
        path = "/models" + segments(role, "promotions")
        query: dict[str, object] = {"limit": limit}
        return (await self._transport.call("GET", path, PromotionList, query=query)).promotions

    async def promotion(self, promotion: str, wait: float = 0) -> PromotionView:
        """Return a promotion.

        Args:
            promotion: Its id.
            wait: Seconds to wait for the end of its canary first; the server bounds them (60).

        Raises:
            NotFound: There is none of this id.
        """
        path = "/model-promotions" + segments(promotion)
        query: dict[str, object] = {"wait": wait or None}
        return await self._transport.call("GET", path, PromotionView, query=query, patience_s=wait)

    async def propose(self, role: str, version: int) -> PromotionView:
        """Propose that a version become the champion.

        Args:
            role: Its role.
            version: Its number.

        Raises:
            NotFound: There is no such version.
            Refused: A gate stops it.
            Conflict: It is the champion, or another version is proposed or tried.
        """
        path = "/models" + segments(role, "promotions")
        body = ProposePromotion(version=version)
        return await self._transport.call("POST", path, PromotionView, body=body)

    async def approve(self, promotion: str, digest: str) -> PromotionView:
        """Approve exactly what a digest names; the labs node tries it then.

        Args:
            promotion: Its id.
            digest: Of the version, as `ModelView.digest` has it.

        Raises:
            Conflict: It does not wait, or the digest is of something else.
            Forbidden: For programs, and for one's own unless one reviews alone.
            Unavailable: No labs node is connected; nothing was counted.
        """
        path = "/model-promotions" + segments(promotion, "approve")
        body = ApprovePromotion(digest=digest)
        return await self._transport.call("POST", path, PromotionView, body=body)

    async def reject(self, promotion: str, reason: str = "") -> PromotionView:
        """Reject a promotion that waits.

        Args:
            promotion: Its id.
            reason: Why; kept in the log.

        Raises:
            Conflict: It does not wait.
            Forbidden: The caller may not review models.
        """
        path = "/model-promotions" + segments(promotion, "reject")
        body = RejectPromotion(reason=reason)
        return await self._transport.call("POST", path, PromotionView, body=body)

    async def rollback(self, role: str, reason: str = "") -> ModelView:
        """Move the champion back to the version before it, and return that.

        Args:
            role: Which one.
            reason: Why; kept in the log.

        Raises:
            Conflict: There was no champion before this one.
            Tampered: The artefact of the version before is damaged; nothing was changed.
        """
        path = "/models" + segments(role, "rollback")
        return await self._transport.call(
            "POST", path, ModelView, body=RollbackModel(reason=reason)
        )
