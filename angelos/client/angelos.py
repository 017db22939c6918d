"""`Angelos`: every operation of the control API as one typed method.

Names follow the routes; ids may be given as text. Methods raise the errors of `core.errors`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import msgspec

from angelos.adapters.host.clock import SystemClock
from angelos.client import events as _events
from angelos.client import tasks as _tasks
from angelos.client.download import download
from angelos.client.transport import Transport, segments
from angelos.core import api
from angelos.core.errors import AngelError, Unavailable
from angelos.core.ids import START, Offset, Revision, new_proposal_id
from angelos.core.messages import Fact, Limits, TaskResult
from angelos.core.repository import Change, Edit
from angelos.core.revision import Bundle
from angelos.core.runs import Output

if TYPE_CHECKING:
    from angelos.adapters.identity.enrolment import Identity


class Angelos:
    """A connection to one AngelOS system, as one person or agent."""

    def __init__(
        self,
        url: str,
        *,
        token: str = "",
        transport: Transport | None = None,
        identity: Identity | None = None,
    ) -> None:
        """Take the server's address and a person's token."""
        self._transport = transport or Transport(url, token=token)
        self._identity = identity
        self._renewal: asyncio.Task[None] | None = None

    @classmethod
    def connect(cls, data_dir: Path | str | None = None, token: str = "") -> Angelos:
        """Return a client of the system that runs on `data_dir` (default: `ANGELOS_DATA_DIR`).

        It acts as the owner, or as the person whose `token` is given.

        Raises `Unavailable` when none runs there.
        """
        from angelos.adapters.host.datadir import DataDir, find_data_dir

        system = DataDir(data_dir or find_data_dir()).system()
        if not system.url:
            raise Unavailable("The system is still starting.", hint="Wait for `angelos up`.")
        return cls(system.url, token=token or system.token)

    @classmethod
    def with_certificate(cls, folder: Path | str) -> Angelos:
        """Return a client that proves who it is by the certificate that enrolment left there.

        While it is open it renews the certificate at half its life.
        """
        from angelos.adapters.identity.enrolment import Identity

        identity = Identity.load(Path(folder))
        transport = Transport(identity.hub_url, tls=identity.client_context())
        return cls(identity.hub_url, transport=transport, identity=identity)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._transport.url

    async def __aenter__(self) -> Self:
        self._transport.open()
        if self._identity is not None:
            renewing = self._identity.keep_renewed(SystemClock())
            self._renewal = asyncio.create_task(renewing, name="renew certificate")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        renewal, self._renewal = self._renewal, None
        if renewal is not None:
            renewal.cancel()
            await asyncio.wait({renewal})
        self._transport.close()

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: dict[str, object] | None = None,
        patience_s: float = 0,
    ) -> bytes:
        """Send one request below the API as it is and return the bytes of its answer."""
        return await self._transport.fetch(
            method, path, body=body, query=query, patience_s=patience_s
        )

    def download(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the answer to GET a path below the API as it comes; it may be of any size."""
        return download(self._transport, path)

    # -- the system ----------------------------------------------------------------------

    async def status(self) -> api.StatusView:
        """Return the system at a glance."""
        return await self._transport.call("GET", "/status", api.StatusView)

    async def nodes(self) -> tuple[api.NodeView, ...]:
        """Return all enrolled nodes."""
        return (await self._transport.call("GET", "/nodes", api.NodeList)).nodes

    def events(
        self,
        after: Offset = START,
        kinds: Sequence[str] = (),
        subject: str = "",
        patience_s: float = _events.PATIENCE_S,
    ) -> AsyncGenerator[Fact, None]:
        """Yield facts after an offset for ever, oldest first; survives a restart of the server."""
        return _events.follow(self._transport, after, kinds, subject, patience_s)

    # -- tasks ---------------------------------------------------------------------------

    async def submit(self, task: api.SubmitTask) -> api.TaskView:
        """Ask for a task; with the same `command` id again it is the same task."""
        return await self._transport.call("POST", "/tasks", api.TaskView, body=task)

    async def task(self, task: str, wait: float = 0) -> api.TaskView:
        """Return a task, after at most `wait` seconds for its end."""
        return await self._transport.call(
            "GET",
            "/tasks" + segments(task),
            api.TaskView,
            query={"wait": wait or None},
            patience_s=wait,
        )

    async def tasks(self, state: str = "", limit: int = 50) -> tuple[api.TaskView, ...]:
        """Return tasks, newest first."""
        query: dict[str, object] = {"state": state, "limit": limit}
        return (await self._transport.call("GET", "/tasks", api.TaskList, query=query)).tasks

    async def cancel(self, task: str, reason: str = "") -> api.TaskView:
        """Stop a task; it ends with the status `killed`."""
        return await self._transport.call(
            "POST",
            "/tasks" + segments(task, "cancel"),
            api.TaskView,
            body=api.Reason(reason=reason),
        )

    async def run(  # noqa: PLR0913 - each is a part of one task
        self,
        code: str = "",
        *,
        argv: Sequence[str] = (),
        stdin: str = "",
        repo: str = "",
        revision: Revision | None = None,
        limits: Limits | None = None,
        guard: bool = True,
        node: str | None = None,
        label: str = "",
        on_output: Callable[[Output], None] | None = None,
        on_restart: Callable[[_tasks.Restarted], None] | None = None,
    ) -> TaskResult:
        """Run code (or `argv`) in a sandbox and return how it ended.

        `on_output` is called with each piece of output as it comes; `on_restart` when the
        task begins anew because its node died, and what came before is void. When the caller
        is cancelled, so is the task.
        """
        task = api.SubmitTask(
            code=code, argv=tuple(argv), stdin=stdin, repo=repo, revision=revision,
            limits=limits or Limits(), guard=guard, node=node, label=label,
        )  # fmt: skip
        async with aclosing(self.stream(task)) as pieces:
            async for piece in pieces:
                if isinstance(piece, TaskResult):
                    return piece
                if isinstance(piece, _tasks.Restarted):
                    if on_restart is not None:
                        on_restart(piece)
                elif on_output is not None:
                    on_output(piece)
        raise AngelError("The stream of the task ended without a result.")

    async def stream(
        self, task: api.SubmitTask, *, on_accept: Callable[[api.TaskView], None] | None = None
    ) -> AsyncGenerator[Output | _tasks.Restarted | TaskResult, None]:
        """Run a task and yield its output as it comes, each new beginning, and its result last.

        Leaving the iterator before the result cancels the task.
        """
        async with aclosing(_tasks.stream(self, task, on_accept)) as pieces:
            async for piece in pieces:
                yield piece

    # -- repositories --------------------------------------------------------------------

    async def repos(self) -> tuple[api.RepoView, ...]:
        """Return all repositories."""
        return (await self._transport.call("GET", "/repos", api.RepoList)).repos

    async def create_repo(
        self, name: str, files: Mapping[str, str], message: str = "import"
    ) -> api.RepoView:
        """Import files as a new repository."""
        body = api.CreateRepo(name=name, files=dict(files), message=message)
        return await self._transport.call("POST", "/repos", api.RepoView, body=body)

    async def repo(self, name: str) -> api.RepoView:
        """Return a repository's branches."""
        return await self._transport.call("GET", "/repos" + segments(name), api.RepoView)

    async def revision(self, repo: str, revision: str) -> api.RevisionView:
        """Return a revision (or `main`, `dev`) with its files."""
        path = "/repos" + segments(repo, "revisions", revision)
        return await self._transport.call("GET", path, api.RevisionView)

    async def read_file(self, repo: str, revision: str, path: str) -> bytes:
        """Return a file's content at a revision (or `main`, `dev`)."""
        where = "/repos" + segments(repo, "revisions", revision, "file")
        return await self._transport.fetch("GET", where, query={"path": path})

    async def read_live(self, repo: str, path: str) -> bytes:
        """Return a file's content as it stands in the live documents at this moment."""
        where = "/repos" + segments(repo, "live")
        return await self._transport.fetch("GET", where, query={"path": path})

    async def bundle(self, repo: str, revision: str) -> Bundle:
        """Return all of a revision with its signature; verify it before using it."""
        where = "/repos" + segments(repo, "revisions", revision, "bundle")
        return msgspec.msgpack.decode(await self._transport.fetch("GET", where), type=Bundle)

    async def diff(self, repo: str, before: str, after: str) -> tuple[Change, ...]:
        """Return how two revisions differ."""
        where = "/repos" + segments(repo, "diff")
        query: dict[str, object] = {"before": before, "after": after}
        return (await self._transport.call("GET", where, api.ChangeList, query=query)).changes

    async def log(
        self, repo: str, branch: Literal["main", "dev"] = "main", limit: int = 50
    ) -> tuple[Revision, ...]:
        """Return first-parent history, newest first."""
        where = "/repos" + segments(repo, "log")
        query: dict[str, object] = {"branch": branch, "limit": limit}
        return (await self._transport.call("GET", where, api.RevisionList, query=query)).revisions

    async def rollback(self, repo: str, to: str, reason: str = "") -> Revision:
        """Take `main` back to the tree of `to` with a new commit; return the new `main`."""
        where = "/repos" + segments(repo, "rollback")
        body = api.Rollback(to=to, reason=reason)
        answer = await self._transport.call("POST", where, _NewMain, body=body)
        return answer.revision

    # -- proposals -----------------------------------------------------------------------

    async def propose(
        self, repo: str, base: str, edits: Sequence[Edit], message: str
    ) -> api.ProposalView:
        """Propose edits against a base revision (or `main`, `dev`)."""
        body = api.SubmitProposal(
            base=base, edits=tuple(edits), message=message, proposal=new_proposal_id()
        )
        where = "/repos" + segments(repo, "proposals")
        return await self._transport.call("POST", where, api.ProposalView, body=body)

    async def proposal(self, proposal: str, wait: float = 0) -> api.ProposalView:
        """Return a proposal, after at most `wait` seconds for it to settle or to need somebody."""
        return await self._transport.call(
            "GET",
            "/proposals" + segments(proposal),
            api.ProposalView,
            query={"wait": wait or None},
            patience_s=wait,
        )

    async def proposals(
        self, state: str = "", repo: str = "", limit: int = 50
    ) -> tuple[api.ProposalView, ...]:
        """Return proposals, newest first."""
        query: dict[str, object] = {"state": state, "repo": repo, "limit": limit}
        answer = await self._transport.call("GET", "/proposals", api.ProposalList, query=query)
        return answer.proposals

    async def approve(self, proposal: str, digest: str, comment: str = "") -> api.ProposalView:
        """Approve exactly the edits that `digest` names."""
        return await self._review(proposal, "approve", digest, comment)

    async def reject(self, proposal: str, digest: str, comment: str = "") -> api.ProposalView:
        """Reject a proposal; its edits are taken out of `dev` again."""
        return await self._review(proposal, "reject", digest, comment)

    async def _review(
        self, proposal: str, word: str, digest: str, comment: str
    ) -> api.ProposalView:
        where = "/proposals" + segments(proposal, word)
        body = api.Review(digest=digest, comment=comment)
        return await self._transport.call("POST", where, api.ProposalView, body=body)

    # -- nodes, agents, people -----------------------------------------------------------

    async def enrol_token(
        self,
        kind: Literal["node", "agent"],
        name: str,
        node_role: Literal["execution", "labs"] = "execution",
        ttl_s: int = 600,
    ) -> api.EnrolmentView:
        """Return a single-use token by which a node or agent gets its certificate."""
        body = api.CreateEnrolment(kind=kind, name=name, node_role=node_role, ttl_s=ttl_s)
        return await self._transport.call("POST", "/enrolments", api.EnrolmentView, body=body)

    async def quarantine(self, principal: str, reason: str = "") -> None:
        """Refuse a node or agent (`agent/ada`) from now on and void what it was granted."""
        where = "/principals" + segments(*principal.split("/", 1), "quarantine")
        await self._transport.call("POST", where, api.Ok, body=api.Reason(reason=reason))

    async def release(self, principal: str) -> None:
        """End a quarantine; a new certificate has to be enrolled."""
        where = "/principals" + segments(*principal.split("/", 1), "release")
        await self._transport.call("POST", where, api.Ok)

    async def people(self) -> tuple[api.PersonView, ...]:
        """Return all people."""
        return (await self._transport.call("GET", "/people", api.PersonList)).people

    async def add_person(self, name: str, role: api.Role) -> api.PersonView:
        """Add a person; the token in the answer is shown only now."""
        body = api.CreatePerson(name=name, role=role)
        return await self._transport.call("POST", "/people", api.PersonView, body=body)

    async def remove_person(self, name: str) -> None:
        """Remove a person; the token is void from now on."""
        await self._transport.call("DELETE", "/people" + segments(name), api.Ok)

    # -- audit ---------------------------------------------------------------------------

    async def audit_entries(self, after: int = -1, limit: int = 100) -> tuple[api.AuditEntry, ...]:
        """Return entries of the audit log after an index, oldest first."""
        query: dict[str, object] = {"after": after, "limit": limit}
        answer = await self._transport.call("GET", "/audit/entries", api.AuditEntries, query=query)
        return answer.entries

    async def checkpoint(self) -> api.CheckpointView:
        """Return the newest signed checkpoint of the audit log."""
        return await self._transport.call("GET", "/audit/checkpoint", api.CheckpointView)

    def audit_export(self) -> AsyncGenerator[bytes, None]:
        """Yield the whole audit log in pieces of JSON lines, to be verified without the system."""
        return self.download("/audit/export")


class _NewMain(api.View, frozen=True, kw_only=True):
    revision: Revision
