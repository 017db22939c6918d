"""Commits: how they are signed, and what people typed since the last one of `dev`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from angelos.angelgit.changes.sides import mode_of
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import ROOM, SYSTEM, AdvanceCause
from angelos.angelgit.storage.store import Store
from angelos.core.errors import InvalidInput
from angelos.core.facts import BranchAdvanced, Fact
from angelos.core.ids import PrincipalId, ProposalId, Revision
from angelos.core.ports import Clock
from angelos.core.revision_v2 import (
    MAX_AUTHORS,
    MAX_MESSAGE_BYTES,
    CommitObject,
    SignedCommitObject,
    Trailer,
    TrailerKey,
    TreeEntry,
    sign_commit_object,
)
from angelos.core.signing import SigningKey

log = logging.getLogger(__name__)


class CommitText(NamedTuple):
    """Who commits, and what the commit says."""

    authors: tuple[PrincipalId, ...]
    message: str
    trailers: tuple[Trailer, ...] = ()

    @classmethod
    def of(
        cls, author: PrincipalId, message: str, trailers: Mapping[TrailerKey, str | None]
    ) -> CommitText:
        """Return the text of a commit by one author, with the trailers that have a value."""
        rows = tuple(Trailer(key, value) for key, value in trailers.items() if value)
        return cls((author,), message, rows)


class BranchTip(NamedTuple):
    """Where a branch is, with the tree there."""

    revision: Revision
    tree: str


class CommitWriter:
    """Signs commits, and writes those of what people typed."""

    def __init__(self, live: LiveReplicas, clock: Clock, key: SigningKey) -> None:
        self._live = live
        self._clock = clock
        self._key = key

    def sign(
        self, repo: str, parents: Sequence[Revision], tree: str, text: CommitText, git: str = ""
    ) -> SignedCommitObject:
        """Return a signed commit of a stored tree; `git` is the commit from which it comes."""
        message = text.message.replace("\0", "")
        message = message.encode()[:MAX_MESSAGE_BYTES].decode(errors="ignore")
        commit = CommitObject(
            repo=repo,
            parents=tuple(dict.fromkeys(parents)),
            tree=tree,
            authors=tuple(dict.fromkeys(text.authors))[:MAX_AUTHORS],
            message=message,
            at=int(self._clock.time() * 1000),
            git=git,
            trailers=text.trailers,
        )
        return sign_commit_object(self._key, commit)

    def branch_fact(
        self,
        repo: str,
        branch: str,
        before: Revision | None,
        after: Revision,
        cause: AdvanceCause,
        author: PrincipalId,
        proposal: ProposalId | None = None,
    ) -> Fact:
        """Return the fact that a branch advanced; `before` is None for a new branch."""
        return Fact.of(
            BranchAdvanced(before=before or "", cause=cause.value, proposal=proposal or ""),
            at=self._clock.time(),
            actor=SYSTEM,
            on_behalf_of=author,
            subject=f"{repo}:{branch}",
            revision=after,
        )

    async def head(self, store: Store, repo: str, branch: str) -> BranchTip:
        """Return where a branch is."""
        revision = await store.head(repo, branch)
        return BranchTip(revision, (await store.commit(repo, revision)).tree)

    async def commit_typed(
        self, store: Store, repo: str, documents: Iterable[str]
    ) -> tuple[BranchTip, list[Fact]]:
        """Commit what people typed into documents, whose locks the caller holds.

        Returns:
            The head of `dev`, which is the commit if there was something to commit, and facts.
        """
        head = await self.head(store, repo, "dev")
        rows = self._live.index.rows
        alive = {d: rows[d].path for d in sorted(documents) if d in rows and rows[d].alive}
        entries = await store.entries(head.tree, alive.values())
        replicas = await self._live.replicas(repo, alive)
        changes: dict[str, TreeEntry] = {}
        contents: list[bytes] = []
        writers: set[PrincipalId] = set()
        for document, path in alive.items():
            try:
                content = replicas[document].text().encode()
            except InvalidInput as error:
                # One broken document must not keep all others from being committed.
                log.warning("live edits of %s/%s are not committed: %s", repo, path, error)
                continue
            entry = TreeEntry.of(path, content, mode_of(rows[document].mode))
            if path in entries and entries[path] != entry:
                changes[path] = entry
                contents.append(content)
                writers |= self._live.index.writers(repo, document)
        if not changes:
            return head, []
        like = {entry.sha256: entries[path].sha256 for path, entry in changes.items()}
        await store.add_contents(contents, like)
        tree = await store.update_tree(head.tree, changes)
        authors = tuple(sorted(writers)) or (ROOM,)
        signed = self.sign(repo, (head.revision,), tree, CommitText(authors, "live edits"))
        await store.add_commit(repo, signed)
        await store.move_branch(repo, "dev", signed.revision, head.revision)
        cause = AdvanceCause.live_edits
        fact = self.branch_fact(repo, "dev", head.revision, signed.revision, cause, authors[0])
        return BranchTip(signed.revision, tree), [fact]
