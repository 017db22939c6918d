"""The mutation log of live documents: one Valkey stream per document of `dev`.

An update is acknowledged when its append has returned. Each append compares the epoch of the
repository's owner first: once a newer owner has raised it, nobody else's is carried out, however
long they slept. A snapshot row in PostgreSQL names the last
entry that the snapshot contains; entries are trimmed only after that row is committed.

    log = DocumentLog(valkey)
    await log.raise_epoch("study", 7)
    (position,) = await log.append("study", [LogEntry(document, update, cause="room")])
    async for position, update in log.read("study", document, after="0-0"): ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import redis.exceptions

from angelos.adapters.stores.pipeline import Script, StoreError, Word
from angelos.adapters.stores.streams import Client
from angelos.core.errors import Fenced, Unavailable
from angelos.core.ids import START, Offset, offset_key

_PAGE = 1_000


class LogEntry(msgspec.Struct, frozen=True):
    """An update of one document and its cause: "room", "disk", or a transaction's id."""

    document: str
    update: bytes
    cause: str


# KEYS: owner. ARGV: epoch. Returns whether no higher one was there.
_RAISE = Script("""
local highest = tonumber(redis.call('GET', KEYS[1]) or '0')
if highest > tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1])
return 1
""")
# KEYS: owner, then a stream for each entry. ARGV: epoch, then update and cause of each.
_APPEND = Script("""
local highest = redis.call('GET', KEYS[1]) or '0'
if highest ~= ARGV[1] then return redis.error_reply('FENCED ' .. highest) end
local positions = {}
for n = 2, #KEYS do
  positions[n - 1] = redis.call('XADD', KEYS[n], '*', 'u', ARGV[2 * n - 2], 'c', ARGV[2 * n - 1])
end
return positions
""")
# KEYS: owner, stream. ARGV: epoch, `any` to delete entries too. Returns whether it is gone.
_DROP = Script("""
local highest = redis.call('GET', KEYS[1]) or '0'
if highest ~= ARGV[1] then return redis.error_reply('FENCED ' .. highest) end
if ARGV[2] ~= 'any' and redis.call('XLEN', KEYS[2]) > 0 then return 0 end
return redis.call('DEL', KEYS[2])
""")
# KEYS: owner, stream. ARGV: epoch, the first position that stays. Returns how many are gone.
_TRIM = Script("""
local highest = redis.call('GET', KEYS[1]) or '0'
if highest ~= ARGV[1] then return redis.error_reply('FENCED ' .. highest) end
return redis.call('XTRIM', KEYS[2], 'MINID', '=', ARGV[2])
""")


class DocumentLog:
    """Append, replay and trim."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._epochs: dict[str, int] = {}
        self.fenced = asyncio.Event()
        """Is set when a newer owner is met."""

    async def raise_epoch(self, repo: str, epoch: int) -> None:
        """Fence all earlier owners of a repository; raise `Fenced` if there is a later one."""
        if not await self._client.writer.run(_RAISE, [_owner(repo)], epoch):
            raise Fenced(f"The log of {repo} has a newer owner.")
        self._epochs[repo] = epoch

    async def is_owned(self, repo: str) -> bool:
        """Return whether the log of a repository still has this owner's epoch."""
        value: bytes | None = await self._client.reader.call("GET", _owner(repo))
        return int(value or 0) == self._epochs.get(repo)

    def leave(self, repo: str) -> None:
        """Append nothing to a repository any more."""
        self._epochs.pop(repo, None)

    async def append(self, repo: str, entries: Sequence[LogEntry]) -> list[Offset]:
        """Append to the documents' logs, all entries or none, and return their positions.

        Raises:
            Fenced: the repository has another owner; nothing was appended.
            Unavailable: the log does not answer. The entries may be there all the same.
        """
        keys = [_key(repo, entry.document) for entry in entries]
        words = [word for entry in entries for word in (entry.update, entry.cause)]
        positions: list[bytes] = await self._run(_APPEND, repo, keys, words)
        return [Offset(position.decode()) for position in positions]

    async def _run(
        self, script: Script, repo: str, keys: Sequence[str], words: Sequence[Word]
    ) -> Any:
        epoch = self._epochs.get(repo)
        if epoch is None:
            raise Fenced(f"{repo} is another server's; nothing was written.")
        try:
            return await self._client.writer.run(script, [_owner(repo), *keys], epoch, *words)
        except StoreError as error:
            if error.code != "FENCED":
                raise
            self.fenced.set()
            raise Fenced(
                f"{repo} has a newer owner: epoch {error.rest}, not {epoch}; nothing was written."
            ) from error

    async def drop(self, repo: str, document: str, *, entries: bool) -> bool:
        """Delete a document's stream; one that has entries only if those may go too.

        Returns:
            Whether it was there and is gone.

        Raises:
            Fenced: the repository has another owner.
            Unavailable: the log does not answer.
        """
        words = ["any" if entries else "empty"]
        return bool(await self._run(_DROP, repo, [_key(repo, document)], words))

    async def count_after(self, repo: str, document: str, after: Offset) -> int:
        """Return how many entries a document's log has after a position."""
        count = 0
        async for _ in self.read(repo, document, after):
            count += 1
        return count

    async def lengths(self, repo: str) -> dict[str, int]:
        """Return document -> how many entries its stream has, of all streams of a repository."""
        start = _key(repo, "")
        lengths: dict[str, int] = {}
        async with _available():
            async for key in self._client.scan_iter(match=_pattern(repo), count=_PAGE):
                name = cast("bytes", key).decode()
                if name.startswith(start):
                    lengths[name.removeprefix(start)] = await self._client.xlen(name)
        return lengths

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
        """Remove the entries up to and including `upto`; a committed snapshot must contain them.

        Raises:
            Fenced: the repository has another owner, who may have begun the stream anew.
            Unavailable: the log does not answer.
        """
        if upto == START:
            return
        ms, seq = offset_key(upto)
        await self._run(_TRIM, repo, [_key(repo, document)], [f"{ms}-{seq + 1}"])


def _owner(repo: str) -> str:
    return f"angelgit-owner:{{{repo}}}"


def _pattern(repo: str) -> str:
    return _key(repo, "*")  # a repository's name has none of the pattern's own characters


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
