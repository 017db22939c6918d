"""The journal as a stream of JSON messages, resumable by offset.

    query = events_query(request.query_arguments)         # ?after=&kinds=a,b&subject=
    await stream(journal, query, handler)                 # until the WebSocket is closed

The journal is the buffer: what the system does not take at once is waited for before the next is
sent. A reader that does not take it in time is too slow: `Busy` ends the stream, and its
`extra["after"]` says where to continue.
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

from angelos.core.errors import AngelError, Busy, HistoryLost, InvalidInput
from angelos.core.facts import Fact, Kind, to_json
from angelos.core.frame_codecs import JSON
from angelos.core.ids import START, FactId, Offset, is_offset, offset_key
from angelos.core.ports import Journal, JournalPosition

log = logging.getLogger(__name__)
PATIENCE_S = 30.0
SLOW = 1013
"""WebSocket close code for a reader that is too slow; it may come back."""
REFUSED = 1008
"""WebSocket close code for a reader that may not read, or no longer."""
FAILED = 1011
"""WebSocket close code when the journal cannot be read."""
_AT_ONCE = 64
"""So many facts are sent before others have their turn."""
_MAX_REASON_BYTES = 120  # RFC 6455, section 5.5.1: a close frame holds 125 bytes
_MAX_SUBJECT = 512
_MAX_EPOCH = 64
_PARAMETERS = ("after", "kinds", "subject", "epoch")
SUBPROTOCOL = JSON.subprotocol
EPOCH_HEADER = "Angelos-Journal-Epoch"
"""Of the answer that opens a stream; a reader that goes on sends it as `epoch`."""


def events_subprotocol(offered: Collection[str]) -> str | None:
    """Return the subprotocol of a stream of events, if the reader offers it."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


class EventsQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A reader's request; empty filters leave nothing out."""

    after: Offset = START
    kinds: tuple[str, ...] = ()
    subject: str = ""
    epoch: str = ""
    """Of the journal that `after` is from; a reader of the past names it."""


def events_query(query: Mapping[str, list[bytes] | list[str]]) -> EventsQuery:
    """Return the request in the query parameters; raise `InvalidInput`."""
    texts: dict[str, str] = {}
    for name, values in query.items():
        if name not in _PARAMETERS or len(values) != 1:
            raise InvalidInput(
                f"The query parameter {name!r} of events is unknown or repeated.",
                hint="There are after, kinds, subject and epoch, each once.",
            )
        try:
            texts[name] = values[0].decode() if isinstance(values[0], bytes) else values[0]
        except UnicodeDecodeError as error:
            raise InvalidInput(f"The query parameter {name!r} is not UTF-8.") from error
    return _checked(texts)


def _checked(texts: Mapping[str, str]) -> EventsQuery:
    after = texts.get("after") or START
    if not is_offset(after):
        raise InvalidInput(f"{after[:64]!r} is not an offset of the journal.")
    kinds = tuple(kind for kind in texts.get("kinds", "").split(",") if kind)
    all_kinds = {str(kind) for kind in Kind}
    if unknown := [kind[:64] for kind in kinds if kind not in all_kinds]:
        raise InvalidInput(f"There are no facts of the kind {unknown[0]!r}.")
    subject = texts.get("subject", "")
    if len(subject) > _MAX_SUBJECT:
        raise InvalidInput("The subject is too long to be one.")
    epoch = texts.get("epoch", "")
    if len(epoch) > _MAX_EPOCH:
        raise InvalidInput("The epoch is too long to be one.")
    return EventsQuery(after=Offset(after), kinds=kinds, subject=subject, epoch=epoch)


def resume(query: EventsQuery, position: JournalPosition) -> bytes | None:
    """Return the notice that a reader gets before the first fact, if it needs one.

    A reader that names the journal's epoch reads the past: of what was trimmed it gets the facts
    that last, after a notice. Others start anew.

    Raises:
        HistoryLost: The offset is of another journal, of the future or unknown, or the facts after
            it were trimmed; `extra` has the oldest offset and the epoch.
    """
    if query.after == START:
        if query.epoch in {"", position.epoch}:
            return None
    elif query.epoch in {"", position.epoch}:
        after = offset_key(query.after)
        trimmed = after < offset_key(position.oldest)
        if position.present or (trimmed and after >= offset_key(position.gap)):
            return None
        if trimmed and query.epoch:
            lost = HistoryNotice(oldest=position.oldest, epoch=position.epoch)
            return msgspec.json.encode(lost)
    raise HistoryLost(
        f"The journal cannot be read on from {query.after}: its oldest fact is {position.oldest}.",
        hint="Read from the beginning (after=0-0): what lasts is there.",
        oldest=position.oldest,
        epoch=position.epoch,
    )


class HistoryNotice(msgspec.Struct, frozen=True, kw_only=True):
    """A message that is no fact: of what was before `oldest` only what lasts is left."""

    notice: str = "history-lost"
    oldest: Offset
    epoch: str


class Socket(Protocol):
    """The part of Tornado's WebSocket that is used here."""

    def write_message(self, message: bytes) -> Awaitable[object]:
        """Send; the result is done once the message has been written."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Close with a code and a reason."""
        ...


def unchanged(fact: Fact) -> Fact:
    """Return the fact."""
    return fact


async def stream(
    journal: Journal,
    query: EventsQuery,
    socket: Socket,
    patience_s: float = PATIENCE_S,
    shown: Callable[[Fact], Fact] = unchanged,
    notice: bytes | None = None,
) -> None:
    """Send what `query` asks for, for ever; close the socket with the reason when that ends.

    `shown` returns each fact as this reader may see it.

    A reader continues from the offset of the last fact that it has received.
    """
    try:
        if notice is not None:
            await socket.write_message(notice)
        await pump(
            journal,
            query.after,
            query.kinds,
            query.subject,
            socket.write_message,
            patience_s,
            shown,
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
    shown: Callable[[Fact], Fact] = unchanged,
) -> None:
    """Send each fact after `after` as one JSON object, oldest first, for ever.

    Args:
        journal: read from.
        after: the offset before the first fact.
        kinds: which kinds of facts; all if empty.
        subject: whose facts; everybody's if empty.
        send: returns once the message is written.
        patience_s: how long `send` may take.
        shown: returns each fact as the reader may see it.

    Raises:
        Busy: `send` took longer than `patience_s`.
    """
    facts = journal.follow(after, kinds, subject)
    at_once = 0
    async with aclosing(cast("Any", facts)):
        async for fact in facts:
            sent = send(_json_of(shown(fact)))
            at_once += 1
            if not isinstance(sent, asyncio.Future) or not sent.done() or at_once >= _AT_ONCE:
                at_once = 0
                try:
                    async with asyncio.timeout(patience_s):
                        await asyncio.sleep(0)
                        await sent
                except TimeoutError as error:
                    raise Busy(
                        f"The reader did not take an event within {patience_s:g} s.",
                        hint=f"Connect again with after={after}.",
                        after=after,
                    ) from error
            after = fact.offset


class _Encoded:
    """The newest facts as JSON, so that each is encoded once however many readers it has."""

    def __init__(self, most_bytes: int = 8 * 1024 * 1024) -> None:
        self._most_bytes = most_bytes
        self._messages: dict[FactId, tuple[Fact, bytes]] = {}
        self._bytes = 0

    def __call__(self, fact: Fact) -> bytes:
        """Return a fact as one JSON object."""
        earlier = self._messages.get(fact.id)
        if earlier is not None and earlier[0] is fact:  # as one reader may see it, or of a test
            return earlier[1]
        message = to_json(fact)
        if earlier is None and len(message) <= self._most_bytes // 64:
            self._messages[fact.id] = fact, message
            self._bytes += len(message)
            while self._bytes > self._most_bytes:
                _, dropped = self._messages.pop(next(iter(self._messages)))
                self._bytes -= len(dropped)
        return message


_json_of = _Encoded()
