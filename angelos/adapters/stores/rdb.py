"""A copy of everything in Valkey or Redis at one moment, taken as a replica would take it.

    async with paused_writes(client) as moment:
        ...                                   # nothing is written to Valkey here
        async with snapshot(client) as copy:  # the server has forked: the moment is fixed
            await moment.end()
            await copy.save(path)             # an RDB file

Works on every server that lets its user replicate (PSYNC), the embedded one too; nothing is
installed for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import hiredis

from angelos.adapters.stores.pipeline import StoreError
from angelos.adapters.stores.streams import Client
from angelos.core.errors import Unavailable

PAUSE_S = 5.0
"""Writes wait at most this long; the server lets them go by itself, whatever becomes of us."""
_FORK_S = 3.0
_ANSWER_S = 120.0
_PIECE = 1 << 20
_LONGEST_LINE = 4_096


class Moment:
    """A time during which the server takes no writes."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._begun = time.monotonic()
        self._ended = False

    @property
    def holds(self) -> bool:
        """Whether writes certainly still wait."""
        return not self._ended and time.monotonic() - self._begun < PAUSE_S - 0.5

    async def end(self) -> None:
        """Let writes go on. Idempotent."""
        if not self._ended:
            self._ended = True
            await self._client.reader.call("CLIENT", "UNPAUSE")


@asynccontextmanager
async def paused_writes(client: Client) -> AsyncIterator[Moment]:
    """Have the server keep all writes waiting inside; raise `Unavailable` if it refuses."""
    moment = Moment(client)
    try:
        await client.reader.call("CLIENT", "PAUSE", int(PAUSE_S * 1000), "WRITE")
    except StoreError as error:
        raise Unavailable(f"Valkey does not let its writers wait: {error}.") from error
    try:
        yield moment
    finally:
        with contextlib.suppress(Unavailable, StoreError):  # it ends by itself
            await moment.end()


async def is_saving(client: Client) -> bool:
    """Return whether the server writes a copy of itself just now."""
    text: bytes = await client.reader.call("INFO", "persistence")
    busy = (b"rdb_bgsave_in_progress:1", b"aof_rewrite_in_progress:1", b"loading:1")
    return any(word in text.split() for word in busy)


class RdbCopy:
    """A copy under way."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def save(self, path: Path) -> int:
        """Write the copy into a new file and return its size; raise `Unavailable`."""
        try:
            size = await self._size()
            with path.open("xb") as file:
                os.fchmod(file.fileno(), 0o600)
                left = size
                while left:
                    async with asyncio.timeout(_ANSWER_S):
                        piece = await self._reader.read(min(left, _PIECE))
                    if not piece:
                        raise Unavailable("Valkey closed the connection within its copy.")
                    file.write(piece)
                    left -= len(piece)
        except TimeoutError as error:
            raise Unavailable(f"Valkey sent nothing for {_ANSWER_S:g} s.") from error
        return size

    async def _size(self) -> int:
        """Return the size that the server announces: `$<bytes>`, after line feeds."""
        async with asyncio.timeout(_ANSWER_S):
            line = await _line(self._reader)
        if not line.startswith(b"$") or not line[1:].isdigit():
            raise Unavailable(f"Valkey does not send a copy: {line[:200].decode(errors='replace')}")
        return int(line[1:])


@asynccontextmanager
async def snapshot(client: Client) -> AsyncIterator[RdbCopy]:
    """Yield a copy of the server's data of this moment.

    Raises:
        Unavailable: The server refuses, or does not begin at once.
    """
    reader, writer = await _open(client)
    try:
        try:
            async with asyncio.timeout(_FORK_S):
                await _ask(reader, writer, "PSYNC", "?", "-1", expected=b"+FULLRESYNC")
        except TimeoutError as error:
            raise Unavailable(
                "Valkey does not begin a copy of itself: it may be writing another one."
            ) from error
        yield RdbCopy(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _open(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    template: Any = client.connection_pool.make_connection()
    options = client.connection_pool.connection_kwargs
    try:
        if path := getattr(template, "path", ""):
            reader, writer = await asyncio.open_unix_connection(path)
        else:
            tls = getattr(template, "ssl_context", None)
            reader, writer = await asyncio.open_connection(
                template.host, template.port, ssl=tls.get() if tls else None
            )
    except OSError as error:
        raise Unavailable(f"Valkey cannot be reached: {error}") from error
    try:
        if password := options.get("password"):
            user = [options["username"]] if options.get("username") else []
            await _ask(reader, writer, "AUTH", *user, password, expected=b"+OK")
    except BaseException:
        writer.close()
        raise
    return reader, writer


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *words: str, expected: bytes
) -> None:
    writer.write(hiredis.pack_command(cast("Any", words)))
    line = await _line(reader)
    if not line.startswith(expected):
        answer = line[:200].decode(errors="replace") or "it closed the connection"
        raise Unavailable(f"Valkey refuses {words[0]}: {answer}")


async def _line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line that is not empty; those only say that the server is alive."""
    while True:
        line = await reader.readline()
        if line.strip() or not line:
            return line.strip()[:_LONGEST_LINE]
