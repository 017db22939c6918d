"""The system behind this Jupyter server: starting, running or failed.

Tornado's handlers are created before the event loop runs and the system can start; they ask here.

    binding = Binding(workspace=Path("/srv/angelos/workspace"), root_dir=Path("/srv"))
    binding.require()  # raises Unavailable until `binding.server` is set
    await binding.locate("angelos/workspace/study/notes.md")  # its DocumentAddress
"""

from __future__ import annotations

import asyncio
import os
from inspect import isawaitable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from angelos.adapters.net.http import RouteTable
from angelos.core.errors import ServerState, Unavailable
from angelos.core.openapi import openapi_route
from angelos.hub.limits import SocketLimit
from jupyter_ext.live import Documents, JupyterLiveDocuments
from jupyter_ext.presence import Presence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from angelos.angelgit.git_server import GitServer
    from angelos.core.facts import Fact
    from angelos.core.permissions import Principal
    from angelos.core.refusals import Refusals
    from angelos.core.repository import DocumentAddress
    from angelos.core.routes import Route


class PeopleDirectory(Protocol):
    """What sign-in needs of `control/identity/people.py`."""

    async def authenticate(self, token: str) -> Principal | None:
        """Return the owner of a token."""
        ...

    async def list(self) -> Any:
        """Return everybody."""
        ...

    @property
    def tokens(self) -> Any:
        """Return the tokens that people have beside their own (`control/identity/tokens.py`)."""
        ...

    async def sign_out(self, principal: Principal) -> None:
        """End everything that a person has signed in."""
        ...


class Backend(Protocol):
    """What the extension needs of the system that `angelos.wiring.build_server` yields."""

    @property
    def routes(self) -> Sequence[Route]:
        """Return every operation of the control API."""
        ...

    @property
    def journal(self) -> Any:
        """Return the log of facts; readers need `follow` and `last` of a `Journal`."""
        ...

    @property
    def repository(self) -> Documents:
        """Return AngelGit."""
        ...

    @property
    def git(self) -> GitServer | None:
        """Return what serves git clients; None: another server does."""
        ...

    def shown(self, fact: Fact, principal: Principal, /) -> Fact:
        """Return a fact as a person may read it."""
        ...

    @property
    def at_root(self) -> Sequence[Route]:
        """Return what monitoring reads, at the root."""
        ...

    @property
    def refusals(self) -> Refusals:
        """Return what takes refused calls."""
        ...

    @property
    def people(self) -> PeopleDirectory:
        """Return the people who may sign in."""
        ...


class Binding:
    """Where handlers find the system.

    Args:
        workspace: the directory of the live files.
        root_dir: the root of Jupyter's own paths.
    """

    def __init__(self, workspace: Path, root_dir: Path) -> None:
        self.live = JupyterLiveDocuments()
        self.server: Backend | None = None
        self.routes = RouteTable([])
        self.at_root = RouteTable([], prefix="")
        self.state = ServerState.starting
        self.failure = ""
        self.presence = Presence()
        self.streams: set[asyncio.Task[None]] = set()
        self.event_sockets = SocketLimit()
        """Tasks that stream the journal to a reader; the extension ends them when it stops."""
        self.workspace = os.path.realpath(workspace)
        self._root = os.path.realpath(root_dir)

    def bind(self, server: Backend) -> None:
        """Use the running system; its routes are described at `/openapi.json`."""
        routes = list(server.routes)
        if not any(route.path == "/openapi.json" for route in routes):
            routes.append(openapi_route(routes))
        self.server, self.routes, self.failure = server, RouteTable(routes), ""
        self.at_root = RouteTable(list(server.at_root), prefix="")
        self.state = ServerState.running

    def unbind(self) -> None:
        """Have no system any more: it has been stopped, or has failed."""
        self.server = None
        if self.state is ServerState.running:
            self.state = ServerState.starting

    def fail(self, detail: str) -> None:
        """Note that the system could not start, or has failed since."""
        started = self.state is ServerState.running
        self.state = ServerState.failed if started else ServerState.not_started
        verb = "has failed" if started else "could not start"
        self.failure = f"The system {verb}: {detail}"

    def require(self) -> Backend:
        """Return the running system; raise `Unavailable`, with the reason, when there is none."""
        if self.server is None:
            if self.failure:
                raise Unavailable(
                    self.failure, hint="The server's log says more.", state=self.state
                )
            raise Unavailable(
                "The system is starting.", hint="Try again in a moment.", state=self.state
            )
        return self.server

    def workspace_path(self, path: str) -> str | None:
        """Return a path of the Contents API relative to the workspace, None outside of it."""
        absolute = self._absolute(path)
        if absolute == self.workspace:
            return ""
        if not absolute.startswith(self.workspace + os.sep):
            return None
        return PurePosixPath(absolute).relative_to(self.workspace).as_posix()

    def holds_workspace(self, path: str) -> bool:
        """Return whether a path of the Contents API is a folder above the workspace."""
        return self.workspace.startswith(self._absolute(path).rstrip(os.sep) + os.sep)

    def is_private(self, path: str) -> bool:
        """Return whether a path leads to the system's own files: keys, tokens, logs, stores."""
        opened = os.path.realpath(self._absolute(path))
        if opened == self.workspace or opened.startswith(self.workspace + os.sep):
            return False
        data = os.path.dirname(self.workspace)  # noqa: PTH120 - as text, like the rest
        return opened == data or opened.startswith(data + os.sep)

    def _absolute(self, path: str) -> str:
        return os.path.normpath(os.path.join(self._root, path.strip("/")))  # noqa: PTH118 - textual: ".." must not follow links

    async def locate(self, path: str) -> DocumentAddress | None:
        """Return the managed document at a path, None for any other file.

        Raises:
            Unavailable: the path is in the workspace and the system is not running. Opened as an
                ordinary file, its text and its log would drift apart.
        """
        relative = self.workspace_path(path)
        if relative is None:
            return None
        document = self.require().repository.locate(relative)
        return await document if isawaitable(document) else document
