r"""Contents and directory objects by their hashes, each stored as its difference to another.

A version of a file differs little from the one before, and so does a directory object. So each is
compressed with its predecessor as zstd's dictionary ("patch from"), in chains of bounded length,
and every object that is read is checked against its hash.

    objects = Objects(queries, ObjectCache())
    await objects.add([NewObject(new_hash, content, base=old_hash)])
    await objects.load([new_hash])
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import zstandard

from angelos.angelgit.storage.models import sha256
from angelos.angelgit.storage.sql import NamedQueries
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Tampered
from angelos.core.revision_v2 import directory_hash

_MAX_DEPTH = 32
"""How many differences are applied at most to read an object."""
_SMALL = 64_000
_CACHE_BYTES = 64_000_000


class NewObject(NamedTuple):
    """An object to be stored."""

    hash: str
    body: bytes
    base: str | None = None
    """Hash of an object of the same kind that is like it."""
    directory: bool = False


class StoredObject(NamedTuple):
    """A row of the table."""

    hash: str
    directory: bool
    size: int
    base: str | None
    depth: int
    body: bytes


class ObjectCache:
    """Objects that were read or written lately; each was verified when it came in."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._bodies: OrderedDict[str, bytes] = OrderedDict()
        self._depths: dict[str, int] = {}
        self._max_bytes = max_bytes
        self._bytes = 0

    def get(self, digest: str) -> bytes | None:
        """Return an object, None if it is not in memory."""
        body = self._bodies.get(digest)
        if body is not None:
            self._bodies.move_to_end(digest)
        return body

    def depth(self, digest: str) -> int | None:
        """Return how many differences lie below an object that is in memory."""
        return self._depths.get(digest)

    def clear(self) -> None:
        """Forget everything."""
        self._bodies.clear()
        self._depths.clear()
        self._bytes = 0

    def put(self, digest: str, body: bytes, depth: int) -> None:
        """Keep an object, and forget those that were not used for the longest time."""
        if digest in self._bodies:
            return
        self._bodies[digest] = body
        self._depths[digest] = depth
        self._bytes += len(body)
        while self._bytes > self._max_bytes:
            oldest, forgotten = self._bodies.popitem(last=False)
            del self._depths[oldest]
            self._bytes -= len(forgotten)


class Objects:
    """The objects of all repositories, on one connection."""

    def __init__(self, queries: NamedQueries, cache: ObjectCache) -> None:
        self._sql = queries
        self._cache = cache
        self._added: dict[str, tuple[bytes, int]] = {}
        """What this transaction stored: content and depth. It may be rolled back."""

    async def load(self, hashes: Collection[str]) -> dict[str, bytes]:
        """Return objects by hash; raise `Tampered` if one is missing or not what it should be."""
        cached = {digest: self._get(digest) for digest in hashes}
        present = {digest: body for digest, body in cached.items() if body is not None}
        missing = [digest for digest in cached if digest not in present]
        if missing:
            keys = [bytes.fromhex(digest) for digest in missing]
            rows = [_row(row) for row in await self._sql.all("objects", hashes=keys)]
            size = sum(row.size for row in rows)
            bodies = await in_thread(size, _decode, rows, dict(present))
            for row in rows:
                self._cache.put(row.hash, bodies[row.hash], row.depth)
            present |= {digest: bodies[digest] for digest in missing if digest in bodies}
        if absent := set(hashes) - present.keys():
            raise Tampered(f"The object {min(absent)[:12]} is missing from the store.")
        return present

    async def present(self, hashes: Collection[str]) -> set[str]:
        """Return those of the hashes whose objects are stored.

        What is in memory may have been collected meanwhile, at another server too.
        """
        present = set(hashes) & self._added.keys()
        keys = [bytes.fromhex(digest) for digest in set(hashes) - present]
        rows = await self._sql.all("known_objects", hashes=keys) if keys else []
        return present | {row[0].hex() for row in rows}

    async def add(self, new: Iterable[NewObject]) -> None:
        """Store objects; those that are stored already are skipped."""
        fresh = {item.hash: item for item in new if item.hash not in self._added}
        if not fresh:
            return
        keys = [bytes.fromhex(digest) for digest in fresh]
        for row in await self._sql.all("known_objects", hashes=keys):
            del fresh[row[0].hex()]
        like = await self.present({item.base for item in fresh.values() if item.base})
        bases = await self._bases(like)
        size = sum(len(item.body) for item in fresh.values())
        rows = await in_thread(size, _encode, list(fresh.values()), bases)
        if rows:
            await self._sql.many("add_object", [_params(row) for row in rows])
        self._added |= {row.hash: (fresh[row.hash].body, row.depth) for row in rows}

    def committed(self) -> None:
        """Remember what was stored, now that it is."""
        for digest, (body, depth) in self._added.items():
            self._cache.put(digest, body, depth)
        self._added = {}

    def _get(self, digest: str) -> bytes | None:
        added = self._added.get(digest)
        return self._cache.get(digest) if added is None else added[0]

    def _depth(self, digest: str) -> int | None:
        added = self._added.get(digest)
        return self._cache.depth(digest) if added is None else added[1]

    async def _bases(self, hashes: set[str]) -> dict[str, tuple[bytes, int]]:
        """Return contents and depths of objects that others may be compressed with."""
        bodies = await self.load(hashes) if hashes else {}
        depths = {digest: self._depth(digest) for digest in bodies}
        return {
            digest: (body, depth)
            for digest, body in bodies.items()
            if (depth := depths[digest]) is not None and depth < _MAX_DEPTH
        }


def _encode(new: Sequence[NewObject], bases: Mapping[str, tuple[bytes, int]]) -> list[StoredObject]:
    return [_encoded(item, *bases.get(item.base or "", (b"", -1))) for item in new]


def _encoded(item: NewObject, base: bytes, depth: int) -> StoredObject:
    size = len(item.body)
    level = 9 if size < _SMALL else 3
    plain = zstandard.ZstdCompressor(level).compress(item.body)
    if base:
        window = max(10, (len(base) + size).bit_length())
        parameters = zstandard.ZstdCompressionParameters.from_level(
            level, window_log=window, source_size=size, dict_size=len(base)
        )
        compressor = zstandard.ZstdCompressor(
            dict_data=_dictionary(base), compression_params=parameters
        )
        changed = compressor.compress(item.body)
        if len(changed) < len(plain) * 3 // 4:
            return StoredObject(item.hash, item.directory, size, item.base, depth + 1, changed)
    return StoredObject(item.hash, item.directory, size, None, 0, plain)


def _decode(rows: Sequence[StoredObject], bodies: dict[str, bytes]) -> dict[str, bytes]:
    """Return the objects of rows, bases first; raise `Tampered` for a wrong one."""
    for row in sorted(rows, key=lambda row: row.depth):
        try:
            data = _dictionary(bodies[row.base]) if row.base else None
            body = zstandard.ZstdDecompressor(dict_data=data).decompress(row.body)
        except (KeyError, zstandard.ZstdError) as error:
            raise Tampered(f"The stored object {row.hash[:12]} cannot be read.") from error
        digest = directory_hash(body) if row.directory else sha256(body)
        if digest != row.hash:
            raise Tampered(f"The stored object {row.hash[:12]} was changed.")
        bodies[row.hash] = body
    return bodies


def _dictionary(content: bytes) -> zstandard.ZstdCompressionDict:
    return zstandard.ZstdCompressionDict(content, dict_type=zstandard.DICT_TYPE_RAWCONTENT)


def _row(row: tuple[bytes, bool, int, bytes | None, int, bytes]) -> StoredObject:
    digest, directory, size, base, depth, body = row
    return StoredObject(digest.hex(), directory, size, base.hex() if base else None, depth, body)


def _params(row: StoredObject) -> tuple[object, ...]:
    base = bytes.fromhex(row.base) if row.base else None
    return bytes.fromhex(row.hash), row.directory, row.size, base, row.depth, row.body
