"""The journal as a stream of JSON messages, resumable by offset.

    query = events_query(request.query_arguments)         # ?after=&kinds=a,b&subject=
    await stream(journal, query, handler)                 # until the WebSocket is closed

The journal is the buffer: one message is under way at a time. A reader that does not take it in
time is too slow; it is told so with `Busy`, whose `extra["after"]` is where to go on from.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import Any, Protocol, cast

import msgspec
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError

from angelos.core.errors import AngelError, Busy, InvalidInput
from angelos.core.ids import START, Offset, is_offset
from angelos.core.messages import Fact, Kind
from angelos.core.ports import Journal

log = logging.getLogger(__name__)
PATIENCE_S = 30.0
SLOW = 1013
"""WebSocket close code for a reader that is too slow: come back later."""
REFUSED = 1008
"""WebSocket close code for a reader that may not read (any more)."""
FAILED = 1011
"""WebSocket close code when the journal cannot be read."""
_MAX_REASON_BYTES = 120  # RFC 6455, section 5.5.1: a close frame holds 125 bytes
_MAX_SUBJECT = 512
_COMMAND = "body"
"""Where `task.accepted` and `checkout.requested` keep the command, so that it can be sent again."""
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


def shown(fact: Fact) -> Fact:
    """Return a fact as readers see it: without the command that it carries.

    A command holds the signed grant, and what a program is and reads; that is between control and
    the node. The audit log keeps it for those who may read that.
    """
    if _COMMAND not in fact.data:
        return fact
    data = {key: value for key, value in fact.data.items() if key != _COMMAND}
    return msgspec.structs.replace(fact, data=data)


class Socket(Protocol):
    """A WebSocket of Tornado's, as far as it matters."""

    def write_message(self, message: bytes) -> Awaitable[object]:
        """Send; what is returned is done when it has gone out."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close, saying why."""
        ...


async def stream(
    journal: Journal, query: EventsQuery, socket: Socket, patience_s: float = PATIENCE_S
) -> None:
    """Send what `query` asks for, for ever; close the socket with the reason when that ends.

    Whoever reads goes on from the offset of the last fact that came.
    """
    try:
        await pump(
            journal, query.after, query.kinds, query.subject, socket.write_message, patience_s
        )
    except (WebSocketClosedError, StreamClosedError):
        return
    except Busy as error:
        socket.close(SLOW, _short(error.detail))
    except AngelError as error:
        socket.close(FAILED, _short(error.detail))
    except Exception:
        log.exception("A stream of events failed")
        socket.close(FAILED, "The journal cannot be read at the moment; the log has more.")


def _short(reason: str) -> str:
    return reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")


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
                    await send(msgspec.json.encode(shown(fact)))
            except TimeoutError as error:
                raise Busy(
                    f"The reader did not take an event within {patience_s:g} s.",
                    hint=f"Connect again with after={after}.",
                    after=after,
                ) from error
            after = fact.offset
