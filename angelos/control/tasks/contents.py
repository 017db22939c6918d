r"""The files of tasks in PostgreSQL, by their content's hash: the real `core.ports.ContentStore`.

contents = Contents(database, clock)
digest = await contents.put(b"a,b\n1,2\n")
await contents.get(digest)
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection

from angelos.adapters.stores.postgres import Database, load_queries
from angelos.core.errors import Busy, NotFound, Tampered
from angelos.core.ports import Clock

_CLEARED_AT_ONCE = 100
ROOM_BYTES = 4_000_000_000
"""What all contents together may take."""
_Q = load_queries("angelos.control")


class Contents:
    """Contents in a migrated database."""

    def __init__(self, database: Database, clock: Clock, room: int = ROOM_BYTES) -> None:
        """Keep at most `room` bytes in all."""
        self._database = database
        self._clock = clock
        self._room = room

    async def put(self, content: bytes) -> str:
        """Keep a content and return its hash; raise `Busy` where there is no room."""
        digest = (await asyncio.to_thread(hashlib.sha256, content)).digest()
        now = self._clock.time()
        async with self._database.transaction() as conn:
            known = await conn.execute(_Q["use_task_files"], {"hashes": [digest], "now": now})
            if await known.fetchone() is not None:
                return digest.hex()
            await conn.execute(_Q["lock_task_files"])
            row = await (await conn.execute(_Q["task_files_size"])).fetchone()
            if row is None or row[0] + len(content) > self._room:
                raise Busy(
                    f"The files of tasks have {self._room} bytes already; this one was not kept.",
                    hint="Files that no task uses are forgotten after [retention] files_days.",
                )
            values = {"sha256": digest, "size": len(content), "body": content, "now": now}
            await conn.execute(_Q["add_task_file"], values)
        return digest.hex()

    async def get(self, digest: str) -> bytes:
        """Return a content; raise `NotFound`, or `Tampered` where it is not what it was."""
        values = {"sha256": bytes.fromhex(digest), "now": self._clock.time()}
        async with self._database.transaction() as conn:
            row = await (await conn.execute(_Q["task_file"], values)).fetchone()
        if row is None:
            raise NotFound(
                f"The file {digest[:12]} is not kept any more.",
                hint="Files are forgotten some days after their last use; give it again.",
            )
        content = bytes(row[0])
        if (await asyncio.to_thread(hashlib.sha256, content)).hexdigest() != digest:
            raise Tampered(f"The file {digest[:12]} is not what was stored.")
        return content

    async def clear(self, before: float) -> int:
        """Forget some contents that were last used before (Unix seconds); return how many."""
        values = {"oldest": before, "limit": _CLEARED_AT_ONCE}
        async with self._database.transaction() as conn:
            return (await conn.execute(_Q["clear_task_files"], values)).rowcount

    async def has(self, digests: Collection[str]) -> set[str]:
        """Return those of the hashes whose contents are kept."""
        hashes = [bytes.fromhex(digest) for digest in digests]
        values = {"hashes": hashes, "now": self._clock.time()}
        async with self._database.transaction() as conn:
            rows = await (await conn.execute(_Q["use_task_files"], values)).fetchall()
        return {bytes(row[0]).hex() for row in rows}
