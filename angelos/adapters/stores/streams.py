"""A client of Valkey, and what the journal and the queues of envelopes share on it.

    client = connect("unix:///run/angelos/valkey.sock")
    await check_server(client)
    await client.writer.call("XADD", "log", "*", "b", b"...")     # see pipeline.py
    await client.aclose()

A process holds few connections, however many peers it serves: one that writes, one that reads
pages, one for each kind of waiting (the end of the journal, the bell of the queues), and a small
pool for whoever uses redis-py. A server that cannot be reached raises `Unavailable`, after
`TIMEOUT_S` at most.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from angelos.adapters.stores.pipeline import TIMEOUT_S, CommandPipeline
from angelos.core.errors import Conflict, InvalidInput, Unavailable
from angelos.core.facts import Fact

log = logging.getLogger(__name__)
T = TypeVar("T")

PAGE = 128
"""Entries of the journal that are read at once."""
POOL = 8
"""Connections of redis-py in one process; who finds all in use waits."""
_OLDEST = 7
BACKOFF_S = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0)


class Client(redis.asyncio.Redis):
    """A client of redis-py, with the two pipelined connections of this process."""

    writer: CommandPipeline
    """For commands that change something."""
    reader: CommandPipeline
    """For pages, which may be large and must not stand before a write."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis-py's signature
        """Close every connection."""
        await self.writer.close()
        await self.reader.close()
        await super().aclose(close_connection_pool)


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
            # swallow a cancellation, and a follower would never end.
            socket_timeout=None,
            socket_connect_timeout=TIMEOUT_S,
            max_connections=POOL,
            timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        client = cast("Client", Client.from_pool(pool))
        pool.make_connection()  # an unknown option fails only here
    except (ValueError, TypeError):
        raise InvalidInput(  # without its text, which may hold a password
            "The URL of Valkey cannot be read.",
            hint="Write ANGELOS_VALKEY_URL as redis://host:6379/0 or unix:///path/of.sock.",
        ) from None
    client.writer, client.reader = CommandPipeline(pool), CommandPipeline(pool)
    return client


async def check_server(client: Client) -> None:
    """Raise `Conflict` unless the server keeps what it acknowledges, as the journal promises."""
    text: bytes = await client.writer.call("INFO")
    pairs = (line.partition(":") for line in text.decode().splitlines())
    info = {name: value for name, colon, value in pairs if colon}
    version = info.get("redis_version", "0")
    if int(version.partition(".")[0]) < _OLDEST:
        raise Conflict(f"This is Redis {version}; Valkey or Redis {_OLDEST} or newer is needed.")
    if info.get("aof_enabled", "0") == "0":
        raise Conflict(
            "Valkey has no append-only file: a restart would lose what it has acknowledged.",
            hint="Set `appendonly yes` there (CONFIG SET appendonly yes).",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if info.get("maxmemory", "0") != "0" and policy != "noeviction":
        raise Conflict(
            f"Valkey discards entries when its memory is full (maxmemory-policy {policy}).",
            hint="Set `maxmemory-policy noeviction` there.",
        )


def checksum(*parts: bytes) -> int:
    """Return the CRC-32 of the parts, by which damage on disk is recognised."""
    value = 0
    for part in parts:
        value = zlib.crc32(part, value)
    return value


def fields_of(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the fields of a stream's entry, of which each name stands once."""
    return dict(zip(words[::2], words[1::2], strict=False))


async def patiently(ask: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Return the answer of `ask`; retry for as long as it raises `Unavailable`."""
    tries = 0
    while True:
        try:
            return await ask(*args)
        except Unavailable as error:
            if tries == 0:
                log.warning("%s Trying again.", error)
            await asyncio.sleep(BACKOFF_S[min(tries, len(BACKOFF_S) - 1)])
            tries += 1


def matches(fact: Fact, kinds: Collection[str], subject: str) -> bool:
    """Return whether `fact` passes these filters; an empty filter passes all."""
    return (not kinds or fact.kind in kinds) and (not subject or fact.subject == subject)
