"""Repositories: their files and revisions, live and on `main`.

For example:

    study = angelos.repos["study"]                      # a handle, without a request
    text = (await study.read("study/mean.py")).decode()
    async for commit in study.history():
        ...
    edit = NewText(path="study/mean.py", text=text + "...")
    proposal = await study.propose([edit], base="main", message="Add a median")
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import msgspec

from angelos.client.proposals import Proposal, ProposalCollection
from angelos.client.transport import Transport, segments
from angelos.core import api
from angelos.core.errors import Busy, InvalidInput, Unavailable
from angelos.core.history import (
    BlamedLines,
    BlameView,
    BranchPage,
    CherryPick,
    CollectionReport,
    CollectRepo,
    CommitEdits,
    CommitMade,
    CommitSummary,
    CreateBranch,
    DiffPage,
    FileDiff,
    GitImported,
    HistoryPage,
    MoveBranch,
    PickRevision,
    VerifyPage,
)
from angelos.core.ids import Revision
from angelos.core.pending import Pending
from angelos.core.repository import BranchHead, Edit, NewText, TreeEdit
from angelos.core.revision import Bundle

_BUNDLE_S = 60.0
"""How much longer than another answer a bundle may take."""
_EXPORT_S = 600.0
"""How long a repository may take to become git objects for the first time."""
_PAGE = 200
_TURN_S = 1.0
_TURNS = 300
"""How often a reading back asks for its turn."""


class Repo:
    """A handle on one repository; `angelos.repos[name]` and `create` give one.

    Wherever a method takes a revision, a branch stands for its present head, the first digits for
    the only revision that has them, and `main~2` for the one two before.

    Attributes:
        name: The repository's name.
    """

    def __init__(self, transport: Transport, name: str) -> None:
        self.name = name
        self._transport = transport

    def __repr__(self) -> str:
        return f"Repo({self.name!r})"

    async def view(self) -> api.RepoView:
        """Return the revisions at which the branches `main` and `dev` stand.

        Raises:
            NotFound: There is no such repository.
        """
        return await self._transport.call("GET", self._path(), api.RepoView)

    async def read(self, path: str, revision: str = "main") -> bytes:
        """Return a file's content.

        Args:
            path: The file's path in the repository.
            revision: The revision it is read at.

        Raises:
            NotFound: There is no such repository, revision or file.
        """
        route = self._path("revisions", revision, "file")
        return await self._transport.fetch("GET", route, query={"path": path})

    async def read_live(self, path: str) -> bytes:
        """Return a file's content in the live documents, with what was typed a moment ago.

        Args:
            path: The file's path in the repository.

        Raises:
            NotFound: There is no such repository or file.
        """
        return await self._transport.fetch("GET", self._path("live"), query={"path": path})

    async def log(
        self,
        branch: str = "main",
        limit: int = 50,
        *,
        after: str = "",
        path: str = "",
        merges: bool = False,
    ) -> HistoryPage:
        """Return a page of first-parent history, newest first; `history` gives all of it.

        Args:
            branch: Where it begins: a branch, a revision or its unique beginning.
            limit: At most so many commits.
            after: `next` of the page before.
            path: Only commits that change this file.
            merges: Follow all parents of merges; `after` is then of such a page.

        Raises:
            InvalidInput: `after` is of no such page.
            NotFound: There is no such repository, branch or revision.
        """
        query: dict[str, object] = {"branch": branch, "limit": limit, "after": after, "path": path}
        query |= {"merges": 1} if merges else {}
        return await self._transport.call("GET", self._path("log"), HistoryPage, query=query)

    async def history(
        self, branch: str = "main", *, path: str = ""
    ) -> AsyncIterator[CommitSummary]:
        """Yield first-parent history, newest first, to its end.

        Args:
            branch: Where it begins: a branch, a revision or its unique beginning.
            path: Only commits that change this file.

        Raises:
            NotFound: There is no such repository, branch or revision.
        """
        page = await self.log(branch, _PAGE, path=path)
        while True:
            for commit in page.commits:
                yield commit
            if not page.next:
                return
            page = await self.log(branch, _PAGE, after=page.next, path=path)

    async def diff(self, before: str, after: str, path: str = "") -> tuple[FileDiff, ...]:
        """Return the files that differ between two revisions, notebooks by cell.

        Args:
            before: The older revision or branch; empty: nothing, so that all is new.
            after: The newer one.
            path: Only this file, or what is below this folder.

        Raises:
            NotFound: There is no such repository or revision.
        """
        query: dict[str, object] = {"before": before, "after": after, "path": path}
        changes: list[FileDiff] = []
        while True:
            page = await self._transport.call("GET", self._path("diff"), DiffPage, query=query)
            changes += page.changes
            if not page.next:
                return tuple(changes)
            # What the names stand for now may be elsewhere by the next page.
            query |= {"beyond": page.next, "before": page.before, "after": page.after}

    async def blame(self, path: str, revision: str = "main") -> BlameView:
        """Return who wrote each line of a file: person or agent, task, proposal.

        Args:
            path: The file.
            revision: A revision or branch.

        Raises:
            InvalidInput: It is no text.
            NotFound: There is no such repository, revision or file.
            TooLarge: It is too long.
        """
        query: dict[str, object] = {"path": path, "revision": revision}
        groups: list[BlamedLines] = []
        commits: dict[str, CommitSummary] = {}
        while True:
            page = await self._transport.call(
                "GET", self._path("blame"), BlameView, query=query, patience_s=_BUNDLE_S
            )
            groups += page.groups
            commits |= {commit.id: commit for commit in page.commits}
            if not page.next:
                return msgspec.structs.replace(
                    page, groups=tuple(groups), commits=tuple(commits.values())
                )
            query |= {"after": page.next, "revision": page.revision}

    async def verify(self) -> AsyncIterator[VerifyPage]:
        """Read the whole repository back from the store; yield what was read, page by page.

        Each page names the damage that was met: what is missing, or is not what its hash names.
        While somebody else reads it back, this waits for its turn.

        Raises:
            Busy: There was no turn for some minutes.
            NotFound: There is no such repository.
        """
        after = ""
        while True:
            page = await self._verify_page(after)
            yield page
            if not (after := page.next):
                return

    async def _verify_page(self, after: str) -> VerifyPage:
        query: dict[str, object] = {"after": after}
        turns = _TURNS
        while True:
            try:
                return await self._transport.call(
                    "GET", self._path("verify"), VerifyPage, query=query, patience_s=_BUNDLE_S
                )
            except Busy:
                if not (turns := turns - 1):
                    raise
            await asyncio.sleep(_TURN_S)

    async def collect(self, *, keep_days: int = 14, dry_run: bool = True) -> CollectionReport:
        """Delete what nothing reaches, or count it; every named revision can still be restored.

        Args:
            keep_days: What is younger stays.
            dry_run: Only count.

        Raises:
            Busy: Another collection runs.
            NotFound: There is no such repository.
        """
        body = CollectRepo(keep_days=keep_days, dry_run=dry_run)
        return await self._transport.call(
            "POST", self._path("gc"), CollectionReport, body=body, patience_s=_EXPORT_S
        )

    # -- branches ----------------------------------------------------------------------------

    async def branches(self) -> tuple[BranchHead, ...]:
        """Return all branches, by name.

        Raises:
            NotFound: There is no such repository.
        """
        branches: list[BranchHead] = []
        after = ""
        while True:
            query: dict[str, object] = {"after": after, "limit": _PAGE}
            page = await self._transport.call(
                "GET", self._path("branches"), BranchPage, query=query
            )
            branches += page.branches
            if not (after := page.next):
                return tuple(branches)

    async def create_branch(self, name: str, at: str = "main") -> BranchHead:
        """Make a branch of one's own.

        Args:
            name: Its name, as git takes it.
            at: A branch or revision.

        Raises:
            Conflict: The name is taken, or cannot be beside another.
            InvalidInput: It is no name of a branch.
            NotFound: There is no such repository or revision.
            Refused: Nobody makes such a branch.
        """
        body = CreateBranch(name=name, at=at)
        return await self._transport.call("POST", self._path("branches"), BranchHead, body=body)

    async def move_branch(self, name: str, to: str, *, expected: str) -> BranchHead:
        """Move a branch of one's own, forward or not.

        Args:
            name: The branch.
            to: A branch or revision.
            expected: The revision at which it is.

        Raises:
            Conflict: It is elsewhere; `extra["revision"]` says where.
            Forbidden: It belongs to somebody else.
            NotFound: There is no such branch or revision.
            Refused: Nobody moves `main` or `dev` so.
        """
        body = MoveBranch(name=name, to=to, expected=Revision(expected))
        return await self._transport.call("PUT", self._path("branches"), BranchHead, body=body)

    async def delete_branch(self, name: str, *, expected: str) -> None:
        """Delete a branch of one's own; what is not there is no error.

        Args:
            name: The branch.
            expected: The revision at which it is.

        Raises:
            Conflict: It is elsewhere.
            Forbidden: It belongs to somebody else.
            Refused: Nobody deletes `main` or `dev`.
        """
        query: dict[str, object] = {"name": name, "expected": expected}
        await self._transport.call("DELETE", self._path("branches"), BranchPage, query=query)

    async def commit(
        self, branch: str, edits: Sequence[TreeEdit], *, expected: str, message: str
    ) -> CommitMade:
        """Commit edits on a branch of one's own.

        Args:
            branch: The branch.
            edits: At most one for each file.
            expected: Its head, against which the edits were made.
            message: The commit's message.

        Raises:
            Conflict: The branch is elsewhere, or has these files already.
            Forbidden: It belongs to somebody else.
            InvalidInput: An edit does not fit.
        """
        body = CommitEdits(
            branch=branch, expected=Revision(expected), edits=tuple(edits), message=message
        )
        return await self._transport.call("POST", self._path("commits"), CommitMade, body=body)

    async def pick(self, revision: str, branch: str) -> CommitMade:
        """Commit on a branch of one's own what another commit changed.

        Args:
            revision: The commit; of a merge, what it changed in its first parent.
            branch: The branch.

        Raises:
            Conflict: The branch has all of it.
            Forbidden: It belongs to somebody else.
            Stale: The same lines have changed there.
        """
        body = CherryPick(revision=revision, branch=branch)
        route = self._path("commits", "pick")
        return await self._transport.call("POST", route, CommitMade, body=body)

    async def cherry_pick(self, revision: str) -> Proposal:
        """Propose to do again on `main` what a commit of another branch changed.

        Args:
            revision: The commit; of a merge, what it changed in its first parent.

        Raises:
            Conflict: `main` has all of it.
            Forbidden: Policy does not permit it.
            Stale: The same lines have changed on `main`.
        """
        body = PickRevision(revision=revision)
        view = await self._transport.call(
            "POST", self._path("cherry-pick"), api.ProposalView, body=body
        )
        return Proposal(self._transport, view.id)

    # -- revisions ---------------------------------------------------------------------------

    async def revision(self, revision: str = "main") -> api.RevisionView:
        """Return a revision: its author, message, parents, signature and list of files.

        Args:
            revision: Which one.

        Raises:
            NotFound: There is no such repository or revision.
        """
        return await self._transport.call(
            "GET", self._path("revisions", revision), api.RevisionView
        )

    async def bundle(self, revision: str = "main", have: str | None = None) -> Bundle:
        """Return all of a revision with its signature; verify it before using it.

        Args:
            revision: Which one.
            have: A revision of which the caller has everything; only what differs is sent.

        Raises:
            NotFound: There is no such repository or revision.
            Unavailable: The server cannot be reached, or its answer is no bundle.
        """
        route = self._path("revisions", revision, "bundle")
        raw = await self._transport.fetch("GET", route, patience_s=_BUNDLE_S, query={"have": have})
        try:
            return msgspec.msgpack.decode(raw, type=Bundle)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise Unavailable(f"GET {route} answered with something else: {error}") from error

    async def git_bundle(self, *, notes: bool = False) -> bytes:
        """Return the whole repository as a git bundle, which `git clone` and `git fetch` read.

        Args:
            notes: With who wrote each line, as `refs/notes/ai` that git-ai reads.

        Raises:
            NotFound: There is no such repository.
            TooLarge: It is too large for one answer; `git clone` takes it.
        """
        query: dict[str, object] = {"notes": "ai" if notes else ""}
        route = self._path("git-bundle")
        return await self._transport.fetch("GET", route, query=query, patience_s=_EXPORT_S)

    async def allowed_signers(self) -> str:
        """Return the file by which `git verify-commit` accepts this repository's signatures.

        Raises:
            NotFound: There is no such repository.
        """
        return (await self._transport.fetch("GET", self._path("allowed-signers"))).decode()

    async def rollback(self, to: str, reason: str = "") -> Revision:
        """Return `main` to the files of an earlier revision with a new commit.

        Args:
            to: A revision of `main`'s history.
            reason: Why; becomes part of the commit.

        Returns:
            The new `main`.

        Raises:
            Conflict: `main` has those files already.
            Forbidden: The caller may not roll back.
            NotFound: `to` is not in `main`'s history.
        """
        body = api.Rollback(to=to, reason=reason)
        answer = await self._transport.call(
            "POST", self._path("rollback"), api.RolledBack, body=body
        )
        return answer.revision

    async def propose(self, edits: Sequence[Edit], *, base: str, message: str) -> Proposal:
        """Propose edits to this repository; `angelos.proposals.create` says more.

        Args:
            edits: New texts, unified diffs and deletions, at most one for each file.
            base: The revision that the edits were made from.
            message: What the change is for.

        Returns:
            A handle on the proposal; its tests run meanwhile.

        Raises:
            Stale: The same lines have changed since `base`; `extra["conflicts"]` has the texts.
            InvalidInput: An edit does not fit its base.
            Forbidden: Policy does not permit it.
            NotFound: There is no such repository or base.
        """
        proposals = ProposalCollection(self._transport)
        return await proposals.create(self.name, edits, base=base, message=message)

    async def propose_live(self, paths: Sequence[str] = (), *, message: str) -> Proposal:
        """Propose what is in the live documents for `main`, as it is now.

        Args:
            paths: The files; none: all in which `dev` differs from `main`.
            message: What the change is for.

        Returns:
            A handle on the proposal; its tests run meanwhile.

        Raises:
            InvalidInput: Nothing of it differs from `main`.
            NotFound: There is no such live file.
        """
        view = await self.view()
        chosen = tuple(paths) or tuple(
            change.path for change in await self.diff(view.main, view.dev) if change.after
        )
        edits = [NewText(path=path, text=(await self.read_live(path)).decode()) for path in chosen]
        if not edits:
            raise InvalidInput("The live documents do not differ from main.")
        return await self.propose(edits, base=view.main, message=message)

    async def pending(
        self, path: str = "", *, after: str = "", limit: int = 50
    ) -> tuple[Pending, ...]:
        """Return the proposals that wait beside `dev`, in hunks, tried against the live text.

        Args:
            path: Only those that change this file; empty: all.
            after: Only those that came after this proposal.
            limit: At most so many.

        Raises:
            Forbidden: The caller may not read proposals.
            NotFound: There is no such repository.
        """
        query: dict[str, object] = {"path": path, "after": after, "limit": limit}
        answer = await self._transport.call(
            "GET", self._path("pending"), api.PendingList, query=query
        )
        return answer.pending

    def _path(self, *parts: str) -> str:
        return "/repos" + segments(self.name, *parts)


class RepoCollection:
    """All repositories of a system: `angelos.repos`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getitem__(self, name: str) -> Repo:
        """Return a handle on a repository, without a request.

        Args:
            name: The repository's name.
        """
        return Repo(self._transport, name)

    async def list(self) -> tuple[api.RepoView, ...]:
        """Return all repositories with the heads of their branches.

        Raises:
            Forbidden: The caller may not read repositories.
        """
        return (await self._transport.call("GET", "/repos", api.RepoList)).repos

    async def create(
        self,
        name: str,
        files: Mapping[str, str],
        message: str = "import",
        *,
        blobs: Mapping[str, bytes] | None = None,
        links: Mapping[str, str] | None = None,
        executable: Sequence[str] = (),
    ) -> Repo:
        """Import files as a new repository; `dev` and `main` start at the same revision.

        Args:
            name: The repository's name: letters, digits, `.`, `_` and `-`, at most 64.
            files: Text by path; a notebook's is its JSON.
            message: The first commit's message.
            blobs: Content by path of what is no text.
            links: Target by path of symbolic links.
            executable: Paths of the files and blobs that are programs.

        Returns:
            A handle.

        Raises:
            Conflict: A repository has that name already.
            InvalidInput: The name or a path is not a good one.
            TooLarge: The files are more than one request may hold.
            Forbidden: The caller may not create repositories.
        """
        body = api.CreateRepo(
            name=name,
            files=dict(files),
            message=message,
            blobs=dict(blobs or {}),
            links=dict(links or {}),
            executable=tuple(executable),
        )
        view = await self._transport.call("POST", "/repos", api.RepoView, body=body)
        return self[view.name]

    async def import_git(self, name: str, bundle: bytes) -> GitImported:
        """Import a git repository with its history; its head becomes `main` and `dev`.

        Args:
            name: The repository's name.
            bundle: What `git bundle create FILE --all` writes.

        Returns:
            What came in.

        Raises:
            Conflict: A repository has that name already.
            InvalidInput: The name is no good one, or the bundle is broken.
            Refused: Something in it cannot be kept; the message names it.
            TooLarge: The bundle, or what is in it, is over a bound.
            Forbidden: The caller may not create repositories.
        """
        query: dict[str, object] = {"name": name}
        return await self._transport.call(
            "POST", "/git-imports", GitImported, body=bundle, query=query, patience_s=_EXPORT_S
        )
