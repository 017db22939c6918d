"""Routes of role models, below /angelos/api."""

from __future__ import annotations

import re
from typing import Any

from angelos.core.errors import InvalidInput
from angelos.core.models import (
    ModelList,
    ModelView,
    PromotionList,
    PromotionView,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
    parse_model,
)
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, limit
from angelos.ml.registry.service import ModelRegistry

_PROMOTION = re.compile(r"mprom-[0-9a-f]{32}")


def routes(registry: ModelRegistry) -> list[Route]:
    """Return the routes of role models."""
    handlers = ModelRoutes(registry)
    return [*_reading(handlers), *_moving(handlers)]


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
            summary="A promotion",
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

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

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
        return await self._registry.promotion(_id(call))

    async def propose(self, call: Call[ProposePromotion]) -> PromotionView:
        """Propose a version."""
        return await self._registry.propose(call.principal, _role(call), call.body, call.trace)

    async def reject(self, call: Call[RejectPromotion]) -> PromotionView:
        """Reject a promotion."""
        return await self._registry.reject(call.principal, _id(call), call.body, call.trace)

    async def rollback(self, call: Call[RollbackModel]) -> ModelView:
        """Move the champion back."""
        return await self._registry.rollback(call.principal, _role(call), call.body, call.trace)


def _role(call: Call[Any]) -> str:
    role, version = parse_model(call.params["model"])
    if version is not None:
        raise InvalidInput(f"{role}:{version} is a version; name the role alone.")
    return role


def _id(call: Call[Any]) -> str:
    promotion = call.params["id"]
    if not _PROMOTION.fullmatch(promotion):
        raise InvalidInput(f"{promotion[:64]!r} is not the id of a promotion.")
    return promotion
