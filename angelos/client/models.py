"""Role models: versions, what each alias names, and who moves it.

view = await angelos.models.get("sentinel")          # the champion
promotion = await angelos.models.propose("sentinel", 3)
await angelos.models.rollback("sentinel", "too many alarms")
"""

from __future__ import annotations

from angelos.client.transport import Transport, segments
from angelos.core.models import (
    ModelList,
    ModelView,
    PromotionList,
    PromotionView,
    ProposePromotion,
    RejectPromotion,
    RollbackModel,
)


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

    async def promotion(self, promotion: str) -> PromotionView:
        """Return a promotion.

        Args:
            promotion: Its id.

        Raises:
            NotFound: There is none of this id.
        """
        path = "/model-promotions" + segments(promotion)
        return await self._transport.call("GET", path, PromotionView)

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
