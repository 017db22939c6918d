"""Routes of memory, below /angelos/api."""

from __future__ import annotations

from typing import Any, Literal

from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.memories import (
    Consolidate,
    Consolidated,
    Correct,
    Forgotten,
    MemoryPage,
    MemoryStats,
    MemoryView,
    Recall,
    Recalled,
    Remember,
    Remembered,
    is_memory_id,
)
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, choice, limit
from angelos.memory.service import MemoryService

_YesNo = Literal["yes", "no"]


def routes(memory: MemoryService | None) -> list[Route]:
    """Return the routes of memory; without a service, each answers that there is none."""
    handlers = MemoryRoutes(memory)
    return [*_reading(handlers), *_writing(handlers)]


def _reading(handlers: MemoryRoutes) -> list[Route]:
    read = Permission.memory_read
    return [
        Route(
            "GET",
            "/memories",
            read,
            handlers.page,
            response=MemoryPage,
            query=("namespace", "cursor", "limit", "superseded"),
            summary="Memories of a namespace, newest first",
        ),
        Route(
            "POST",
            "/memories/recall",
            read,
            handlers.recall,
            request=Recall,
            response=Recalled,
            summary="Memories that fit a question",
        ),
        Route(
            "GET",
            "/memories/stats",
            read,
            handlers.stats,
            response=MemoryStats,
            summary="How much of what was offered was junk",
        ),
        Route("GET", "/memories/{id}", read, handlers.get, response=MemoryView, summary="A memory"),
    ]


def _writing(handlers: MemoryRoutes) -> list[Route]:
    write = Permission.memory_write
    return [
        Route(
            "POST",
            "/memories",
            write,
            handlers.remember,
            request=Remember,
            response=Remembered,
            status=201,
            summary="Remember a text",
        ),
        Route(
            "POST",
            "/memories/consolidate",
            write,
            handlers.consolidate,
            request=Consolidate,
            response=Consolidated,
            summary="Merge memories that say the same",
        ),
        Route(
            "POST",
            "/memories/{id}/correct",
            write,
            handlers.correct,
            request=Correct,
            response=MemoryView,
            summary="Say what is right instead",
        ),
        Route(
            "DELETE",
            "/memories/{id}",
            write,
            handlers.forget,
            response=Forgotten,
            summary="Forget a memory and its earlier versions, for ever",
        ),
    ]


class MemoryRoutes:
    """The handlers."""

    def __init__(self, memory: MemoryService | None) -> None:
        self._memory = memory

    @property
    def _service(self) -> MemoryService:
        if self._memory is None:
            raise Unavailable(
                "This PostgreSQL has no pgvector, which memory needs.",
                hint="Install Debian's postgresql-15-pgvector or the like, and start again.",
            )
        return self._memory

    async def remember(self, call: Call[Remember]) -> Remembered:
        """Remember a text."""
        return await self._service.remember(call.principal, call.body)

    async def recall(self, call: Call[Recall]) -> Recalled:
        """Return the memories that fit a question."""
        return await self._service.recall(call.principal, call.body)

    async def get(self, call: Call[Nothing]) -> MemoryView:
        """Return one memory."""
        return await self._service.get(call.principal, _id(call))

    async def page(self, call: Call[Nothing]) -> MemoryPage:
        """Return a page of a namespace."""
        superseded = choice(call.query, "superseded", _YesNo) == "yes"
        cursor = call.query.get("cursor", "")
        if cursor and not is_memory_id(cursor):
            raise InvalidInput("The cursor is none that a page of memories gave.")
        return await self._service.page(
            call.principal,
            call.query.get("namespace", ""),
            cursor,
            limit(call),
            superseded=superseded,
        )

    async def correct(self, call: Call[Correct]) -> MemoryView:
        """Say what is right instead."""
        return await self._service.correct(call.principal, _id(call), call.body)

    async def forget(self, call: Call[Nothing]) -> Forgotten:
        """Forget a memory."""
        return await self._service.forget(call.principal, _id(call))

    async def consolidate(self, call: Call[Consolidate]) -> Consolidated:
        """Merge what says the same."""
        return await self._service.consolidate(call.principal, call.body)

    async def stats(self, call: Call[Nothing]) -> MemoryStats:
        """Return what became of offered texts."""
        del call
        return await self._service.stats()


def _id(call: Call[Any]) -> str:
    memory = call.params["id"]
    if not is_memory_id(memory):
        raise InvalidInput(f"{memory[:64]!r} is not the id of a memory.")
    return memory
