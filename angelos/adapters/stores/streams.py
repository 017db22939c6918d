"""What the journal and the queues share: a Valkey stream, and retries while its server is away.

    stream = Stream(connect(url), "journal")
    async with aclosing(stream.follow("0-0")) as pages:
        async for page in pages:    # [(position, body), ...], through restarts of the server
            ...

A server that cannot be reached raises `Unavailable`, after `TIMEOUT_S` at most.
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
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import (
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from angelos.core.errors import Busy, Conflict, InvalidInput, Unavailable
from angelos.core.facts import Fact
from angelos.core.ids import PrincipalId

log = logging.getLogger(__name__)
T = TypeVar("T")

Client = redis.asyncio.Redis
PAGE = 500
TIMEOUT_S = 10.0
_BLOCK_MS = 5_000
_REFUSALS = (NoPermissionError, OutOfMemoryError, ReadOnlyError)
_REFUSAL_CODES = frozenset(
    [
        "ACL",
        "CLUSTERDOWN",
        "MASTERDOWN",
        "MISCONF",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
    ]
)
"""Error codes of a server that runs and refuses the write: a full disk, no memory, no right.

The first word of a RESP error is its code; the rest is prose (Valkey, "Redis serialization
protocol specification", simple errors). `ACL` stands for a right that a script's user lacks:
Valkey sends it as `ERR ACL failure in script`, and redis-py removes `ERR`.
"""
_NO_REPLICAS = "NOREPLICAS"
"""Our own way to stop writes while the disk is nearly full (adapters/host/aof.py)."""
_OLDEST = 7
_BACKOFF_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


def connect(url: str) -> Client:
    """Return a client for `redis://`, `rediss://` or `unix://`; it connects on first use.

    The client does not retry: only the caller knows which commands may be sent twice. Close it
    with `await client.aclose()`. Raises `InvalidInput` for another kind of URL.
    """
    try:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            protocol=2,
            # With a timeout redis-py sends through asyncio.wait_for, which before Python 3.12 may
            # swallow a cancellation, and a follower would never end. `unavailable` below sets
            # the limits with asyncio.timeout instead.
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_S,
            max_connections=1_000,
            timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        client = Client.from_pool(pool)
        pool.make_connection()  # an unknown option fails only here
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
            "Valkey has no append-only file: a restart would lose what it has acknowledged.",
            hint="Set `appendonly yes` there (CONFIG SET appendonly yes).",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory") and policy != "noeviction":
        raise Conflict(
            f"Valkey discards entries when its memory is full (maxmemory-policy {policy}).",
            hint="Set `maxmemory-policy noeviction` there.",
        )


class Stream:
    """A stream and two hashes of the ids that were put into it, for deduplication."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        # The braces keep the three keys in one slot of a cluster.
        self.key = f"{{{name}}}"
        self.keys = [self.key, f"{{{name}}}:ids", f"{{{name}}}:ids:old"]

    async def after(self, position: str, count: int) -> list[tuple[str, bytes]]:
        """Return at most `count` entries after `position`."""
        return _entries(await self.ask("XRANGE", f"({position}", "+", "COUNT", count))

    async def wait(self, reader: Client, position: str) -> list[tuple[str, bytes]]:
        """Return entries after `position` as soon as there are some; an empty list after 5 s."""
        async with asyncio.timeout(_BLOCK_MS / 1_000 + TIMEOUT_S):
            answer = await reader.execute_command(
                "XREAD", "COUNT", PAGE, "BLOCK", _BLOCK_MS, "STREAMS", self.key, position
            )
        return _entries(answer[0][1]) if answer else []

    async def ask(self, command: str, *args: str | int) -> Any:
        """Return the answer to `command` on this stream; raise `Unavailable`."""
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
                except (RedisConnectionError, RedisTimeoutError, TimeoutError) as error:
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
    """Return the answer of `ask`; retry for as long as it raises `Unavailable`."""
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
    """Raise what the body raises as `Unavailable` where the server is away or refuses to write.

    The body has `TIMEOUT_S` at most.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield
    except (RedisConnectionError, RedisTimeoutError, TimeoutError) as error:
        reason = str(error).rstrip(".") or f"not within {TIMEOUT_S:g} s"
        raise Unavailable(
            f"Valkey did not answer: {reason}.", hint="It may be starting."
        ) from error
    except ResponseError as error:
        code = _code(error)
        if not isinstance(error, _REFUSALS) and code not in _REFUSAL_CODES:
            raise
        reason = "its disk is nearly full" if code == _NO_REPLICAS else str(error)
        raise Unavailable(
            f"Valkey refuses the write: {reason}".strip(),
            hint="Its disk or memory may be full, or its user may lack a right.",
        ) from error


def _code(error: ResponseError) -> str:
    """Return the code of a RESP error: redis-py keeps it as the first word of the message."""
    return str(error).partition(" ")[0]


def matches(fact: Fact, kinds: Collection[str], subject: str) -> bool:
    """Return whether `fact` passes these filters; an empty filter passes all."""
    return (not kinds or fact.kind in kinds) and (not subject or fact.subject == subject)


def busy(to: PrincipalId, capacity: int) -> Busy:
    """Return the error of a full queue."""
    return Busy(
        f"{capacity} commands are already waiting for {to}; this one was not accepted.",
        hint="Try again when some have finished, or cancel some.",
        to=to,
    )
