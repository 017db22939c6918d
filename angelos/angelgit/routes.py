"""AngelGit's part of the control API: repositories, revisions, live files.

A revision in a path may also be a branch, or the unique beginning of a revision.

    GET /repos/study/revisions/main/file?path=study/difflib.py
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from angelos.angelgit.git_routes import git_routes
from angelos.angelgit.history_routes import history_routes
from angelos.core.api import (
    CreateRepo,
    PendingList,
    RepoList,
    RepoView,
    RevisionView,
)
from angelos.core.errors import InvalidInput
from angelos.core.ids import ProposalId, Revision, is_id, is_revision
from angelos.core.pending import Pending
from angelos.core.permissions import Permission
from angelos.core.revision import Bundle
from angelos.core.revision_v2 import EntryMode, decode_commit
from angelos.core.routes import Call, Nothing, Route, whole_number

if TYPE_CHECKING:
    from angelos.angelgit.changes.reading import RevisionQueries
    from angelos.angelgit.service import AngelGit

_MAX_PENDING = 200


def routes(service: AngelGit) -> list[Route]:
    """Return the routes of a running AngelGit."""
    api = _Api(service)
    return [*_repositories(api), *_revisions(api), *history_routes(service), *git_routes(service)]


def _repositories(api: _Api) -> list[Route]:
    read = Permission.revisions_read
    return [
        Route("GET", "/repos", read, api.repos, response=RepoList, summary="All repositories"),
        Route(
            "POST",
            "/repos",
            Permission.repositories_create,
            api.create,
            request=CreateRepo,
            response=RepoView,
            status=201,
            summary="Import files as a new repository",
        ),
        Route("GET", "/repos/{repo}", read, api.repo, response=RepoView, summary="A repository"),
        Route(
            "GET",
            "/repos/{repo}/live",
            Permission.documents_read,
            api.live,
            response=bytes,
            query=("path",),
            media_type="application/octet-stream",
            summary="The current content of a file of dev",
        ),
        Route(
            "GET",
            "/repos/{repo}/pending",
            Permission.proposals_read,
            api.pending,
            response=PendingList,
            query=("path", "after", "limit"),
            summary="The proposals that wait beside dev, in hunks, tried against the live text",
        ),
        Route(
            "GET",
            "/proposals/{proposal}/pending",
            Permission.proposals_read,
            api.one_pending,
            response=Pending,
            summary="One proposal in hunks, tried against the live text",
        ),
    ]


def _revisions(api: _Api) -> list[Route]:
    read, one = Permission.revisions_read, "/repos/{repo}/revisions/{revision}"
    return [
        Route("GET", one, read, api.revision, response=RevisionView, summary="A revision"),
        Route(
            "GET",
            f"{one}/file",
            read,
            api.file,
            response=bytes,
            query=("path",),
            media_type="application/octet-stream",
            summary="A file of a revision",
        ),
        _bundle_route(one, api.bundle),
    ]


def _bundle_route(one: str, handle: Callable[[Call[Nothing]], Awaitable[Bundle]]) -> Route:
    return Route(
        "GET",
        f"{one}/bundle",
        Permission.revisions_read,
        handle,
        response=Bundle,
        query=("have",),
        media_type="application/msgpack",
        summary="A signed revision, or what it has beyond the revision `have`",
    )


def bundle_routes(queries: RevisionQueries) -> list[Route]:
    """Return the one operation that nodes need, from the database alone."""

    async def bundle(call: Call[Nothing]) -> Bundle:
        have = call.query.get("have")
        repo, revision = call.params["repo"], Revision(call.params["revision"])
        return await queries.bundle(repo, revision, Revision(have) if have else None)

    return [_bundle_route("/repos/{repo}/revisions/{revision}", bundle)]


class _Api:
    def __init__(self, service: AngelGit) -> None:
        self._git = service

    async def repos(self, call: Call[Nothing]) -> RepoList:
        del call
        return RepoList(repos=tuple([await self._view(name) for name in await self._git.repos()]))

    async def create(self, call: Call[CreateRepo]) -> RepoView:
        body = call.body
        files, modes = _new_files(body)
        await self._git.create(body.name, files, call.principal.id, body.message, modes)
        return await self._view(body.name)

    async def repo(self, call: Call[Nothing]) -> RepoView:
        return await self._view(call.params["repo"])

    async def revision(self, call: Call[Nothing]) -> RevisionView:
        repo, revision = await self._named(call)
        signed = await self._git.signed(repo, revision)
        commit = decode_commit(signed.body)
        return RevisionView(
            revision=revision,
            repo=repo,
            parents=commit.parents,
            tree=commit.tree,
            author=commit.authors[0],
            authors=commit.authors,
            message=commit.message,
            trailers=commit.trailers,
            at=commit.at,
            body=signed.body,
            signature=signed.signature,
            files=await self._git.tree(repo, revision),
        )

    async def file(self, call: Call[Nothing]) -> bytes:
        repo, revision = await self._named(call)
        return await self._git.read(repo, revision, _required(call, "path"))

    async def bundle(self, call: Call[Nothing]) -> Bundle:
        repo, revision = await self._named(call)
        have = call.query.get("have", "")
        if have and not is_revision(have):
            raise InvalidInput("`have` must be a revision.")
        return await self._git.bundle(repo, revision, Revision(have) if have else None)

    async def live(self, call: Call[Nothing]) -> bytes:
        return await self._git.read_live(call.params["repo"], _required(call, "path"))

    async def pending(self, call: Call[Nothing]) -> PendingList:
        after = call.query.get("after", "")
        if after and not is_id(after):
            raise InvalidInput(f"{after[:80]!r} is no proposal id.")
        pending = await self._git.list_pending(
            call.params["repo"],
            call.query.get("path", ""),
            ProposalId(after) if after else None,
            whole_number(call, "limit", 50, _MAX_PENDING),
        )
        return PendingList(pending=tuple(pending))

    async def one_pending(self, call: Call[Nothing]) -> Pending:
        return await self._git.pending(ProposalId(call.params["proposal"]))

    async def _view(self, repo: str) -> RepoView:
        dev, main = await self._git.head(repo, "dev"), await self._git.head(repo, "main")
        return RepoView(name=repo, dev=dev, main=main)

    async def _named(self, call: Call[Nothing]) -> tuple[str, Revision]:
        repo = call.params["repo"]
        return repo, await self._git.resolve(repo, call.params["revision"])


def _required(call: Call[Nothing], name: str) -> str:
    if not call.query.get(name):
        raise InvalidInput(f"The query parameter {name!r} is required.")
    return call.query[name]


def _new_files(body: CreateRepo) -> tuple[dict[str, bytes], dict[str, EntryMode]]:
    """Return the contents and modes of a new repository's files; raise `InvalidInput`."""
    texts = {path: _encode(path, text) for path, text in body.files.items()}
    links = {path: _encode(path, target) for path, target in body.links.items()}
    files = {**texts, **body.blobs, **links}
    if len(files) != len(texts) + len(body.blobs) + len(links):
        raise InvalidInput("A path is given twice: as text, as a blob or as a link.")
    if wrong := set(body.executable) & links.keys():
        raise InvalidInput(f"{min(wrong)} is a link; it cannot be a program as well.")
    modes = dict.fromkeys(body.executable, EntryMode.executable)
    return files, modes | dict.fromkeys(links, EntryMode.symlink)


def _encode(path: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The text of {path!r} holds a lone surrogate.") from error
