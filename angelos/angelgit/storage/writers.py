"""Who writes under which CRDT client id: the first who sends an id owns it, for that document.

A page's edits are refused if they hold new ones by another person's id, or by an id of another
document: a page whose file was deleted and recreated still has the old document's edits.

For example:

    await writers.claim(document, {client}, PrincipalId("person/ada"))   # or raises Refused
    (await writers.of(document))[client]
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from angelos.adapters.stores.postgres import Connection, Database
from angelos.angelgit.storage.sql import NamedQueries
from angelos.core.errors import Refused
from angelos.core.ids import PrincipalId

_CACHED = 1_024
"""The most documents whose writers stay in memory."""


class Writers:
    """The writers of all documents; the caller holds the lock of the document it asks about."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owners: OrderedDict[str, dict[int, PrincipalId]] = OrderedDict()

    async def of(self, document: str) -> Mapping[int, PrincipalId]:
        """Return the writers of a document by client id."""
        return await self._load(document)

    async def claim(self, document: str, clients: Collection[int], writer: PrincipalId) -> None:
        """Give a writer the client ids that nobody has.

        Args:
            document: the document.
            clients: the ids of what the writer sends that the document does not hold yet.
            writer: who sends it.

        Raises:
            Refused: an id is another's, or was used in another document; none is given.
        """
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
        async with self._database.transaction() as conn:
            sql = NamedQueries(conn)
            if await sql.one("clients_elsewhere", document=document, clients=new):
                raise Refused(
                    "The page shows another document, which was at this path before.",
                    hint="Reload the page.",
                )
            await sql.many("add_writer", [(document, client, writer) for client in new])
        owners.update(dict.fromkeys(new, writer))

    async def record(self, clients: Mapping[str, Collection[int]], writer: PrincipalId) -> None:
        """Record the writer of edits that AngelGit made itself; ids that somebody has stay theirs.

        Args:
            clients: document -> the client ids of the edits.
            writer: their author.
        """
        new: list[tuple[str, int, PrincipalId]] = []
        for document, ids in clients.items():
            owners = await self._load(document)
            new += [(document, client, writer) for client in ids if client not in owners]
        if not new:
            return
        async with self._database.transaction() as conn:
            await add_writers(conn, new)
        for document, client, _ in new:
            self._owners.setdefault(document, {})[client] = writer

    def remember(self, rows: Collection[tuple[str, int, PrincipalId]]) -> None:
        """Take in (document, client, writer) that was stored beside this."""
        for document, client, writer in rows:
            if document in self._owners:
                self._owners[document].setdefault(client, writer)

    async def _load(self, document: str) -> dict[int, PrincipalId]:
        if document not in self._owners:
            async with self._database.transaction() as conn:
                rows = await NamedQueries(conn).all("writers", document=document)
            self._owners[document] = {client: PrincipalId(name) for client, name in rows}
            while len(self._owners) > _CACHED:
                self._owners.popitem(last=False)
        self._owners.move_to_end(document)
        return self._owners[document]


async def add_writers(conn: Connection, rows: Collection[tuple[str, int, PrincipalId]]) -> None:
    """Store (document, client, writer); an id that has an owner keeps it."""
    await NamedQueries(conn).many("add_writer", list(rows))
