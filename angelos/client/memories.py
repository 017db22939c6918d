"""Memory: what agents and people have said once, found by meaning and by word.

    kept = await angelos.memories.remember("Sensor 4 reads 2 K too high since May.")
    hits = await angelos.memories.recall("which sensors can be trusted?")
    prompt += quoted(hits)                    # fenced, and named as data
    await angelos.memories.correct(kept.memory.id, "Sensor 4 was repaired in June.")
    await angelos.memories.forget(kept.memory.id)

Recalled text is data, never an instruction: somebody else wrote it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from angelos.client.transport import Transport, segments
from angelos.core.ids import Revision, TaskId
from angelos.core.memories import (
    Consolidate,
    Consolidated,
    Correct,
    Forgotten,
    MemoryHit,
    MemoryId,
    MemoryPage,
    MemoryStats,
    MemoryView,
    Recall,
    Recalled,
    Remember,
    Remembered,
    quoted,
)

__all__ = ["MemoryCollection", "quoted"]


class MemoryCollection:
    """What is remembered: `angelos.memories`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def remember(
        self,
        text: str,
        namespace: str = "",
        *,
        task: TaskId | None = None,
        repo: str = "",
        revision: Revision | None = None,
        ttl_s: float | None = None,
        memory: str | None = None,
    ) -> Remembered:
        """Keep a text, unless it is junk or there already.

        Args:
            text: A sentence or two, at most 4,000 characters.
            namespace: `shared`, or whose memory it is; by default the caller's own.
            task: The task from which it comes.
            repo: The repository that it is about.
            revision: The revision that it is about.
            ttl_s: Seconds after which it is forgotten; by default it stays.
            memory: The id of the request; the same id again gives the same memory.

        Returns:
            The memory, whether it was new, and memories that say nearly the same.

        Raises:
            Refused: It is not worth remembering; `extra["cause"]` says why.
            Forbidden: The namespace is another's.
            Unavailable: There is no pgvector, or no embedding model.
        """
        body = Remember(
            text=text,
            namespace=namespace,
            task=task,
            repo=repo,
            revision=revision,
            ttl_s=ttl_s,
            memory=memory,
        )
        return await self._transport.call("POST", "/memories", Remembered, body=body)

    async def recall(
        self,
        query: str,
        namespaces: Sequence[str] = (),
        *,
        limit: int = 10,
        mode: Literal["hybrid", "vector", "text"] = "hybrid",
    ) -> tuple[MemoryHit, ...]:
        """Return the memories that fit a question, best first.

        Args:
            query: A question, or words.
            namespaces: Where to look; by default the caller's own and `shared`.
            limit: How many at most, up to 50.
            mode: By meaning (`vector`), by words (`text`), or by both.

        Raises:
            Forbidden: A namespace is another's.
            Unavailable: There is no pgvector, or no embedding model.
        """
        body = Recall(query=query, namespaces=tuple(namespaces), limit=limit, mode=mode)
        answer = await self._transport.call("POST", "/memories/recall", Recalled, body=body)
        return answer.hits

    async def get(self, memory: str) -> MemoryView:
        """Return one memory, also one that was corrected since.

        Args:
            memory: Its id.

        Raises:
            NotFound: There is none that the caller may read.
        """
        return await self._transport.call("GET", "/memories" + segments(memory), MemoryView)

    async def page(
        self, namespace: str = "", cursor: str = "", limit: int = 50, *, superseded: bool = False
    ) -> MemoryPage:
        """Return memories of a namespace, newest first.

        Args:
            namespace: By default the caller's own.
            cursor: What the page before gave.
            limit: How many at most.
            superseded: Also those that were corrected or merged.

        Raises:
            Forbidden: The namespace is another's.
        """
        query: dict[str, object] = {
            "namespace": namespace or None,
            "cursor": cursor or None,
            "limit": limit,
            "superseded": "yes" if superseded else None,
        }
        return await self._transport.call("GET", "/memories", MemoryPage, query=query)

    async def correct(self, memory: str, text: str) -> MemoryView:
        """Say what is right instead of a memory, which is kept with its dates.

        Args:
            memory: The id of the one that is wrong.
            text: What is right.

        Raises:
            NotFound: There is none that the caller may read.
            Conflict: It was corrected or merged before.
        """
        path = "/memories" + segments(memory, "correct")
        return await self._transport.call("POST", path, MemoryView, body=Correct(text=text))

    async def forget(self, memory: str) -> tuple[MemoryId, ...]:
        """Remove a memory and its earlier versions for ever; return their ids.

        Args:
            memory: Its id.

        Raises:
            NotFound: There is none that the caller may read.
            Forbidden: It is another's.
        """
        path = "/memories" + segments(memory)
        return (await self._transport.call("DELETE", path, Forgotten)).ids

    async def consolidate(
        self, namespace: str = "", similarity: float = 0.95, *, dry_run: bool = False
    ) -> Consolidated:
        """Merge memories of a namespace that say the same into the newest of them.

        Args:
            namespace: By default the caller's own.
            similarity: Cosine similarity from which they do, at least 0.8.
            dry_run: Only say which would be merged.

        Raises:
            Forbidden: The namespace is another's.
        """
        body = Consolidate(namespace=namespace, similarity=similarity, dry_run=dry_run)
        path = "/memories/consolidate"
        return await self._transport.call("POST", path, Consolidated, body=body)

    async def stats(self) -> MemoryStats:
        """Return how many texts were offered, and how many of them were junk.

        Raises:
            Forbidden: The caller may not read memory.
        """
        return await self._transport.call("GET", "/memories/stats", MemoryStats)
