"""Who writes under which CRDT client id: the first who sends an id owns it, for that document.

A page's edits are refused if they hold new ones by another person's id, or by an id of another
document: a page whose file was deleted and recreated still has the old document's edits.

For example:

    await writers.claim(row, {client}, PrincipalId("person/ada"))   # or raises Refused
    (await writers.of(document))[client]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from angelos.angelgit.storage.models import DocumentRow
from angelos.angelgit.storage.sql import NamedQueries
from angelos.angelgit.storage.store import Stores
from angelos.core.errors import Refused
from angelos.core.ids import PrincipalId

_CACHED = 1_024
"""The most documents whose writers stay in memory."""


class Writers:
    """The writers of all documents; the caller holds the lock of the document it asks about."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._owners: OrderedDict[str, dict[int, PrincipalId]] = OrderedDict()

    async def of(self, document: str) -> Mapping[int, PrincipalId]:
        """Return the writers of a document by client id."""
        return await self._load(document)

    async def claim(self, row: DocumentRow, clients: Collection[int], writer: PrincipalId) -> None:
        """Give a writer the client ids that nobody has.

        Args:
            row: the document.
            clients: the ids of what the writer sends that the document does not hold yet.
            writer: who sends it.

        Raises:
            Fenced: another server owns the repository.
            Refused: an id is another's, or was used in another document; none is given.
        """
        document = row.id
        owners = await self._load(document)
        for client in clients:
            if owners.get(client, writer) != writer:
                raise Refused(
                    f"An edit is made in the name of {owners[client]}.",
                    hint="Reload the page.",
                )
        new = [client for client in clients if client not in owners]
        if not new:
            return
        async with self._stores.change(row.repo) as store:
            sql = NamedQueries(store.connection)
            if await sql.one("clients_elsewhere", document=document, clients=new):
                raise Refused(
                    "The page shows another document, which was at this path before.",
                    hint="Reload the page.",
                )
            await sql.many("add_writer", [(document, client, writer) for client in new])
        owners.update(dict.fromkeys(new, writer))

    async def record(
        self, repo: str, clients: Mapping[str, Collection[int]], writer: PrincipalId
    ) -> None:
        """Record the writer of edits that AngelGit made itself; ids that somebody has stay theirs.

        Args:
            repo: the documents' repository.
            clients: document -> the client ids of the edits.
            writer: their author.
        """
        new: list[tuple[str, int, PrincipalId]] = []
        for document, ids in clients.items():
            owners = await self._load(document)
            new += [(document, client, writer) for client in ids if client not in owners]
        if not new:
            return
        async with self._stores.change(repo) as store:
            await store.add_writers(new)
        for document, client, _ in new:
            self._owners.setdefault(document, {})[client] = writer

    def remember(self, rows: Collection[tuple[str, int, PrincipalId]]) -> None:
        """Take in (document, client, writer) that was stored beside this."""
        for document, client, writer in rows:
            if document in self._owners:
                self._owners[document].setdefault(client, writer)

    def forget(self, document: str) -> None:
        """Forget the writers of a document that another server has now."""
        self._owners.pop(document, None)

    async def _load(self, document: str) -> dict[int, PrincipalId]:
        if document not in self._owners:
            async with self._stores.begin() as store:
                rows = await NamedQueries(store.connection).all("writers", document=document)
            self._owners[document] = {client: PrincipalId(name) for client, name in rows}
            while len(self._owners) > _CACHED:
                self._owners.popitem(last=False)
        self._owners.move_to_end(document)
        return self._owners[document]
