"""`Angelos`: a connection to a system, which hands out its nouns.

For example:

    async with Angelos.connect() as angelos:
        result = await angelos.tasks.run("print(6 * 7)")
        text = await angelos.repos["study"].read("study/mean.py")

    angelos.tasks      run code                    angelos.nodes    where code runs
    angelos.repos      read files and revisions    angelos.agents   who works here by certificate
    angelos.proposals  change files                angelos.people   who may sign in
    angelos.events()   what happens                angelos.audit    what happened
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from angelos.adapters.host.clock import SystemClock
from angelos.client.admin import (
    AgentCollection,
    AuditLog,
    NodeCollection,
    PersonCollection,
    PolicyRules,
    TokenCollection,
)
from angelos.client.download import download
from angelos.client.events import PATIENCE_S, follow
from angelos.client.hub import HubTraffic
from angelos.client.memories import MemoryCollection
from angelos.client.models import ModelCollection
from angelos.client.proposals import ProposalCollection
from angelos.client.repos import RepoCollection
from angelos.client.settings import load
from angelos.client.tasks import TaskCollection
from angelos.client.transport import Transport
from angelos.core import api
from angelos.core.errors import Unavailable
from angelos.core.facts import Fact
from angelos.core.ids import START, Offset

if TYPE_CHECKING:
    from angelos.adapters.identity.enrolment import Identity


class Angelos:
    """A connection to one AngelOS system, as one person or agent.

    Use it with `async with`, or between `open` and `close`. Every method raises the errors of
    `angelos.core.errors`: what the server refuses is raised as the class that the server raised.

    Attributes:
        tasks: Code that runs in a sandbox.
        repos: Repositories, their files and revisions.
        proposals: Edits on their way to `main`.
        nodes: The nodes that run tasks.
        agents: The agents that work here.
        people: The people who may sign in.
        audit: The log of everything that happened.
        memories: What agents and people have said once.
        models: Tiny models, each for one role.
        hub: Who is connected to the hub, and what could not be delivered.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        tls: ssl.SSLContext | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Name the server; nothing is sent yet.

        Args:
            url: The server's address, such as `http://127.0.0.1:8888`.
            token: A person's token.
            tls: The certificate of an agent or node, and the authority that it trusts.
            identity: The certificate in `tls`, to be renewed while the client is open.

        Raises:
            InvalidInput: The address or the token has the wrong form.
        """
        self._transport = Transport(url, token=token, tls=tls)
        self._identity = identity
        self._renewal: asyncio.Task[None] | None = None
        self.tasks = TaskCollection(self._transport)
        self.repos = RepoCollection(self._transport)
        self.proposals = ProposalCollection(self._transport)
        self.nodes = NodeCollection(self._transport)
        self.agents = AgentCollection(self._transport)
        self.people = PersonCollection(self._transport)
        self.tokens = TokenCollection(self._transport)
        self.audit = AuditLog(self._transport)
        self.hub = HubTraffic(self._transport)
        self.policy = PolicyRules(self._transport)
        self.memories = MemoryCollection(self._transport)
        self.models = ModelCollection(self._transport)

    @classmethod
    def connect(
        cls, data_dir: Path | str | None = None, token: str = "", *, url: str = ""
    ) -> Angelos:
        """Return a client of the system at an address, or of the one on a data directory.

        With neither, the environment says where the system is and who the caller is
        (`angelos.client.settings`).

        Args:
            data_dir: The data directory of a system on this machine.
            token: A person's token; without one, the caller is the owner of the data directory.
            url: The server's address, instead of a data directory.

        Raises:
            Unavailable: No system runs on the data directory.
            InvalidInput: The address, the token or the environment has the wrong form.
        """
        from angelos.adapters.host.datadir import DataDir

        if not url and data_dir is None:
            settings = load()
            url, data_dir, token = settings.url, settings.data_dir, token or settings.token
        if url:
            return cls(url, token=token)
        assert data_dir is not None  # noqa: S101 - the settings always have one
        system = DataDir(data_dir).system()
        if not system.url:
            raise Unavailable("The system is still starting.", hint="Wait for `angelos up`.")
        return cls(system.url, token=token or system.token)

    @classmethod
    def with_certificate(cls, folder: Path | str) -> Angelos:
        """Return a client that is known by the certificate that enrolment left in a folder.

        While it is open it renews the certificate at half its life.

        Args:
            folder: What `angelos agent join` was given.

        Raises:
            NotFound: The folder holds no identity.
            InvalidInput: The identity in it is damaged.
        """
        from angelos.adapters.identity.enrolment import Identity

        return cls._known_by(Identity.load(Path(folder)))

    @classmethod
    async def join(cls, token: str, folder: Path | str) -> Angelos:
        """Get a certificate with a single-use token, and return a client that is known by it.

        The private key is created in the folder and never leaves it. Afterwards
        `with_certificate` is enough.

        Args:
            token: What `angelos.agents.add` returned.
            folder: Where key and certificate are kept; created if it does not exist.

        Raises:
            InvalidInput: The token is damaged, or the folder cannot be written.
            Unauthenticated: The token was used already or is too old.
            Unavailable: The server cannot be reached.
        """
        from angelos.adapters.identity.enrolment import enrol

        return cls._known_by(await enrol(token, Path(folder)))

    @classmethod
    def _known_by(cls, identity: Identity) -> Angelos:
        return cls(identity.hub_url, tls=identity.client_context(), identity=identity)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    async def open(self) -> Self:
        """Open the client without a block, as in the cells of a notebook; `close` it at the end.

        Returns:
            The client itself.
        """
        self._transport.open()
        if self._identity is not None and self._renewal is None:
            renewing = self._identity.keep_renewed(SystemClock())
            self._renewal = asyncio.create_task(renewing, name="renew certificate")
        return self

    async def close(self) -> None:
        """Close the client; it can be opened again."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait({renewal})
        self._transport.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def whoami(self) -> api.WhoamiView:
        """Return the caller as the server sees it: role, permissions, state.

        Raises:
            Unavailable: The server cannot be reached.
        """
        return await self._transport.call("GET", "/whoami", api.WhoamiView)

    async def status(self) -> api.StatusView:
        """Return the system at a glance: version, isolation, nodes, repositories, what waits.

        Raises:
            Forbidden: The caller may not read it.
            Unavailable: The server cannot be reached.
        """
        return await self._transport.call("GET", "/status", api.StatusView)

    async def load(self) -> api.LoadView:
        """Return how busy the system is now: open tasks, queues, and the load of each node.

        Raises:
            Forbidden: The caller may not read nodes.
            Unavailable: The server cannot be reached.
        """
        return await self._transport.call("GET", "/load", api.LoadView)

    def events(
        self,
        after: Offset = START,
        kinds: Sequence[str] = (),
        subject: str = "",
        patience_s: float = PATIENCE_S,
    ) -> AsyncGenerator[Fact, None]:
        """Yield facts as the journal gets them, oldest first, for ever.

        After a restart of the server it goes on where it was; no fact is skipped or doubled.

        Args:
            after: The offset of the last fact that is known already; by default none is.
            kinds: Only facts of these kinds, such as `task.finished`.
            subject: Only facts about this subject, such as a task's id.
            patience_s: How long to try to reach a lost server.

        Yields:
            Facts that the caller may see.

        Raises:
            Forbidden: The server ended the stream for good.
            Unauthenticated: The token or certificate is void.
            Unavailable: The server cannot be reached for `patience_s` seconds.
        """
        return follow(self._transport, after, kinds, subject, patience_s)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, object] | None = None,
        patience_s: float = 0,
    ) -> bytes:
        """Send one request to a path below the API and return the bytes of its answer.

        Args:
            method: `GET`, `POST`, `PUT` or `DELETE`.
            path: The path, its parts quoted.
            body: Sent as JSON.
            query: Parameters; those that are None or empty are left out.
            patience_s: Seconds that the server may wait before it answers.

        Raises:
            AngelError: The one that the server answered with.
            Unavailable: The server cannot be reached.
        """
        return await self._transport.fetch(
            method, path, body=body, query=query, patience_s=patience_s
        )

    def download(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the answer to GET a path below the API as it comes; it may be of any size.

        Args:
            path: The path, its parts quoted.

        Raises:
            AngelError: The one that the server answered with.
            Unavailable: The answer broke off.
        """
        return download(self._transport, path)
