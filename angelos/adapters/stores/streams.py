"""What the journal and the queues share: a Valkey stream, and patience with its server.

    stream = Stream(connect(url), "journal")
    async with aclosing(stream.follow("0-0")) as pages:
        async for page in pages:    # [(position, body), ...], through restarts of the server
            ...

What cannot be reached is `Unavailable`, after `TIMEOUT_S` at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Gone
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as Late

from angelos.core.errors import Busy, Conflict, InvalidInput, Unavailable
from angelos.core.ids import PrincipalId
from angelos.core.messages import Fact

log = logging.getLogger(__name__)
T = TypeVar("T")

Client = redis.asyncio.Redis
PAGE = 500
TIMEOUT_S = 10.0
_BLOCK_MS = 5_000
_REFUSALS = (NoPermissionError, OutOfMemoryError, ReadOnlyError)
_NOT_NOW = (
    "ACL failure", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY",
    "TRYAGAIN",
)  # fmt: skip
"""Answers of a server that is there and does not take it: a full disk, no memory, no right."""
_OLDEST = 7
_BACKOFF_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


def connect(url: str) -> Client:
    """Return a client for `redis://`, `rediss://` or `unix://`; it connects on first use.

    Commands are not repeated by themselves: who sends a command that may be sent twice repeats
    it. Close it with `await client.aclose()`. Raises `InvalidInput` for another kind of URL.
    """
    try:
        client = Client.from_url(
            url,
            protocol=2,
            # With a timeout redis-py sends through asyncio.wait_for, which before Python 3.12 may
            # swallow a cancellation; a follower then never ends. Ours are asyncio.timeout, below.
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_S,
            max_connections=1_000,
            retry=Retry(NoBackoff(), 0),
        )
        client.connection_pool.make_connection()  # an option that does not exist shows only here
    except (ValueError, TypeError):
        raise InvalidInput(  # without its text, which may hold a password
            "The URL of Valkey cannot be read.",
            hint="Write ANGELOS_VALKEY_URL as redis://host:6379/0 or unix:///path/of.sock.",
        ) from None
    return client


async def check_server(client: Client) -> None:
    """Raise `Conflict` unless the server keeps what it acknowledges, as the journal promises."""
    async with unavailable():
        info: dict[str, Any] = await client.info()
    version = str(info.get("redis_version", "0"))
    if int(version.partition(".")[0]) < _OLDEST:
        raise Conflict(f"This is Redis {version}; Valkey or Redis {_OLDEST} or newer is needed.")
    if not info.get("aof_enabled"):
        raise Conflict(
            "Valkey has no append-only file: it would forget what it has acknowledged.",
            hint="Set `appendonly yes` there (CONFIG SET appendonly yes).",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise Conflict(
            f"Valkey throws entries away when its memory is full (maxmemory-policy {policy}).",
            hint="Set `maxmemory-policy noeviction` there.",
        )


class Stream:
    """A stream with the ids that were put into it."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        # The braces keep the three keys in one slot of a cluster.
        self.key = f"{{{name}}}"
        self.keys = [self.key, f"{{{name}}}:ids", f"{{{name}}}:ids:old"]

    async def after(self, position: str, count: int) -> list[tuple[str, bytes]]:
        """Return at most `count` entries after `position`."""
        return _entries(await self.ask("XRANGE", f"({position}", "+", "COUNT", count))

    async def wait(self, reader: Client, position: str) -> list[tuple[str, bytes]]:
        """Return entries after `position` as soon as there are some; none after a while."""
        async with asyncio.timeout(_BLOCK_MS / 1_000 + TIMEOUT_S):
            answer = await reader.execute_command(
                "XREAD", "COUNT", PAGE, "BLOCK", _BLOCK_MS, "STREAMS", self.key, position
            )
        return _entries(answer[0][1]) if answer else []

    async def ask(self, command: str, *args: str | int) -> Any:
        """Return the answer to `command` about this stream; raise `Unavailable`."""
        async with unavailable():
            return await self.client.execute_command(command, self.key, *args)

    async def follow(self, position: str) -> AsyncGenerator[list[tuple[str, bytes]], None]:
        """Yield pages after `position` for ever, through restarts of the server."""
        tries = 0
        reader = self.client.client()
        try:
            while True:
                try:
                    page = await self.wait(reader, position)
                except (Gone, Late, TimeoutError) as error:
                    if tries == 0:
                        log.warning("reading %s: %s; trying again", self.key, error)
                    await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
                    tries += 1
                    await _close(reader)
                    reader = self.client.client()
                    continue
                tries = 0
                if page:
                    position = page[-1][0]
                    yield page
        finally:
            await _close(reader)


def _entries(rows: Any) -> list[tuple[str, bytes]]:
    return [(position.decode(), fields[b"b"]) for position, fields in rows]


async def _close(reader: Client) -> None:
    with contextlib.suppress(RedisError, OSError):
        await reader.aclose()


async def patiently(ask: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Return the answer of `ask`, however long the store is away."""
    tries = 0
    while True:
        try:
            return await ask(*args)
        except Unavailable as error:
            if tries == 0:
                log.warning("%s Trying again.", error)
            await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
            tries += 1


@contextlib.asynccontextmanager
async def unavailable() -> AsyncIterator[None]:
    """Turn "the server is not there" or "not now" in the body into `Unavailable`.

    It takes `TIMEOUT_S` at most.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (Gone, Late, TimeoutError) as error:
        why = str(error).rstrip(".") or f"not within {TIMEOUT_S:g} s"
        raise Unavailable(f"Valkey did not answer: {why}.", hint="It may be starting.") from error
    except ResponseError as error:
        if not isinstance(error, _REFUSALS) and not str(error).startswith(_NOT_NOW):
            raise
        full = str(error).startswith("NOREPLICAS")  # see adapters/host/aof.py
        raise Unavailable(
            f"Valkey does not take it: {'its disk is nearly full' if full else error}".strip(),
            hint="Its disk or memory may be full, or its user may lack a right.",
        ) from error


def matches(fact: Fact, kinds: Collection[str], subject: str) -> bool:
    """Return whether `fact` passes these filters; an empty filter passes all."""
    return (not kinds or fact.kind in kinds) and (not subject or fact.subject == subject)


def busy(to: PrincipalId, capacity: int) -> Busy:
    """Return the error of a full queue."""
    return Busy(
        f"{capacity} commands wait for {to} already; this one was not accepted.",
        hint="Try again when some are done, or cancel some.",
        to=to,
    )
