"""History, differences and blame in pages, as the commands of `angelos repo` ask for them.

page = await repository.log("study", "main", limit=20)
page = await repository.log("study", "main", after=page.next)
"""

from __future__ import annotations

import heapq
import re
import sys
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from angelos.angelgit.changes.blame import Blame
from angelos.angelgit.changes.graph import CommitGraph
from angelos.angelgit.changes.proposals import diff_of
from angelos.angelgit.changes.reading import RevisionQueries
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.documents.edits import is_cut
from angelos.angelgit.merge.cell_diff import cell_diff
from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.merge.hunks import hunks_of
from angelos.angelgit.storage.models import FileChange
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.branches import BranchName, is_branch_name
from angelos.core.errors import InvalidInput, NotFound, TooLarge
from angelos.core.history import BlameView, CommitSummary, DiffPage, FileDiff, HistoryPage
from angelos.core.ids import Revision, is_revision
from angelos.core.pending import PendingHunk
from angelos.core.repository import BranchHead

MAX_PAGE = 1_000
_MAX_WALKED = 5_000
"""Commits that one page of a file's history looks at."""
_MAX_DIFFED = 8_000_000
"""Above this many bytes, all files of a page together, changes have no diffs."""
_MAX_CELL_HUNKS = 500
_MAX_FRONTIER = 100
"""Lines of history side by side, all of which a page's `next` names."""
_SHOWN = "x"
_HEAD = re.compile(r"([0-9]{1,9}|x)-([0-9a-f]{40}|[0-9a-f]{64})")
_PREFIX = re.compile(r"[0-9a-f]{4,64}")
_GIT_ID = re.compile(r"[0-9a-f]{40}")
_NAME = re.compile(r"(.+?)(?:~([0-9]{1,4}))?", re.DOTALL)


class HistoryQueries(RevisionQueries):
    """The history of all repositories."""

    async def resolve(self, repo: str, name: str) -> Revision:
        """Return the revision that a name stands for.

        Args:
            repo: the repository's name.
            name: a branch, a revision or its unique beginning; `~2` behind it goes two back.

        Raises:
            InvalidInput: the beginning is that of several revisions.
            NotFound: there is no such repository, branch or revision.
        """
        async with self._stores.begin() as store:
            return await self._resolved(store, repo, name)

    async def log(
        self,
        repo: str,
        start: str,
        *,
        after: str = "",
        path: str = "",
        limit: int = 50,
        merges: bool = False,
    ) -> HistoryPage:
        """Return a page of first-parent history, or of all of it, newest first.

        Args:
            repo: the repository's name.
            start: where it begins: a branch or revision.
            after: `next` of the page before; `start` does not count then.
            path: only commits that change this file.
            limit: at most so many commits.
            merges: follow all parents of merges, not only the first.

        Raises:
            InvalidInput: `after` is of no page.
            NotFound: there is no such repository, branch or revision.
        """
        async with self._stores.begin() as store:
            graph = await self._graph(store, repo)
            if merges:
                frontier = _Frontier(after)
                if not after:
                    frontier.heads[await self._resolved(store, repo, start)] = 0
                return await _all_parents(graph, frontier, path, limit)
            current: str = await self._resolved(store, repo, after or start)
            if after:
                current = _parent(await graph.commit(current))
            commits: list[CommitSummary] = []
            walked = 0
            last = ""
            while current and len(commits) < limit and walked < _MAX_WALKED:
                commit = await graph.commit(current)
                parent = _parent(commit)
                if not path or await _changes(graph, commit, parent, path):
                    commits.append(commit)
                last, current, walked = current, parent, walked + 1
        return HistoryPage(
            commits=tuple(commits),
            revisions=tuple(commit.id for commit in commits),
            next=last if current else "",
        )

    async def diff(
        self,
        repo: str,
        before: str,
        after: str,
        *,
        path: str = "",
        beyond: str = "",
        limit: int = 100,
    ) -> DiffPage:
        """Return a page of the files in which two revisions differ.

        Args:
            repo: the repository's name.
            before: the older revision or branch; empty: nothing, so that all is new.
            after: the newer one.
            path: only this file, or what is below this folder.
            beyond: `next` of the page before.
            limit: at most so many files.

        Raises:
            NotFound: there is no such repository, branch or revision.
        """
        async with self._stores.begin() as store:
            old = await self._resolved(store, repo, before) if before else None
            new = await self._resolved(store, repo, after)
            graph = await self._graph(store, repo)
            changes = await graph.changes(old, new)
            rows = [c for c in changes if c.path > beyond and (not path or _is_below(c, path))]
            page = rows[:limit]
            size = sum(e.size for c in page for e in (c.before, c.after) if e)
            files = await graph.changed_files(page) if size <= _MAX_DIFFED else None
        diffs = await in_thread(size, _file_diffs, page, files)
        return DiffPage(
            before=old or "",
            after=new,
            changes=tuple(diffs),
            next=page[-1].path if len(rows) > len(page) else "",
        )

    async def blame(
        self, repo: str, revision: str, path: str, *, after: int = 0, limit: int = MAX_PAGE
    ) -> BlameView:
        """Return who wrote the lines of a file.

        Args:
            repo: the repository's name.
            revision: a revision or branch.
            path: the file.
            after: `next` of the page before.
            limit: at most so many groups of lines.

        Raises:
            InvalidInput: it is no text.
            NotFound: there is no such repository, revision or file.
            TooLarge: it is too long.
        """
        async with self._stores.begin() as store:
            start = await self._resolved(store, repo, revision)
            blamed = await Blame(await self._graph(store, repo)).of(start, path)
        groups = blamed.groups[after : after + limit]
        end = after + len(groups)
        named = dict.fromkeys(group.commit for group in groups)
        return BlameView(
            revision=start,
            path=path,
            groups=tuple(groups),
            commits=tuple(blamed.commits[commit] for commit in named),
            next=str(end) if end < len(blamed.groups) else "",
        )

    @abstractmethod
    async def _graph(self, store: Store, repo: str) -> CommitGraph:
        """Return the commits of a repository, those among them that only git has."""

    async def _resolved(self, store: Store, repo: str, name: str) -> Revision:
        match = _NAME.fullmatch(name)
        if match is None:
            raise NotFound(f"{name[:80]!r} is not a revision.")
        revision: str = await _named(store, repo, match.group(1))
        if not (back := int(match.group(2) or 0)):
            return Revision(revision)
        graph = await self._graph(store, repo)
        for step in range(back):
            revision = _parent(await graph.commit(revision))
            if not revision:
                raise NotFound(f"{match.group(1)[:80]} has only {step} revisions below it.")
        return Revision(revision)

    async def list_branches(self, repo: str, after: str = "", limit: int = 100) -> list[BranchHead]:
        """Return branches in the order of their names; see `core.ports.Branches`."""
        async with self._stores.begin() as store:
            await store.head(repo, "main")
            return await store.branches(repo, after, limit)

    async def branch(self, repo: str, name: BranchName) -> BranchHead:
        """Return one branch; raise `NotFound`."""
        async with self._stores.begin() as store:
            return await store.branch(repo, name)


class _Frontier:
    """Where a page of whole history ends: the commits behind it, and what must not come again.

    A commit is met again by another child only at the same moment as it was shown, so those of the
    last moment are all that the next page has to know.
    """

    def __init__(self, after: str) -> None:
        matches = [_HEAD.fullmatch(one) for one in after.split(",")] if after else []
        pairs = [(match[1], match[2]) for match in matches if match]
        if len(pairs) != len(matches) or len(pairs) > 2 * _MAX_FRONTIER:
            raise InvalidInput("`after` is none that a page of this history gave.")
        self.heads = {one: int(depth) for depth, one in pairs if depth != _SHOWN}
        self.shown = {one for depth, one in pairs if depth == _SHOWN}

    @staticmethod
    def text(heads: Iterable[tuple[int, str]], shown: Sequence[str]) -> str:
        """Return the cursor."""
        ahead = [f"{depth}-{one}" for depth, one in heads]
        return ",".join([*ahead, *(f"{_SHOWN}-{one}" for one in shown[-_MAX_FRONTIER:])])


class _Met(NamedTuple):
    """A commit that a walk has met; they compare by age, then by how far away they are."""

    at: int
    """Minus its time, or that of the child by which it was met if that is older."""
    depth: int
    id: str
    commit: CommitSummary


async def _all_parents(graph: CommitGraph, start: _Frontier, path: str, limit: int) -> HistoryPage:
    """Walk all parents, the newest commit first; a commit comes before what it was made on.

    Where a clock ran back, a parent counts as old as the child by which it was met.
    """
    walk = _Walk(graph, start)
    for head, depth in start.heads.items():
        await walk.meet([head], -sys.maxsize, depth)
    commits: list[CommitSummary] = []
    while walk.waiting and len(commits) < limit and walk.walked < _MAX_WALKED:
        moment = await walk.same_moment()
        while moment and len(commits) < limit and walk.walked < _MAX_WALKED:
            one = moment.pop(0)
            await walk.show(one)
            if not path or await _changes_all(graph, one.commit, path):
                commits.append(one.commit)
        walk.put_back(moment)
    return HistoryPage(
        commits=tuple(commits),
        revisions=tuple(commit.id for commit in commits),
        next=walk.cursor(),
    )


class _Walk:
    """A walk over all parents."""

    def __init__(self, graph: CommitGraph, start: _Frontier) -> None:
        self._graph = graph
        self.waiting: list[_Met] = []
        self.walked = 0
        self._met = set(start.shown)
        self._last, self._shown = -sys.maxsize, list(start.shown)

    async def meet(self, commits: Iterable[str], at: int, depth: int) -> None:
        """Let commits wait that were not met before, by a child of this age."""
        for one in commits:
            if one not in self._met:
                self._met.add(one)
                summary = await self._graph.commit(one)
                heapq.heappush(self.waiting, _Met(max(at, -summary.at), depth, one, summary))

    async def show(self, one: _Met) -> None:
        """Note that a commit was shown, and meet its parents."""
        again = one.at == self._last or not self.walked
        self._shown = [*self._shown, one.id] if again else [one.id]
        self._last, self.walked = one.at, self.walked + 1
        await self.meet(one.commit.parents, one.at, one.depth + 1)

    async def same_moment(self) -> list[_Met]:
        """Take what is as old as the first that waits, with parents as old; children come first.

        By their times alone a parent could come before another of its children.
        """
        at = self.waiting[0].at
        rows: dict[str, _Met] = {}
        while self.waiting and self.waiting[0].at == at:
            one = heapq.heappop(self.waiting)
            rows[one.id] = one
        stack, children = [*rows.values()], Counter[str]()
        while stack:
            one = stack.pop()
            for parent in one.commit.parents:
                if parent not in self._met and len(rows) < _MAX_WALKED:
                    summary = await self._graph.commit(parent)
                    if -summary.at <= at:
                        self._met.add(parent)
                        rows[parent] = _Met(at, one.depth + 1, parent, summary)
                        stack.append(rows[parent])
                children[parent] += 1
        return _children_first(rows, children)

    def put_back(self, moment: Sequence[_Met]) -> None:
        """Let those wait that the page has no room for.

        Raises:
            TooLarge: More lines lie side by side than a cursor can name.
        """
        for one in _heads(moment):
            heapq.heappush(self.waiting, one)
        if len(self.waiting) > _MAX_FRONTIER:
            raise TooLarge(
                f"This history has more than {_MAX_FRONTIER} lines side by side.",
                hint="Read it first parent by first parent, or branch by branch.",
            )

    def cursor(self) -> str:
        """Return where the next page goes on; empty at the end."""
        ahead = [(one.depth, one.id) for one in sorted(self.waiting, key=lambda one: one[:3])]
        return _Frontier.text(ahead, self._shown) if ahead else ""


def _children_first(rows: Mapping[str, _Met], children: Counter[str]) -> list[_Met]:
    """Return commits each after its children, of which `children` says how many there are."""
    ready = [one for one in rows.values() if not children[one.id]]
    heapq.heapify(ready)
    order: list[_Met] = []
    while ready:
        one = heapq.heappop(ready)
        order.append(one)
        for parent in one.commit.parents:
            children[parent] -= 1
            if not children[parent] and parent in rows:
                heapq.heappush(ready, rows[parent])
    return order


def _heads(rows: Sequence[_Met]) -> list[_Met]:
    """Return those of some commits that are no other's parent."""
    parents = {parent for one in rows for parent in one.commit.parents}
    return [one for one in rows if one.id not in parents]


async def _changes_all(graph: CommitGraph, commit: CommitSummary, path: str) -> bool:
    """Return whether a commit has at a path what none of its parents has, as `git log` asks."""
    entry = await graph.entry(commit.id, path)
    if not commit.parents:
        return entry is not None
    for parent in commit.parents:
        if entry == await graph.entry(parent, path):
            return False
    return True


def _parent(commit: CommitSummary) -> str:
    return commit.parents[0] if commit.parents else ""


async def _changes(graph: CommitGraph, commit: CommitSummary, parent: str, path: str) -> bool:
    after = await graph.entry(commit.id, path)
    return after != (await graph.entry(parent, path) if parent else None)


def _is_below(change: FileChange, path: str) -> bool:
    folder = path.rstrip("/") + "/"
    return any(p == path or p.startswith(folder) for p in (change.path, change.to))


def _file_diffs(
    changes: Sequence[FileChange], files: Sequence[ChangedFile] | None
) -> list[FileDiff]:
    contents = files or [ChangedFile(c.path, c.to, None, None) for c in changes]
    return [_file_diff(c, f) for c, f in zip(changes, contents, strict=True)]


def _file_diff(change: FileChange, file: ChangedFile) -> FileDiff:
    before, after = change.before, change.after
    modes = (before.mode.name, after.mode.name) if before and after else ("", "")
    shown = file.before is not None or file.after is not None
    diff, cells = _shown(change, file) if shown else ("", ())
    return FileDiff(
        path=change.path,
        to=change.to,
        before=before and before.sha256,
        after=after and after.sha256,
        modes=modes if modes[0] != modes[1] else ("", ""),
        diff=diff,
        cells=cells[:_MAX_CELL_HUNKS],
        cut=not shown or is_cut(diff) or len(cells) > _MAX_CELL_HUNKS,
    )


def _shown(change: FileChange, file: ChangedFile) -> tuple[str, tuple[PendingHunk, ...]]:
    """Return a file's difference for people, and of a notebook that by cells."""
    sides = (file.before, file.after)
    notebook = is_notebook(change.path) and is_notebook(change.target)
    if notebook and all(side is None or side.live for side in sides):
        texts = [side.text if side else None for side in sides]
        with suppress(InvalidInput):  # git may hold a notebook that is none of ours
            cells = hunks_of(change.target, *texts)
            return cell_diff(change.target, *texts), cells
    return diff_of(change.target, *sides), ()


async def _named(store: Store, repo: str, name: str) -> Revision:
    if is_branch_name(name) and (head := await store.find_branch(repo, name)):
        return head.revision
    await store.head(repo, "main")
    if is_revision(name):
        await store.signed(repo, Revision(name))
        return Revision(name)
    if git := await _git_id(store, repo, name):
        return await store.git.revision(repo, git) or Revision(git)
    candidates = await store.beginning_with(repo, name) if _PREFIX.fullmatch(name) else []
    if len(candidates) > 1:
        raise InvalidInput(f"{name} is the beginning of several revisions.", hint="Type more.")
    if not candidates:
        raise NotFound(
            f"{name[:80]!r} is not a revision or branch of {repo}.",
            hint="A revision has 64 hex digits, of which the first few are enough.",
        )
    return candidates[0]


async def _git_id(store: Store, repo: str, name: str) -> str:
    """Return the git commit that a name is, or that is a branch or tag of this name in git."""
    if _GIT_ID.fullmatch(name):
        return name
    try:
        encoded = name.encode(errors="surrogateescape")
    except UnicodeEncodeError:
        return ""
    refs = await store.git.refs(repo)
    for prefix in (b"refs/heads/", b"refs/tags/", b"refs/", b""):
        if prefix + encoded in refs:
            return refs[prefix + encoded]
    return ""
