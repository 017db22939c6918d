"""The journal as a stream of JSON messages, resumable by offset.

    query = events_query(request.query_arguments)         # ?after=&kinds=a,b&subject=
    await pump(journal, query.after, query.kinds, query.subject, send)

The journal is the buffer: one message is under way at a time. A reader that does not take it in
time is too slow; it is told so with `Busy`, whose `extra["after"]` is where to go on from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, cast

import msgspec

from angelos.core.errors import Busy, InvalidInput
from angelos.core.ids import START, Offset, is_offset
from angelos.core.messages import Kind
from angelos.core.ports import Journal

PATIENCE_S = 30.0
SLOW = 1013
"""WebSocket close code for a reader that is too slow: come back later."""
REFUSED = 1008
"""WebSocket close code for a reader that may not read (any more)."""
FAILED = 1011
"""WebSocket close code when the journal cannot be read."""
_MAX_SUBJECT = 512
_PARAMETERS = ("after", "kinds", "subject")


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader asks for; empty filters leave nothing out."""

    after: Offset = START
    kinds: tuple[str, ...] = ()
    subject: str = ""


def events_query(query: Mapping[str, list[bytes] | list[str]]) -> EventsQuery:
    """Return what the query parameters ask for; raise `InvalidInput`."""
    found: dict[str, str] = {}
    for name, values in query.items():
        if name not in _PARAMETERS or len(values) != 1:
            raise InvalidInput(
                f"Events have no query parameter {name!r} like this.",
                hint="They know after, kinds and subject, each once.",
            )
        try:
            found[name] = values[0].decode() if isinstance(values[0], bytes) else values[0]
        except UnicodeDecodeError as error:
            raise InvalidInput(f"The query parameter {name!r} is not UTF-8.") from error
    after = found.get("after") or START
    if not is_offset(after):
        raise InvalidInput(f"{after[:64]!r} is not an offset of the journal.")
    kinds = tuple(kind for kind in found.get("kinds", "").split(",") if kind)
    known = {str(kind) for kind in Kind}
    if unknown := [kind[:64] for kind in kinds if kind not in known]:
        raise InvalidInput(f"There are no facts of the kind {unknown[0]!r}.")
    subject = found.get("subject", "")
    if len(subject) > _MAX_SUBJECT:
        raise InvalidInput("The subject is too long to be one.")
    return EventsQuery(after=Offset(after), kinds=kinds, subject=subject)


async def pump(
    journal: Journal,
    after: Offset,
    kinds: Collection[str],
    subject: str,
    send: Callable[[bytes], Awaitable[object]],
    patience_s: float = PATIENCE_S,
) -> None:
    """Send each fact after `after` as one JSON object, oldest first, for ever.

    `send` returns when the message is on its way. Raises `Busy` when that takes longer than
    `patience_s` seconds, and whatever `send` or the journal raise.
    """
    facts = journal.follow(after, kinds, subject)
    async with aclosing(cast("Any", facts)):
        async for fact in facts:
            try:
                async with asyncio.timeout(patience_s):
                    await send(msgspec.json.encode(fact))
            except TimeoutError as error:
                raise Busy(
                    f"The reader did not take an event within {patience_s:g} s.",
                    hint=f"Connect again with after={after}.",
                    after=after,
                ) from error
            after = fact.offset
