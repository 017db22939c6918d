"""Routes of role models, below /angelos/api."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from angelos.core.errors import InvalidInput
from angelos.core.models import (
    ApprovePromotion,
    EvaluateModel,
    ModelEvaluation,
    ModelList,
    ModelView,
    PromotionList,
    PromotionView,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
    RunList,
    RunView,
    StartTraining,
    parse_model,
)
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, limit, wait_seconds
from angelos.ml.registry.canary import CanaryTrial
from angelos.ml.registry.service import ModelRegistry
from angelos.ml.registry.tuning import Tuner

_ID = re.compile(r"(mprom|mrun)-[0-9a-f]{32}")
_MAX_WAIT_S = 60.0


class ModelServices(NamedTuple):
    """What the routes of role models call."""

    registry: ModelRegistry
    tuner: Tuner
    canary: CanaryTrial


def routes(services: ModelServices) -> list[Route]:
    """Return the routes of role models."""
    handlers = ModelRoutes(services)
    return [*_reading(handlers), *_training(handlers), *_moving(handlers)]


def _reading(handlers: ModelRoutes) -> list[Route]:
    read = Permission.models_read
    return [
        Route(
            "GET",
            "/models",
            read,
            handlers.list,
            response=ModelList,
            query=("role", "limit"),
            summary="Versions of role models, newest first",
        ),
        Route(
            "GET",
            "/models/{model}",
            read,
            handlers.get,
            response=ModelView,
            summary="A version with its card; of a role alone, the champion",
        ),
        Route(
            "GET",
            "/models/{model}/promotions",
            read,
            handlers.promotions,
            response=PromotionList,
            query=("limit",),
            summary="Promotions of a role, newest first",
        ),
        Route(
            "GET",
            "/model-promotions/{id}",
            read,
            handlers.promotion,
            response=PromotionView,
            query=("wait",),
            summary="A promotion; with `wait`, at the end of its canary",
        ),
    ]


def _training(handlers: ModelRoutes) -> list[Route]:
    return [
        Route(
            "POST",
            "/models/{model}/runs",
            Permission.models_train,
            handlers.train,
            request=StartTraining,
            response=RunView,
            status=202,
            summary="Train a base or an adapter; the gates of the data answer at once",
        ),
        Route(
            "GET",
            "/model-runs",
            Permission.models_read,
            handlers.runs,
            response=RunList,
            query=("limit",),
            summary="Training runs, newest first",
        ),
        Route(
            "GET",
            "/model-runs/{id}",
            Permission.models_read,
            handlers.run,
            response=RunView,
            query=("wait",),
            summary="A training run; with `wait`, at its end",
        ),
        Route(
            "POST",
            "/models/{model}/evaluate",
            Permission.models_train,
            handlers.evaluate,
            request=EvaluateModel,
            response=ModelEvaluation,
            summary="Measure a version again, on the texts that judged it or on others",
        ),
    ]


def _moving(handlers: ModelRoutes) -> list[Route]:
    return [
        Route(
            "POST",
            "/models/{model}/promotions",
            Permission.models_train,
            handlers.propose,
            request=ProposePromotion,
            response=PromotionView,
            status=201,
            summary="Propose that a version become the champion",
        ),
        Route(
            "POST",
            "/model-promotions/{id}/approve",
            Permission.models_review,
            handlers.approve,
            request=ApprovePromotion,
            response=PromotionView,
            summary="Approve what a digest names; the labs node tries it",
        ),
        Route(
            "POST",
            "/model-promotions/{id}/reject",
            Permission.models_review,
            handlers.reject,
            request=RejectPromotion,
            response=PromotionView,
            summary="Reject a promotion",
        ),
        Route(
            "POST",
            "/models/{model}/rollback",
            Permission.models_rollback,
            handlers.rollback,
            request=RollbackModel,
            response=ModelView,
            summary="Move the champion back to the version before it",
        ),
    ]


class ModelRoutes:
    """The handlers."""

    def __init__(self, services: ModelServices) -> None:
        self._registry = services.registry
        self._tuner = services.tuner
        self._canary = services.canary

    async def list(self, call: Call[Nothing]) -> ModelList:
        """Return versions."""
        role = call.query.get("role", "")
        if role and parse_model(role)[1] is not None:
            raise InvalidInput(f"{role!r} is a version; name a role.")
        return ModelList(models=await self._registry.list(role, limit(call)))

    async def get(self, call: Call[Nothing]) -> ModelView:
        """Return a version."""
        return await self._registry.get(*parse_model(call.params["model"]))

    async def promotions(self, call: Call[Nothing]) -> PromotionList:
        """Return the promotions of a role."""
        return PromotionList(promotions=await self._registry.promotions(_role(call), limit(call)))

    async def promotion(self, call: Call[Nothing]) -> PromotionView:
        """Return a promotion."""
        return await self._canary.view(_id(call, "mprom"), _wait(call))

    async def train(self, call: Call[StartTraining]) -> RunView:
        """Start a training run."""
        return await self._tuner.start(call.principal, _role(call), call.body, call.trace)

    async def runs(self, call: Call[Nothing]) -> RunList:
        """Return training runs."""
        return RunList(runs=await self._tuner.list(limit(call)))

    async def run(self, call: Call[Nothing]) -> RunView:
        """Return a training run."""
        return await self._tuner.view(_id(call, "mrun"), _wait(call))

    async def evaluate(self, call: Call[EvaluateModel]) -> ModelEvaluation:
        """Measure a version again."""
        role, version = parse_model(call.params["model"])
        return await self._tuner.evaluate(call.principal, role, version, call.body)

    async def approve(self, call: Call[ApprovePromotion]) -> PromotionView:
        """Approve a promotion."""
        promotion = _id(call, "mprom")
        return await self._canary.approve(call.principal, promotion, call.body, call.trace)

    async def propose(self, call: Call[ProposePromotion]) -> PromotionView:
        """Propose a version."""
        return await self._registry.propose(call.principal, _role(call), call.body, call.trace)

    async def reject(self, call: Call[RejectPromotion]) -> PromotionView:
        """Reject a promotion."""
        promotion = _id(call, "mprom")
        return await self._registry.reject(call.principal, promotion, call.body, call.trace)

    async def rollback(self, call: Call[RollbackModel]) -> ModelView:
        """Move the champion back."""
        return await self._registry.rollback(call.principal, _role(call), call.body, call.trace)


def _role(call: Call[Any]) -> str:
    role, version = parse_model(call.params["model"])
    if version is not None:
        raise InvalidInput(f"{role}:{version} is a version; name the role alone.")
    return role


def _id(call: Call[Any], prefix: str) -> str:
    name = call.params["id"]
    match = _ID.fullmatch(name)
    if match is None or match[1] != prefix:
        raise InvalidInput(f"{name[:64]!r} is no id of this kind; one begins with {prefix}-.")
    return name


def _wait(call: Call[Any]) -> float:
    return min(wait_seconds(call), _MAX_WAIT_S)
