"""An export is streamed: from the database to the file, no more than a page is held."""

from __future__ import annotations

import json
import weakref
from base64 import b64decode

import msgspec
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from angelos.adapters.net.http import mount
from angelos.client import Angelos
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal, Role
from angelos.governance.log.models import EntryRow
from angelos.governance.log.verify import Trust, verify
from angelos.governance.routes import routes
from angelos.testing import make_fact


class Counted(EntryRow, frozen=True, weakref=True):
    """A row that can be seen to be let go."""


class Pages:
    """Counts what an export takes out of the database and still holds."""

    def __init__(self, store):
        self.alive, self.most, self.taken = weakref.WeakSet(), 0, 0
        self._store, self._entries, self._notes = store, store.entries, store.notes
        self.notes_at_once = 0

    async def entries(self, after, limit):
        assert not self.alive, "the page before is still held"
        rows = [
            Counted(row.index, row.body, row.leaf, row.salt, row.data)
            for row in await self._entries(after, limit)
        ]
        for row in rows:
            self.alive.add(row)
        self.taken += len(rows)
        self.most = max(self.most, len(self.alive))
        return rows

    async def notes(self, origin, after, upto, limit):
        found = await self._notes(origin, after, upto, limit)
        self.notes_at_once = max(self.notes_at_once, len(found))
        return found


async def test_the_data_of_a_fact_stay_as_they_came(start, journal):
    """Even where our own encoder writes it shorter, or where it is no MessagePack at all."""
    odd = [b"\xde\x00\x01\xa6reason\xd9\x02hi", b"\xc1"]
    facts = [
        msgspec.structs.replace(make_fact(Kind.task_cancelled, f"task-{i}"), data=data)
        for i, data in enumerate(odd)
    ]
    async with start() as log:
        await journal.append(facts)
        lines = b"".join([piece async for piece in log.export()]).splitlines()
    data = [b64decode(entry["data"]) for line in lines if "data" in (entry := json.loads(line))]
    assert data == odd
    assert verify(line + b"\n" for line in lines).ok


async def test_an_export_holds_one_page_at_most_from_the_database_to_the_file(
    start, journal, keys, monkeypatch, tmp_path
):
    big = [
        make_fact(Kind.task_finished, f"task-{i}", outcome="ok", data={"text": "x" * 20_000})
        for i in range(60)
    ]
    async with start(export_page=7, checkpoint_every_s=3600) as log:
        for i in range(0, 60, 3):
            await journal.append(big[i : i + 3])
            await log.checkpoint()
        pages = Pages(log._store)
        monkeypatch.setattr(log._store, "entries", pages.entries)
        monkeypatch.setattr(log._store, "notes", pages.notes)
        server = HTTPServer(Application(mount(routes(log), owner_of)))
        sockets = bind_sockets(0, "127.0.0.1")
        server.add_sockets(sockets)
        try:
            url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
            file = tmp_path / "export.jsonl"
            pieces = 0
            async with Angelos(url) as angelos:
                with file.open("wb") as target:
                    async for piece in angelos.audit.export():
                        assert len(pages.alive) <= 7
                        assert len(piece) < 200_000
                        target.write(piece)
                        pieces += 1
        finally:
            server.stop()
            await server.close_all_connections()
    with file.open("rb") as lines:
        report = verify(lines, Trust(epochs=[keys.epoch]))
    assert (report.ok, report.entries, report.checkpoints) == (True, 60, 20)
    assert (pages.most, pages.taken, pages.notes_at_once) == (7, 60, 7)
    assert pieces > 10


async def owner_of(request):
    del request
    return Principal(id=PrincipalId("person/owner"), role=Role.admin)
