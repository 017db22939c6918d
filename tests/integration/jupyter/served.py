"""A real Jupyter Server with our extension over a log that is a plain file: run as a program.

    python served.py WORKSPACE LOG PORT ROOT   # prints nothing; ends on SIGTERM

Every file below WORKSPACE/study is a managed document. The log keeps one JSON object a line, each
written with fsync before `ingest` returns, as AngelGit promises.
"""

from __future__ import annotations

import asyncio
import base64
import faulthandler
import gc
import hashlib
import json
import os
import secrets
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from pycrdt import Doc, Text

from angelos.angelgit.documents.crdt import guarded
from angelos.core.api import TokenView
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.ids import DocumentId, PrincipalId
from angelos.core.permissions import OWNER, Permission, Principal, Role
from angelos.core.repository import DocumentAddress
from angelos.core.routes import Call, Route
from angelos.testing import MemoryJournal, make_fact

PEOPLE = {
    "t-viewer": Principal(id=PrincipalId("person/vera"), role=Role.viewer),
    "t-guest": Principal(id=PrincipalId("person/gus"), role=Role.viewer),
    "t-researcher": Principal(id=PrincipalId("person/rosa"), role=Role.researcher),
    "t-leaving": Principal(id=PrincipalId("person/lea"), role=Role.researcher),
    "t-rogue": Principal(id=PrincipalId("person/rob"), role=Role.researcher),
}


class FileLog:
    """AngelGit's side of a room, in one file."""

    def __init__(self, workspace: Path, log: Path, live) -> None:
        self.workspace, self.log, self.live = workspace, log, live

    async def repos(self):
        return []

    def locate(self, path):
        repo, _, rest = path.partition("/")
        known = repo == "study" and rest and not rest.startswith("scratch")
        return (
            DocumentAddress(repo, rest, DocumentId(rest))
            if known and (self.workspace / path).is_file()
            else None
        )

    async def room_updates(self, path):
        if not any(True for _ in self._read(path)):
            doc = Doc(client_id=1)
            doc.get("source", type=Text).insert(0, (self.workspace / "study" / path).read_text())
            await self.ingest(path, doc.get_update(), "person/import")
        return list(self._read(path))

    async def ingest(self, path, update, writer):
        with guarded(path):
            Doc().apply_update(update)
        entry = {"path": path, "writer": writer, "update": base64.b64encode(update).decode()}
        line = json.dumps(entry)
        with self.log.open("a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        return b""

    async def write_file(self, path):
        """Write the file; what AngelGit does about others' text is tested with AngelGit."""
        source = str(self.doc(path).get("source", type=Text))
        if source != (self.workspace / "study" / path).read_text():
            (self.workspace / "study" / path).write_text(source)
        return hashlib.sha256(source.encode()).hexdigest()

    def _read(self, path):
        if self.log.exists():
            for line in self.log.read_text().splitlines():
                entry = json.loads(line)
                if entry["path"] == path:
                    yield base64.b64decode(entry["update"])

    def doc(self, path):
        doc = Doc()
        for update in self._read(path):
            doc.apply_update(update)
        return doc

    async def prepend(self, call: Call) -> dict:
        """Merge an update as a proposal would: into the log, then into the open room."""
        path, text = call.query["path"], call.query["text"]
        await self.room_updates(path)
        doc = self.doc(path)
        updates = []
        doc.observe(lambda event: updates.append(bytes(event.update)))
        doc.get("source", type=Text).insert(0, text)
        await self.ingest(path, updates[0], "agent/ada")
        return {"open": await self.live.apply(path, updates[0])}


class Tokens:
    """`control/identity/tokens.py` in memory."""

    def __init__(self, people) -> None:
        self.people, self.made = people, {}

    async def create(self, principal, *, label, kind, ttl_s):
        self.people._ask()
        view = TokenView(
            id=f"tok-{len(self.made)}", principal=principal.id, kind=kind, label=label, scopes=(),
            created_at=time.time(), expires_at=time.time() + ttl_s,
            token=f"angelt_{secrets.token_hex(8)}",
        )  # fmt: skip
        self.made[view.token] = msgspec.structs.replace(principal, session=view.id)
        return view

    async def authenticate(self, token):
        return self.made.get(token)

    async def revoke(self, principal, token):
        self.made = {text: p for text, p in self.made.items() if p.session != token}


class Everybody:
    def __init__(self, journal) -> None:
        self.known, self.journal, self.away = dict(PEOPLE), journal, False
        self.generations = {OWNER.id: 1}
        self.tokens = Tokens(self)

    async def authenticate(self, token):
        self._ask()
        return self.known.get(token) or await self.tokens.authenticate(token)

    async def list(self):
        self._ask()
        owner = msgspec.structs.replace(OWNER, generation=self.generations[OWNER.id])
        return [owner, *self.known.values()]

    async def sign_out(self, principal):
        """End a generation of the owner's, or all of another's."""
        self._ask()
        generation = principal.generation + 1
        self.generations[principal.id] = generation
        self.known = {
            t: msgspec.structs.replace(p, generation=generation) if p.id == principal.id else p
            for t, p in self.known.items()
        }
        await self._ended(principal.id, generation, "logged-out")

    async def _ended(self, who, generation, cause) -> None:
        data = {"generation": generation}
        fact = make_fact("principal.ended", who, data=data, outcome=cause)
        await self.journal.append([fact])

    def _ask(self) -> None:
        if self.away:
            raise Unavailable("PostgreSQL does not answer.")

    async def go_away(self, call: Call) -> dict:
        """Be a database that does not answer, or does again."""
        self.away = call.params["away"] == "away"
        return {}

    async def remove(self, call: Call) -> dict:
        who = f"person/{call.params['name']}"
        self.known = {t: p for t, p in self.known.items() if p.id != who}
        await self._ended(who, 1, "removed")
        return {}

    async def quarantine(self, call: Call) -> dict:
        """Say what the hub would."""
        who = f"person/{call.params['name']}"
        await self.journal.append([make_fact("principal.quarantined", who)])
        return {}


async def rooms(call: Call) -> dict:
    """Return all rooms: how many are in there, and whether it is to be taken away."""
    from jupyter_server.serverapp import ServerApp

    (extension,) = ServerApp.instance().extension_manager.extension_apps["jupyter_server_ydoc"]
    return {
        name: {
            "clients": len(room.clients),
            "doomed": (cleaner := getattr(room, "cleaner", None)) is not None
            and not (cleaner.done() or cleaner.cancelling()),
        }
        for name, room in extension.ywebsocket_server.rooms.items()
    }


async def event_handlers(call: Call) -> dict:
    """Return how many readers of events the process holds, open or not."""
    from jupyter_ext.api.events import EventsHandler

    gc.collect()
    return {"count": sum(isinstance(item, EventsHandler) for item in gc.get_objects())}


class Kept(list):
    """What was refused, for the tests to read."""

    record = list.append


class FakeServer:
    refusals = Kept()

    def shown(self, fact, principal):
        """Return the fact: nothing is hidden here."""
        return fact

    def __init__(self, repository) -> None:
        self.repository, self.journal = repository, MemoryJournal()
        self.people = people = Everybody(self.journal)

        async def say(call: Call) -> dict:
            fact = make_fact("task.accepted", call.params["what"])
            return {"offset": (await self.journal.append([fact]))[0]}

        async def echo(call: Call) -> dict:
            return {"by": call.principal.id, "role": call.principal.role, **call.params}

        async def fail(call: Call) -> dict:
            raise InvalidInput("No.", hint="Never.")

        async def refused(call: Call) -> list:
            return list(self.refusals)

        self.at_root = []
        self.routes = [
            Route("GET", "/refused", Permission.people_manage, refused, response=list),
            Route("GET", "/echo/{what}", Permission.status_read, echo),
            Route("POST", "/echo/{what}", Permission.tasks_run, echo, request=dict),
            Route("POST", "/say/{what}", Permission.tasks_run, say),
            Route("GET", "/fail", Permission.status_read, fail),
            Route(
                "POST",
                "/prepend",
                Permission.proposals_review,
                repository.prepend,
                query=("path", "text"),
            ),
            Route("DELETE", "/people/{name}", Permission.people_manage, people.remove),
            Route("POST", "/quarantine/{name}", Permission.people_manage, people.quarantine),
            Route("GET", "/event-handlers", Permission.people_manage, event_handlers),
            Route("GET", "/rooms", Permission.people_manage, rooms),
            Route("POST", "/database/{away}", Permission.people_manage, people.go_away),
        ]


def _tell_what_it_does(*_: object) -> None:
    """Write where each thread and task stands: asked for by a test whose server does not end."""
    faulthandler.dump_traceback(all_threads=True)
    with suppress(RuntimeError):  # no loop runs
        for task in asyncio.all_tasks():
            task.print_stack(limit=12, file=sys.stderr)
    sys.stderr.flush()


def main() -> None:
    signal.signal(signal.SIGUSR1, _tell_what_it_does)
    workspace, log, port, root = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]

    from jupyter_ext import extension
    from jupyter_ext.rooms import handler

    handler.MAX_BUFFERED_BYTES = 8_000_000

    @asynccontextmanager
    async def open_server(settings, binding):
        yield FakeServer(FileLog(workspace, log, binding.live))

    extension.open_server = open_server

    from jupyter_server.serverapp import ServerApp

    ServerApp.launch_instance(
        [
            f"--port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}",
            "--IdentityProvider.token=t-owner", "--no-browser", "--allow-root",
            "--YDocExtension.document_cleanup_delay=0.2", "--YDocExtension.document_save_delay=0.1",
            "--ServerApp.jpserver_extensions={'jupyter_ext': True}",
            "--ServerApp.tornado_settings={'ws_ping_interval': 3600000}",
        ]
    )  # fmt: skip


if __name__ == "__main__":
    main()
