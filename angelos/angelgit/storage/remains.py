"""What deleted cells held, by document, for pages that do not know of the deletion yet.

For example:

    await remains.add("study", document, deleted)      # before the deletion is logged
    for one in await remains.of(document): ...
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import zstandard

from angelos.angelgit.documents.carry import Remains
from angelos.angelgit.storage.models import decode, encode
from angelos.angelgit.storage.sql import NamedQueries
from angelos.angelgit.storage.store import Stores

_CACHED = 256
KEEP = 200
"""How many deleted cells of one document are remembered, the newest."""


class CellRemains:
    """The deleted cells of all documents; the caller holds the document's lock."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._remains: OrderedDict[str, list[Remains]] = OrderedDict()

    async def of(self, document: str) -> list[Remains]:
        """Return the newest of a document's deleted cells, the oldest first."""
        if document not in self._remains:
            async with self._stores.begin() as store:
                sql = NamedQueries(store.connection)
                rows = await sql.all("remains", document=document, limit=KEEP)
            expand = zstandard.ZstdDecompressor().decompress
            self._remains[document] = [decode(expand(row[0]), Remains) for row in reversed(rows)]
            while len(self._remains) > _CACHED:
                self._remains.popitem(last=False)
        self._remains.move_to_end(document)
        return self._remains[document]

    async def add(self, repo: str, document: str, deleted: Iterable[Remains]) -> None:
        """Remember cells that are about to be deleted."""
        deleted = list(deleted)
        if not deleted:
            return
        known = await self.of(document)
        items = {one.item for one in known}
        new = [one for one in deleted if one.item not in items]
        await self.update(repo, document, new)
        known += new
        del known[:-KEEP]

    def forget(self, document: str) -> None:
        """Forget the cells of a document that another server has now."""
        self._remains.pop(document, None)

    async def update(self, repo: str, document: str, changed: Iterable[Remains]) -> None:
        """Store what was typed into deleted cells."""
        compress = zstandard.ZstdCompressor(3).compress
        rows = [(document, *one.item, compress(encode(one))) for one in changed]
        if rows:
            async with self._stores.change(repo) as store:
                await NamedQueries(store.connection).many("put_remains", rows)
