"""Which commits, objects and blobs something reaches; what is left can go.

Marking goes on from where it was, so that a long pass without locks and a short one under the lock
make one whole.

    marks = Marks("study", keep_since_ms)
    await marks.update(store)        # long, beside everybody's work
    await marks.update(locked)       # what came since
    marks.doomed                     # revisions of `study` that nothing reaches
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec

from angelos.angelgit.storage.models import FileChange, PreparedProposal, decode
from angelos.angelgit.storage.sql import NamedQueries
from angelos.angelgit.storage.store import Store
from angelos.core.revision_v2 import (
    CommitObject,
    DirectoryFan,
    EntryMode,
    decode_commit,
    decode_directory,
)

_PAGE = 200


class _Commit(msgspec.Struct, frozen=True):
    parents: tuple[str, ...]
    tree: str
    at: int

    @classmethod
    def of(cls, commit: CommitObject) -> _Commit:
        return cls(commit.parents, commit.tree, commit.at)


class Marks:
    """What is reached, as far as it was looked at.

    Args:
        repo: the repository whose commits may go; all other repositories' are kept.
        keep_since: Unix milliseconds; what is younger is kept.
    """

    def __init__(self, repo: str, keep_since: int) -> None:
        self._repo = repo
        self._keep_since = keep_since
        self._commits: dict[str, _Commit] = {}
        self._others: set[str] = set()
        """Commits of other repositories that were walked."""
        self._proposals: dict[str, bytes] = {}
        """Proposal -> the digest of what was marked of it."""
        self._reached: set[str] = set()
        self.hashes: set[str] = set()
        """Objects and blobs that are reached."""
        self._walked: set[str] = set()
        self._named: set[str] = set()
        """Revisions that proposals were made on, or do again."""

    @property
    def doomed(self) -> set[str]:
        """Commits of the repository that nothing reaches."""
        return self._commits.keys() - self._reached

    async def update(self, store: Store) -> None:
        """Look at everything that was not looked at yet."""
        sql = NamedQueries(store.connection)
        trees = await self._new_commits(sql)
        await self._new_proposals(sql)
        roots = self._named | {row[0].hex() for row in await sql.all("gc_roots", repo=self._repo)}
        roots |= {r for r, one in self._commits.items() if one.at >= self._keep_since}
        new = self._reach(roots)
        trees |= {self._commits[revision].tree for revision in new}
        await self._walk(store, trees)
        self.hashes |= {row[0].hex() for row in await sql.all("gc_document_contents")}

    async def _new_commits(self, sql: NamedQueries) -> set[str]:
        """Read commits that are new; return the trees of other repositories' ones."""
        rows = await sql.all("gc_revisions")
        own = {r.hex() for r, repo in rows if repo == self._repo} - self._commits.keys()
        other = {r.hex() for r, repo in rows if repo != self._repo} - self._others
        trees: set[str] = set()
        for page in _pages(sorted(own | other)):
            keys = [bytes.fromhex(revision) for revision in page]
            for revision, body in await sql.all("gc_commits", revisions=keys):
                one = _Commit.of(decode_commit(body))
                if revision.hex() in own:
                    self._commits[revision.hex()] = one
                else:
                    trees.add(one.tree)
        self._others |= other
        return trees

    def _reach(self, roots: Iterable[str]) -> set[str]:
        """Follow all parents; return the commits that were not reached before."""
        new: set[str] = set()
        waiting = [revision for revision in roots if revision in self._commits]
        while waiting:
            revision = waiting.pop()
            if revision in self._reached:
                continue
            self._reached.add(revision)
            new.add(revision)
            parents = self._commits[revision].parents
            waiting += [parent for parent in parents if parent in self._commits]
        return new

    async def _walk(self, store: Store, trees: Iterable[str]) -> None:
        """Mark the directories and files of trees; what was walked is not read again."""
        waiting = set(trees) - self._walked
        while waiting:
            page = [waiting.pop() for _ in range(min(_PAGE, len(waiting)))]
            self._walked.update(page)
            self.hashes.update(page)
            for body in (await store.objects.load(page)).values():
                for digest, is_directory in _children(body):
                    if not is_directory:
                        self.hashes.add(digest)
                    elif digest not in self._walked:
                        waiting.add(digest)
            await asyncio.sleep(0)

    async def _new_proposals(self, sql: NamedQueries) -> None:
        """Mark what proposals hold, in any state: they are shown after they were closed too."""
        # A part that is taken out narrows a proposal, which has another digest then.
        rows: list[tuple[str, bytes]] = await sql.all("gc_proposals")
        due = [one for one, digest in rows if self._proposals.get(one) != digest]
        for page in _pages(due):
            for (body,) in await sql.all("gc_proposal_bodies", ids=page):
                record = decode(body, PreparedProposal)
                self.hashes.add(record.edits)
                self.hashes.update(_hashes(record.changes + record.whole))
                self._named.add(record.base)
                if record.picked_from is not None:
                    self._named.add(record.picked_from)
        self._proposals.update(rows)


def _children(body: bytes) -> Iterator[tuple[str, bool]]:
    directory = decode_directory(body)
    if isinstance(directory, DirectoryFan):
        yield from ((slot.hash, True) for slot in directory.slots if slot is not None)
    else:
        yield from ((entry.hash, entry.mode is EntryMode.directory) for entry in directory.entries)


def _hashes(changes: Iterable[FileChange]) -> Iterator[str]:
    for change in changes:
        for entry in (change.before, change.after):
            if entry is not None:
                yield entry.sha256


def _pages(items: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(items), _PAGE):
        yield items[start : start + _PAGE]
