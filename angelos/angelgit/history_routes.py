"""The routes of history: log, differences, blame, branches of one's own.

GET /repos/study/log?branch=main&limit=20
GET /repos/study/blame?path=study/difflib.py&revision=main
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from angelos.core.branches import branch_name
from angelos.core.errors import InvalidInput
from angelos.core.history import (
    BlameView,
    BranchPage,
    CherryPick,
    CollectionReport,
    CollectRepo,
    CommitEdits,
    CommitMade,
    CreateBranch,
    DiffPage,
    HistoryPage,
    MoveBranch,
    VerifyPage,
)
from angelos.core.ids import Revision, is_revision
from angelos.core.permissions import Permission
from angelos.core.repository import BranchHead
from angelos.core.routes import MAX_LIMIT, Call, Nothing, Route, whole_number

if TYPE_CHECKING:
    from angelos.angelgit.service import AngelGit

_MAX_GROUPS = 2_000
_DAY_S = 86_400.0
_MAX_AFTER = 10_000_000


def history_routes(service: AngelGit) -> list[Route]:
    """Return the routes of a running AngelGit's history."""
    api = _HistoryApi(service)
    return [*_reading(api), *_branches(api), *_changing(api), _collecting(api)]


def _reading(api: _HistoryApi) -> list[Route]:
    read = Permission.revisions_read
    return [
        Route(
            "GET",
            "/repos/{repo}/log",
            read,
            api.log,
            response=HistoryPage,
            query=("branch", "after", "path", "limit", "merges"),
            summary="History of a branch or revision, newest first; merges=1 follows all parents",
        ),
        Route(
            "GET",
            "/repos/{repo}/diff",
            read,
            api.diff,
            response=DiffPage,
            query=("before", "after", "path", "beyond", "limit"),
            summary="How two revisions differ, file by file, notebooks by cell",
        ),
        Route(
            "GET",
            "/repos/{repo}/blame",
            read,
            api.blame,
            response=BlameView,
            query=("path", "revision", "after", "limit"),
            summary="Who wrote each line of a file",
        ),
        Route(
            "GET",
            "/repos/{repo}/branches",
            read,
            api.branches,
            response=BranchPage,
            query=("after", "limit"),
            summary="All branches, by name",
        ),
        Route(
            "GET",
            "/repos/{repo}/verify",
            Permission.repositories_verify,
            api.verify,
            response=VerifyPage,
            query=("after",),
            summary="Read a page of the repository back, and say what is damaged",
        ),
    ]


def _branches(api: _HistoryApi) -> list[Route]:
    own = Permission.proposals_create
    path = "/repos/{repo}/branches"
    return [
        Route(
            "POST",
            path,
            own,
            api.create_branch,
            request=CreateBranch,
            response=BranchHead,
            status=201,
            summary="Make a branch of one's own",
        ),
        Route(
            "PUT",
            path,
            own,
            api.move_branch,
            request=MoveBranch,
            response=BranchHead,
            summary="Move a branch of one's own, forward or not",
        ),
        Route(
            "DELETE",
            path,
            own,
            api.delete_branch,
            response=BranchPage,
            query=("name", "expected"),
            summary="Delete a branch of one's own",
        ),
    ]


def _changing(api: _HistoryApi) -> list[Route]:
    own = Permission.proposals_create
    return [
        Route(
            "POST",
            "/repos/{repo}/commits",
            own,
            api.commit,
            request=CommitEdits,
            response=CommitMade,
            status=201,
            summary="Commit edits on a branch of one's own",
        ),
        Route(
            "POST",
            "/repos/{repo}/commits/pick",
            own,
            api.pick,
            request=CherryPick,
            response=CommitMade,
            status=201,
            summary="Commit on a branch of one's own what another commit changed",
        ),
    ]


def _collecting(api: _HistoryApi) -> Route:
    return Route(
        "POST",
        "/repos/{repo}/gc",
        Permission.repositories_collect,
        api.collect,
        request=CollectRepo,
        response=CollectionReport,
        summary="Delete what nothing reaches, or count it",
    )


class _HistoryApi:
    def __init__(self, service: AngelGit) -> None:
        self._git = service

    async def log(self, call: Call[Nothing]) -> HistoryPage:
        return await self._git.log(
            call.params["repo"],
            call.query.get("branch") or "main",
            after=call.query.get("after", ""),
            path=call.query.get("path", ""),
            limit=whole_number(call, "limit", 50, MAX_LIMIT),
            merges=bool(whole_number(call, "merges", 0, 1, 0)),
        )

    async def diff(self, call: Call[Nothing]) -> DiffPage:
        return await self._git.diff(
            call.params["repo"],
            call.query.get("before", ""),
            call.query.get("after") or "main",
            path=call.query.get("path", ""),
            beyond=call.query.get("beyond", ""),
            limit=whole_number(call, "limit", 100, MAX_LIMIT),
        )

    async def blame(self, call: Call[Nothing]) -> BlameView:
        path = call.query.get("path", "")
        if not path:
            raise InvalidInput("The query parameter 'path' is required.")
        return await self._git.blame(
            call.params["repo"],
            call.query.get("revision") or "main",
            path,
            after=whole_number(call, "after", 0, _MAX_AFTER, 0),
            limit=whole_number(call, "limit", 500, _MAX_GROUPS),
        )

    async def branches(self, call: Call[Nothing]) -> BranchPage:
        limit = whole_number(call, "limit", 100, MAX_LIMIT)
        after = call.query.get("after", "")
        page = await self._git.list_branches(call.params["repo"], after, limit)
        return BranchPage(branches=tuple(page), next=page[-1].name if len(page) == limit else "")

    async def verify(self, call: Call[Nothing]) -> VerifyPage:
        return await self._git.verify(call.params["repo"], call.query.get("after", ""))

    async def collect(self, call: Call[CollectRepo]) -> CollectionReport:
        repo, body = call.params["repo"], call.body
        return await self._git.collect(repo, body.keep_days * _DAY_S, dry_run=body.dry_run)

    async def create_branch(self, call: Call[CreateBranch]) -> BranchHead:
        repo, body = call.params["repo"], call.body
        at = await self._git.resolve(repo, body.at)
        return await self._git.create_branch(repo, branch_name(body.name), at, call.principal.id)

    async def move_branch(self, call: Call[MoveBranch]) -> BranchHead:
        repo, body = call.params["repo"], call.body
        to = await self._git.resolve(repo, body.to)
        name, by = branch_name(body.name), call.principal.id
        return await self._git.move_branch(repo, name, to, body.expected, by)

    async def delete_branch(self, call: Call[Nothing]) -> BranchPage:
        name = branch_name(call.query.get("name", ""))
        expected = call.query.get("expected", "")
        if not is_revision(expected):
            raise InvalidInput("`expected` must be the revision at which the branch is.")
        repo = call.params["repo"]
        await self._git.delete_branch(repo, name, Revision(expected), call.principal.id)
        return BranchPage(branches=())

    async def commit(self, call: Call[CommitEdits]) -> CommitMade:
        repo, body, author = call.params["repo"], call.body, call.principal.id
        name = branch_name(body.branch)
        revision = await self._git.commit_edits(
            repo, name, body.expected, body.edits, author, body.message
        )
        return CommitMade(repo=repo, branch=name, revision=revision, author=author)

    async def pick(self, call: Call[CherryPick]) -> CommitMade:
        repo, body, author = call.params["repo"], call.body, call.principal.id
        name = branch_name(body.branch)
        picked = await self._git.resolve(repo, body.revision)
        revision = await self._git.pick(repo, picked, name, author)
        return CommitMade(repo=repo, branch=name, revision=revision, author=author)
