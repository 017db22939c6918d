"""A second Jupyter server on the same data directory: it forwards to the system that runs there.

One process decides and has the live documents; this one forwards its owner's requests. Its routes
come from the OpenAPI document of the running system. Live files of the workspace cannot be opened
here, since their rooms are in the other server: the error names its address.
"""

from __future__ import annotations

import json
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import msgspec

from angelos.client import Angelos
from angelos.client.transport import segments
from angelos.core.api import PersonView
from angelos.core.errors import Conflict, Forbidden, Unavailable
from angelos.core.facts import Fact
from angelos.core.ids import START, DocumentId, Offset, PrincipalId
from angelos.core.permissions import OWNER, Permission, Principal, Role
from angelos.core.ports import JournalPosition
from angelos.core.refusals import Unrecorded
from angelos.core.repository import TreeEdit
from angelos.core.routes import PREFIX, Call, Route
from angelos.wiring.settings import Settings

_LONGEST_WAIT_S = 60.0


class RemoteJournal:
    """The running system's journal, as far as readers need it."""

    def __init__(self, angelos: Angelos) -> None:
        self._angelos = angelos

    def follow(
        self, after: Offset, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncIterator[Fact]:
        """Yield facts after `after` for ever, in order."""
        return self._angelos.events(after, tuple(kinds), subject)

    async def last(self) -> Offset:
        """Return the newest offset."""
        return (await self._angelos.status()).journal or START

    async def position(self, offset: Offset) -> JournalPosition:
        """Return that the offset is there: the running system refuses it otherwise."""
        return JournalPosition(epoch="", oldest=START, newest=offset, present=True)


class NoDocuments:
    """Refuses live files: they are open in the server at `url`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def locate(self, path: str) -> NoReturn:
        """Refuse."""
        raise Conflict(
            f"{path} is a live document of the system that runs already.",
            hint=f"Open it in JupyterLab at {self._url}.",
        )

    async def room_updates(self, document: DocumentId) -> NoReturn:
        """Refuse."""
        self.locate(document)

    async def ingest(
        self,
        document: DocumentId,
        update: bytes,  # noqa: ARG002
        writer: PrincipalId,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse."""
        self.locate(document)

    async def repos(self) -> NoReturn:
        """Refuse."""
        self.locate("This")

    async def files_below(self, repo: str, path: str) -> NoReturn:
        """Refuse."""
        self.locate(f"{repo}/{path}")

    async def edit_dev(
        self,
        repo: str,
        edits: Sequence[TreeEdit],  # noqa: ARG002
        author: PrincipalId,  # noqa: ARG002
        message: str,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse."""
        self.locate(repo)

    async def put_blob(self, repo: str, content: AsyncIterator[bytes]) -> NoReturn:  # noqa: ARG002
        """Refuse."""
        self.locate(repo)

    async def write_file(self, document: DocumentId) -> NoReturn:
        """Refuse."""
        self.locate(document)


class NoPeople:
    """A directory without people: only the owner may sign in here.

    Its generations begin at the time, so that no cookie of an earlier start counts.
    """

    def __init__(self) -> None:
        self._generation = time.time_ns()

    @property
    def tokens(self) -> NoReturn:
        """Refuse: kernels call the API from the other server."""
        raise Unavailable("Tokens are made by the system that runs already.")

    async def authenticate(self, token: str) -> Principal | None:
        """Return None."""
        del token

    async def list(self) -> tuple[PersonView, ...]:
        """Return the owner of this server, who signs in with its token."""
        return (PersonView(id=OWNER.id, role=OWNER.role, generation=self._generation),)

    async def sign_out(self, principal: Principal) -> None:
        """End the owner's cookies here; the running system's are its own."""
        del principal
        self._generation += 1


class Attached:
    """The running system, as the extension needs it."""

    def __init__(self, angelos: Angelos, routes: list[Route]) -> None:
        self.routes = routes
        self.journal = RemoteJournal(angelos)
        self.repository = NoDocuments(angelos.url)
        self.people = NoPeople()

    git = None
    """Git clients ask the running system."""
    at_root: tuple[Route, ...] = ()
    """The running system is monitored at its own address."""
    refusals = Unrecorded()
    """The running system records what it refuses."""

    def shown(self, fact: Fact, principal: Principal) -> Fact:
        """Return the fact: only the owner signs in here."""
        del principal
        return fact

    def publish(self, url: str, token: str) -> None:
        """Do nothing: clients find the other server."""


@asynccontextmanager
async def attach(settings: Settings) -> AsyncIterator[Attached]:
    """Yield the running system; raise `Unavailable` when it does not answer."""
    async with Angelos.connect(settings.data_dir) as angelos:
        document = json.loads(await angelos.fetch("GET", "/openapi.json"))
        yield Attached(angelos, routes_of(document, angelos.fetch, angelos.download))


Fetch = Callable[..., Awaitable[bytes]]
Download = Callable[[str], AsyncGenerator[bytes, None]]


def routes_of(document: dict[str, Any], fetch: Fetch, download: Download) -> list[Route]:
    """Return a route for each operation of an OpenAPI document.

    `fetch` gets the answer. An answer of any size (JSON lines) is forwarded piece by piece, as
    `download` yields it.
    """
    return [
        _route(method.upper(), path.removeprefix(PREFIX), operation, fetch, download)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if method in {"get", "post", "put", "delete"} and not path.endswith("/openapi.json")
    ]


def _route(
    method: str, path: str, operation: dict[str, Any], fetch: Fetch, download: Download
) -> Route:
    status, response = next(
        (int(code), answer) for code, answer in operation["responses"].items() if code[0] == "2"
    )
    media_type = next(iter(response.get("content", {})), "application/json")
    structured = media_type in {"application/json", "application/msgpack"}
    body = "requestBody" in operation

    async def forward(call: Call[Any]) -> Any:
        if call.principal.role is not Role.admin:
            raise Forbidden("Only the owner may use the running system from here.")
        if media_type == "application/jsonl":
            return download(path_of(path, call.params))
        raw = await fetch(
            method,
            path_of(path, call.params),
            body=call.body if body else None,
            query=dict(call.query),
            patience_s=_LONGEST_WAIT_S if "wait" in call.query else 0,
        )
        return msgspec.Raw(raw) if structured else raw

    names = tuple(p["name"] for p in operation.get("parameters", []) if p["in"] == "query")
    return Route(
        method,
        path,
        Permission.status_read,
        forward,
        request=Any,
        response=Any,
        status=status,
        summary=operation.get("summary", ""),
        query=names,
        media_type=media_type,
    )


def path_of(template: str, params: Any) -> str:
    """Return a route's path with its parameters filled in, each quoted as one segment."""
    parts = template.strip("/").split("/")
    return segments(*(params[p[1:-1]] if p.startswith("{") else p for p in parts))
