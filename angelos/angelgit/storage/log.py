"""The mutation log of live documents: one Valkey stream per document of `dev`.

An update is acknowledged when its XADD has returned. A snapshot row in PostgreSQL names the last
entry that the snapshot contains; entries are trimmed only after that row is committed.

    log = DocumentLog(valkey)
    (position,) = await log.append("study", [LogEntry(document, update, cause="room")])
    async for position, update in log.read("study", document, after="0-0"): ...
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import redis.exceptions
from redis.asyncio import Redis

from angelos.core.errors import Unavailable
from angelos.core.ids import START, Offset, offset_key

_PAGE = 1_000


class LogEntry(msgspec.Struct, frozen=True):
    """An update of one document and its cause: "room", "disk", or a transaction's id."""

    document: str
    update: bytes
    cause: str


class DocumentLog:
    """Append, replay and trim."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def append(self, repo: str, entries: Sequence[LogEntry]) -> list[Offset]:
        """Append to the documents' logs, all entries or none, and return their positions."""
        async with _available(), self._client.pipeline(transaction=True) as pipe:
            for entry in entries:
                pipe.xadd(
                    _key(repo, entry.document), {b"u": entry.update, b"c": entry.cause.encode()}
                )
            positions = cast("list[bytes]", await pipe.execute())
        return [Offset(position.decode()) for position in positions]

    async def read(
        self, repo: str, document: str, after: Offset
    ) -> AsyncIterator[tuple[Offset, bytes]]:
        """Yield (position, update) of each entry after `after`, in order."""
        while True:
            async with _available():
                page: list[tuple[bytes, dict[bytes, bytes]]] = await cast(
                    "Any",
                    self._client.xrange(
                        _key(repo, document), min=f"({after}", max="+", count=_PAGE
                    ),
                )
            for position, fields in page:
                after = Offset(position.decode())
                yield after, fields[b"u"]
            if len(page) < _PAGE:
                return

    async def newer(self, repo: str, after: Mapping[str, Offset]) -> set[str]:
        """Return the documents of `after` that have an entry after their position."""
        async with _available(), self._client.pipeline(transaction=False) as pipe:
            for document, position in after.items():
                pipe.xrange(_key(repo, document), min=f"({position}", max="+", count=1)
            pages = await pipe.execute()
        return {document for document, page in zip(after, pages, strict=True) if page}

    async def trim(self, repo: str, document: str, upto: Offset) -> None:
        """Remove the entries up to and including `upto`; a committed snapshot must contain them."""
        if upto == START:
            return
        ms, seq = offset_key(upto)
        async with _available():
            await self._client.xtrim(
                _key(repo, document), minid=f"{ms}-{seq + 1}", approximate=False
            )


def _key(repo: str, document: str) -> str:
    # The braces are a hash tag: one repository's streams are on one node of a cluster, where MULTI
    # can span them (valkey.io/topics/cluster-spec, "Hash tags").
    return f"angelgit:{{{repo}}}:{document}"


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    try:
        yield
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError) as error:
        raise Unavailable(
            f"The document log did not answer: {error}", hint="Is Valkey running?"
        ) from error
