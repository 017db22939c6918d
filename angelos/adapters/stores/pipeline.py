"""A connection to Valkey on which many callers' commands are under way at once.

redis-py awaits each answer before it sends the next command and spends 60 us of Python on each.
Here commands are packed and answers parsed in C (hiredis), and while some are under way, what one
turn of the event loop sends leaves in one write.

    pipeline = CommandPipeline(connect("unix:///run/valkey.sock"))
    await pipeline.call("XADD", "log", "*", "b", b"...")
    await pipeline.run(Script("return redis.call('XLEN', KEYS[1])"), ["log"])
    await pipeline.close()

A lost connection fails what is under way with `Unavailable`: it may or may not have been carried
out, so callers send only what may be sent twice. The next call connects again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio import ConnectionPool

from angelos.core.errors import Unavailable

log = logging.getLogger(__name__)
Word = str | bytes | int | float
TIMEOUT_S = 10.0
_REFUSALS = frozenset(
    [
        "ACL",
        "CLUSTERDOWN",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOAUTH",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGPASS",
    ]
)
"""Error codes of a server that runs and refuses: a full disk, no memory, no right.

The first word of an error is its code, the rest is prose (Valkey, "Redis serialization protocol
specification", simple errors). A right that a script's user lacks comes as `ERR ACL failure`.
"""
_UNAUTHENTICATED = "ERR Protocol error: unauthenticated"
"""What takes the place of NOAUTH for a command of more than 10 words, or of a long one."""
_NO_REPLICAS = "NOREPLICAS"
"""Our own way to stop writes while the disk is nearly full (adapters/host/aof.py)."""


class StoreError(Exception):
    """The server answered with an error that is no refusal: `code` is its first word."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        words = text.split(maxsplit=1)
        self.code = words[0] if words else ""
        self.rest = words[1] if len(words) > 1 else ""


class Script:
    """A Lua script, sent once to each server and named by its hash afterwards."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


class CommandPipeline:
    """One connection, made when it is first used.

    Args:
        pool: Of redis-py: it has the address, the password, the database and TLS.
        on_message: Takes what the server sends unasked (publish and subscribe).
        on_lost: Called when the connection is lost.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        on_message: Callable[[list[Any]], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._pool = pool
        self._on_message = on_message
        self._on_lost = on_lost
        self._line: _Line | None = None
        self._connecting = asyncio.Lock()
        self._closed = False

    async def call(self, *words: Word, patience_s: float = TIMEOUT_S) -> Any:
        """Return the answer to a command.

        Raises:
            Unavailable: There is no answer in time, or the server refuses to write.
            StoreError: Another error of the server.
        """
        line = self._line
        if line is None or line.lost:
            line = await self._connect()
        return await line.send(words, patience_s)

    async def together(self, *commands: Sequence[Word]) -> list[Any]:
        """Return the answers to commands that follow each other; the errors are those of `call`.

        Other connections' commands may come in between.
        """
        line = self._line
        if line is None or line.lost:
            line = await self._connect()
        return await line.send_all(commands, TIMEOUT_S)

    async def tell(self, *words: Word) -> None:
        """Send a command whose answer comes as a message; raise `Unavailable`."""
        (await self._connect()).tell(words)

    async def run(self, script: Script, keys: Sequence[Word], *args: Word) -> Any:
        """Return what a script returns; the errors are those of `call`."""
        try:
            return await self.call("EVALSHA", script.sha, len(keys), *keys, *args)
        except StoreError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *args)

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._closed = True
        line, self._line = self._line, None
        if line is not None:
            line.cut("It was closed.")
            await line.ended

    async def _connect(self) -> _Line:
        async with self._connecting:
            if self._closed:
                raise Unavailable("The connection to Valkey was closed.")
            if self._line is None or self._line.lost:
                self._line = None
                try:
                    async with asyncio.timeout(TIMEOUT_S):
                        self._line = await _open(self._pool, self._on_message, self._on_lost)
                except (OSError, TimeoutError) as error:
                    reason = str(error) or f"not within {TIMEOUT_S:g} s"
                    raise _away(f"{_address(self._pool)}: {reason}") from error
            return self._line


def _address(pool: ConnectionPool) -> str:
    options = pool.connection_kwargs
    return str(options.get("path") or f"{options.get('host')}:{options.get('port')}")


async def _open(
    pool: ConnectionPool,
    on_message: Callable[[list[Any]], None] | None,
    on_lost: Callable[[], None] | None,
) -> _Line:
    loop = asyncio.get_running_loop()
    template: Any = pool.make_connection()

    def protocol() -> _Line:
        return _Line(on_message, on_lost)

    if path := getattr(template, "path", ""):
        _, line = await loop.create_unix_connection(protocol, path)
    else:
        tls = getattr(template, "ssl_context", None)
        _, line = await loop.create_connection(
            protocol, template.host, template.port, ssl=tls.get() if tls else None
        )
    try:
        await _greet(line, pool.connection_kwargs)
    except StoreError as error:
        line.cut(str(error))
        raise _away(str(error)) from error
    except BaseException:
        line.cut("The greeting failed.")
        raise
    return line


async def _greet(line: _Line, options: dict[str, Any]) -> None:
    if password := options.get("password"):
        user = [options["username"]] if options.get("username") else []
        await line.send(("AUTH", *user, password), TIMEOUT_S)
    if database := options.get("db"):
        await line.send(("SELECT", database), TIMEOUT_S)


class _Line(asyncio.Protocol):
    """One life of a connection."""

    def __init__(
        self,
        on_message: Callable[[list[Any]], None] | None,
        on_lost: Callable[[], None] | None,
    ) -> None:
        self.lost = False
        self.ended = asyncio.get_running_loop().create_future()
        self._on_message = on_message
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._pending: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Event()
        self._room.set()

    async def send(self, words: Sequence[Word], patience_s: float) -> Any:
        """Send one command and return its answer."""
        if not self._room.is_set():
            await self._room.wait()
        return await self._send(words, patience_s)

    async def send_all(self, commands: Sequence[Sequence[Word]], patience_s: float) -> list[Any]:
        """Send commands one after the other and return their answers."""
        if not self._room.is_set():
            await self._room.wait()
        answers = [self._send(words, patience_s) for words in commands]
        try:
            return [await answer for answer in answers]
        except BaseException:
            for answer in answers:  # nobody asks for the others any more
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()
            raise

    def _send(self, words: Sequence[Word], patience_s: float) -> asyncio.Future[Any]:
        if self.lost:
            raise _away("the connection was lost")
        answer: asyncio.Future[Any] = self._loop.create_future()
        idle = not self._waiting
        if not self._pending and not idle:
            self._loop.call_soon(self._flush)
        self._pending.append(hiredis.pack_command(cast("Any", tuple(words))))
        self._waiting.append((answer, self._loop.time() + patience_s))
        if idle:  # nothing is under way, with which it could share a write
            self._flush()
        if self._watch is None:
            self._watch = self._loop.call_later(patience_s, self._look)
        return answer

    def tell(self, words: Sequence[Word]) -> None:
        """Send one command that has no answer of its own."""
        if not self._pending:
            self._loop.call_soon(self._flush)
        self._pending.append(hiredis.pack_command(cast("Any", tuple(words))))

    def cut(self, reason: str) -> None:
        """Close it at once; what is under way fails."""
        self._fail(reason)
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        self._transport = transport

    def pause_writing(self) -> None:
        """Hold callers back while the server does not read."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Let them go on."""
        self._room.set()

    def data_received(self, data: bytes) -> None:
        """Hand each answer to its caller."""
        self._reader.feed(data)
        try:
            while (answer := self._reader.gets()) is not False:
                if self._on_message is not None and _is_push(answer):
                    self._on_message(answer)
                else:
                    self._answer(answer)
        except (hiredis.ProtocolError, IndexError) as error:
            self.cut(f"it does not speak RESP: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what is under way."""
        self._fail(str(exc or "the connection was closed"))
        if not self.ended.done():
            self.ended.set_result(None)

    def _answer(self, answer: Any) -> None:
        future, _ = self._waiting.popleft()
        if future.done():  # its caller was cancelled
            return
        if isinstance(answer, hiredis.ReplyError):
            future.set_exception(_error(str(answer)))
        else:
            future.set_result(answer)

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and self._transport is not None and not self.lost:
            self._transport.write(b"".join(pending))

    def _look(self) -> None:
        """Cut the connection if the oldest command has waited too long."""
        self._watch = None
        while self._waiting and self._waiting[0][0].cancelled() and self.lost:
            self._waiting.popleft()
        if not self._waiting or self.lost:
            return
        rest = self._waiting[0][1] - self._loop.time()
        if rest <= 0:
            self.cut(f"no answer within {TIMEOUT_S:g} s")
        else:
            self._watch = self._loop.call_later(rest, self._look)

    def _fail(self, reason: str) -> None:
        if self.lost:
            return
        self.lost = True
        self._room.set()
        if self._watch is not None:
            self._watch.cancel()
        for future, _ in self._waiting:
            if not future.done():
                future.set_exception(_away(reason))
        self._waiting.clear()
        if self._on_lost is not None:
            self._on_lost()


def _is_push(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and answer[0] in (b"message", b"subscribe")


def _error(text: str) -> Exception:
    """Return the error of the server as ours: a refusal, or a mistake of the caller."""
    error = StoreError(text)
    code = error.rest.partition(" ")[0] if error.code == "ERR" else error.code
    unauthenticated = text.startswith(_UNAUTHENTICATED)
    if code not in _REFUSALS and not unauthenticated:
        return error
    reason = "its disk is nearly full" if code == _NO_REPLICAS else text
    if unauthenticated:
        reason = f"authentication is required ({text})"
    return Unavailable(
        f"Valkey refuses the write: {reason}",
        hint="Its disk or memory may be full, or its user may lack a right.",
    )


def _away(reason: str) -> Unavailable:
    return Unavailable(f"Valkey did not answer: {reason.rstrip('.')}.", hint="It may be starting.")
