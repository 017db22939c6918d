"""Blobs: content that is no document, by its hash, in pieces of 1 MiB.

blob = await blobs.put(pieces)
async for piece in blobs.read(blob.sha256): ...
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from angelos.angelgit.storage.store import Stores
from angelos.core.errors import NotFound, Tampered, TooLarge
from angelos.core.repository import BlobRef

_PIECE = 1024 * 1024


class BlobStore:
    """Puts and reads blobs; what is held in memory does not grow with them."""

    def __init__(self, stores: Stores, max_bytes: int) -> None:
        self._stores = stores
        self._max_bytes = max_bytes

    async def put(self, content: AsyncIterator[bytes]) -> BlobRef:
        """Store content; storing it again is no change.

        Raises:
            TooLarge: there is more than the configured limit; nothing is stored.
        """
        # It is stored under its hash, which is known at its end.
        with await asyncio.to_thread(tempfile.TemporaryFile) as spool:
            digest, size = hashlib.sha256(), 0
            async for piece in content:
                size += len(piece)
                if size > self._max_bytes:
                    raise TooLarge(f"A blob has at most {self._max_bytes} bytes.")
                digest.update(piece)
                await asyncio.to_thread(spool.write, piece)
            await self._store(spool, digest.hexdigest(), size)
        return BlobRef(sha256=digest.hexdigest(), size=size)

    async def _store(self, spool: IO[bytes], digest: str, size: int) -> None:
        await asyncio.to_thread(spool.seek, 0)
        async with self._stores.begin() as store:
            await store.add_blob(digest, size)
            number = 0
            while piece := await asyncio.to_thread(spool.read, _PIECE):
                await store.add_blob_piece(digest, number, piece)
                number += 1

    async def read(self, sha256: str) -> AsyncIterator[bytes]:
        """Yield a blob in pieces.

        Raises:
            NotFound: there is no such blob.
            Tampered: at the end: what was read is not what the hash names.
        """
        digest = hashlib.sha256()
        async with self._stores.begin() as store:
            if sha256 not in await store.blob_sizes([sha256]):
                raise NotFound(f"There is no blob {sha256[:12]}.")
            async for piece in store.blob_pieces(sha256):
                digest.update(piece)
                yield piece
        if digest.hexdigest() != sha256:
            raise Tampered(f"The stored blob {sha256[:12]} was changed.")
