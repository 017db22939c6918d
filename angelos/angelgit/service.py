"""AngelGit itself: `core.ports.Repository`, and the live documents of open rooms.

    async with AngelGit(database, valkey, key, clock, journal, Path("workspace")) as repository:
        await repository.ingest(document, update, ada)     # from a room
        revision = await repository.merge(proposal)

The branches of a repository move one change at a time; typing goes on beside that. Several servers
may share the stores; one of them at a time owns a repository, by a lease, and alone writes to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self, TypeVar

from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import Client
from angelos.angelgit.changes.branches import OwnBranches
from angelos.angelgit.changes.commits import CommitText, CommitWriter
from angelos.angelgit.changes.dev_edits import DevEdits
from angelos.angelgit.changes.graph import CommitGraph
from angelos.angelgit.changes.history import HistoryQueries
from angelos.angelgit.changes.importing import (
    CheckConfig,
    ImportedRepo,
    import_files,
    no_check,
)
from angelos.angelgit.changes.mainline import Mainline
from angelos.angelgit.changes.outbox import FactOutbox
from angelos.angelgit.changes.parts import ProposalParts
from angelos.angelgit.changes.proposals import DevProposals
from angelos.angelgit.changes.resting import LiveCommits
from angelos.angelgit.changes.takeover import OwnedRepositories, WorkingTree
from angelos.angelgit.changes.transactions import Transactions
from angelos.angelgit.documents import crdt
from angelos.angelgit.git.adoption import PushedCommits
from angelos.angelgit.git.importing import ImportedHistory, store_blobs, store_files
from angelos.angelgit.git.service import GitSide
from angelos.angelgit.storage.blobs import BlobStore
from angelos.angelgit.storage.collecting import GarbageCollection
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.log import DocumentLog
from angelos.angelgit.storage.models import AdvanceCause, DocumentRow, check_name
from angelos.angelgit.storage.ownership import RepositoryLeases
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.verifying import Verification
from angelos.angelgit.worktree.activity import DocumentActivity
from angelos.angelgit.worktree.files import WorkingFiles
from angelos.angelgit.worktree.writer import WorktreeWriter
from angelos.core.branches import BranchName
from angelos.core.errors import InvalidInput
from angelos.core.history import CollectionReport, VerifyPage
from angelos.core.ids import DocumentId, PrincipalId, ProposalId, Revision
from angelos.core.pending import MAX_BATCH, Part, Pending
from angelos.core.ports import Clock, Journal, LiveDocuments
from angelos.core.repository import (
    NEW,
    BlobRef,
    Branch,
    BranchHead,
    Candidate,
    CandidateMember,
    CleanOutputs,
    DocumentAddress,
    PickDraft,
    ProposalOrigin,
    Proposed,
    RevertDraft,
    TreeEdit,
)
from angelos.core.revision_v2 import EntryMode
from angelos.core.signing import SigningKey

T = TypeVar("T")
_PAGE = 200
MAX_BLOB_BYTES = 256 * 1024 * 1024
_BRANCHES: tuple[Branch, ...] = ("dev", "main")


class AngelGit(HistoryQueries):
    """Version control of live documents; an async context manager.

    Args:
        database: commits, documents and proposals.
        valkey: the log of the live documents; a client that returns bytes.
        revision_key: signs commits.
        clock: the time of commits and facts.
        journal: gets the facts.
        workspace: the directory of the working files.
        live: the rooms that are open in the running server.
        check_config: raises `InvalidInput` for an `angelos.toml` that cannot be used.
        git_cache: of git objects; by default `git` beside the workspace.
        max_blob_bytes: the most that a blob may have.
        server: this server's name among those that share the stores, the same after a restart.
    """

    def __init__(  # noqa: PLR0913 - six stores and ports, two hooks
        self,
        database: Database,
        valkey: Client,
        revision_key: SigningKey,
        clock: Clock,
        journal: Journal,
        workspace: Path,
        live: LiveDocuments | None = None,
        *,
        check_config: CheckConfig = no_check,
        git_cache: Path | None = None,
        max_blob_bytes: int = MAX_BLOB_BYTES,
        server: str = "server",
    ) -> None:
        super().__init__(database)
        self.git = GitSide(self._stores, revision_key, git_cache or workspace.parent / "git")
        self._check_config = check_config
        self._live = LiveReplicas(self._stores, DocumentLog(valkey))
        self._leases = RepositoryLeases(database, self._live.log, server)
        self._stores.ownership = self._leases
        self._activity = DocumentActivity(journal, clock)
        files = WorkingFiles(workspace)
        self._writer = WorktreeWriter(
            database, self._live, files, live, self._activity, clock, server
        )
        self._commits = CommitWriter(self._live, clock, revision_key)
        self._outbox = FactOutbox(self._stores, journal)
        self._transactions = Transactions(
            self._stores, self._live, self._commits, self._outbox, self._writer, live
        )
        self._proposals = DevProposals(self._stores, self._live, self._transactions)
        self._parts = ProposalParts(self._proposals, self._outbox, clock)
        self._dev_edits = DevEdits(self._proposals, BlobStore(self._stores, max_blob_bytes))
        self._mainline = Mainline(self._stores, self._live, self._transactions, self._commits)
        self._own = OwnBranches(self._stores, self._transactions, self._commits)
        self._pushed = PushedCommits(self._stores, self.git, self._commits)
        self._resting = LiveCommits(self._transactions, clock)
        tree = WorkingTree(self._writer, live, self._write_files)
        self._owned = OwnedRepositories(
            self._stores, self._leases, self._live, self._transactions, tree
        )
        self._typed_files: set[DocumentId] = set()  # that rooms have edited since the start
        self._collection = GarbageCollection(self._stores, self._live, clock)
        self._verification = Verification(self._stores, self.git.public_key)
        self._stack, self._tasks = AsyncExitStack(), asyncio.TaskGroup()

    async def __aenter__(self) -> Self:
        """Recover transactions, replay the logs, and write the working files."""
        self._stack.push_async_callback(self._leases.release_all)
        try:
            await self._stack.enter_async_context(self._owned.kept())
            await self._owned.open_all()
        except BaseException:
            await self._stack.aclose()
            raise
        await self._outbox.flush()
        self._stack.callback(self.git.close)
        await self._stack.enter_async_context(self._activity)
        self._stack.push_async_callback(self._write_typed_files)
        await self._stack.enter_async_context(self._writer)
        self._tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        await self._stack.enter_async_context(self._resting)
        await self._stack.enter_async_context(self._owned)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Wait for running changes, and leave the working files equal to the documents."""
        await self._stack.aclose()

    async def _write_typed_files(self) -> None:
        rows = [self._live.index.rows[document] for document in self._typed_files]
        for repo, path in sorted({(row.repo, row.path) for row in rows} | self._writer.waiting):
            if self._live.index.exists(repo, path):
                await self._writer.try_write(repo, path)

    # -- live documents ----------------------------------------------------------------------

    def locate(self, workspace_path: str) -> DocumentAddress | None:
        """Return the live document at a path below the workspace; None if there is none.

        Raises:
            Unavailable: another server has the documents of this repository.
        """
        repo, _, path = workspace_path.lstrip("/").partition("/")
        self._live.index.check(repo)
        if not self._live.index.exists(repo, path):
            return None
        return DocumentAddress(repo, path, DocumentId(self._live.index.document(repo, path)))

    async def room_updates(self, document: DocumentId) -> list[bytes]:
        """Return the updates from which a room builds a document.

        Edits of the document's working file are taken in first.

        Args:
            document: the document.

        Raises:
            NotFound: the document was deleted.
            Unavailable: a store does not answer.
        """
        row = self._live.index.row(document)
        await self._run_to_end(self._writer.try_write(row.repo, row.path))
        return await self._live.updates(document)

    async def ingest(self, document: DocumentId, update: bytes, writer: PrincipalId) -> bytes:
        """Log an update from a room; it is durable when this returns.

        Args:
            document: the document.
            update: a yjs update (version 1).
            writer: who sends it.

        Returns:
            An update that was logged with it, to be applied behind it; mostly empty.

        Raises:
            InvalidInput: the bytes are no update.
            NotFound: the document was deleted.
            Refused: the update has new edits in another's name, or of another document.
            TooLarge: the update is larger than a document may be.
            Unavailable: the log does not answer.
        """
        size, extra = await self._live.ingest(document, update, writer)
        if size:
            row = self._live.index.row(document)
            self._typed_files.add(document)
            self._resting.note(row.repo)
            self._activity.add(f"{row.repo}:{row.path}", size)
        return extra

    async def write_file(self, document: DocumentId) -> str | None:
        """Make a working file and its document equal; return the SHA-256 of the file.

        What others wrote into the file is taken in, or kept beside it.

        Args:
            document: the document.

        Returns:
            The SHA-256 of the file; None if somebody is writing it. It is written as soon as they
            are done.

        Raises:
            NotFound: the document was deleted.
            OSError: the file cannot be written.
            Refused: a link leads out of the workspace.
            Unavailable: a store does not answer.
        """
        row = self._live.index.row(document)
        return await self._run_to_end(self._writer.write(row.repo, row.path))

    async def read_live(self, repo: str, path: str) -> bytes:
        """Return the current content of a file of `dev`.

        Args:
            repo: the repository's name.
            path: the file's path in it.

        Raises:
            NotFound: `dev` has no such file.
            Unavailable: a store does not answer.
        """
        return (await self._live.text(repo, path)).encode()

    async def edit_dev(
        self, repo: str, edits: Sequence[TreeEdit], author: PrincipalId, message: str
    ) -> Revision:
        """Make, move or delete files of `dev`, as a person does beside typing into them.

        Args:
            repo: the repository's name.
            edits: at most one for each path; a file is only made where none is.
            author: the person.
            message: the message of the commit.

        Returns:
            The commit of `dev`.

        Raises:
            Conflict: a path is taken, or cannot be beside another file.
            InvalidInput: an edit does not fit what is there, or they change nothing.
            NotFound: there is no such repository.
        """
        return await self._run_to_end(self._dev_edits.apply(repo, edits, author, message))

    async def files_below(self, repo: str, path: str) -> list[str]:
        """Return the files of `dev` at a path and below it, sorted.

        Args:
            repo: the repository's name.
            path: of a file or folder.

        Raises:
            NotFound: there is no such repository.
        """
        return await self._dev_edits.files_below(repo, path)

    async def put_blob(self, repo: str, content: AsyncIterator[bytes]) -> BlobRef:
        """Store content that is no document, for an edit to name.

        Args:
            repo: the repository's name.
            content: its pieces; if they raise, nothing is stored.

        Raises:
            NotFound: there is no such repository.
            TooLarge: there is more than the configured limit; nothing is stored.
        """
        await self.head(repo, "dev")
        return await self._dev_edits.blobs.put(content)

    # -- changes -----------------------------------------------------------------------------

    async def create(
        self,
        repo: str,
        files: Mapping[str, bytes],
        author: PrincipalId,
        message: str,
        modes: Mapping[str, EntryMode] | None = None,
    ) -> Revision:
        """Import files as a new repository; `dev` and `main` both start at the revision.

        Notebooks are kept in their canonical JSON, what is no text as a blob.

        Args:
            repo: the name of the new repository.
            files: path -> content, of a symbolic link its target.
            author: the principal who imports them.
            message: the message of the commit.
            modes: of the paths that are no plain files.

        Returns:
            The first revision.

        Raises:
            Conflict: the name is taken; names that differ in case alone are the same.
            InvalidInput: the name, a path, a content or the configuration is not allowed.
            TooLarge: a file, or the repository, is too large.
        """
        async with self._stores.begin() as store:
            await store.check_free(check_name(repo))
        imported = await asyncio.to_thread(import_files, repo, files, self._check_config, modes)
        return await self._run_to_end(self._create(repo, imported, author, message))

    async def import_history(
        self, repo: str, bundle: bytes, author: PrincipalId
    ) -> ImportedHistory:
        """Import a git repository with its whole history; its head is `main` and `dev`.

        Args:
            repo: the name of the new repository.
            bundle: a whole git bundle.
            author: the principal who imports it.

        Raises:
            Conflict: the name is taken.
            InvalidInput: it is no bundle, or is broken, or its configuration is wrong.
            Refused: something cannot be kept; the message names it, and nothing was imported.
            TooLarge: it is over a bound.
        """
        async with self._stores.begin() as store:
            await store.check_free(check_name(repo))
        imported = await self.git.read_bundle(repo, bundle, self._check_config)
        await self._run_to_end(self._create_from_git(repo, imported, author))
        return imported

    async def _create_from_git(
        self, repo: str, imported: ImportedHistory, author: PrincipalId
    ) -> None:
        tree = imported.tree
        async with (
            self._owned.claimed(repo),
            self._transactions.branch_lock(repo),
            self._stores.change(repo) as store,
        ):
            await store.add_repo(repo)
            await store.git.add_pack(repo, imported.pack)
            for name, identifier in imported.refs.items():
                await store.git.put_ref(repo, name, identifier)
            root = await store_files(store, tree)
            text = CommitText((author,), imported.commit.message)
            signed = self._commits.sign(repo, (), root, text, imported.head)
            await store.add_commit(repo, signed)
            await store.git.add_commits(repo, [(signed.revision, imported.head, None)])
            if tree.changed:
                await store.add_to_main(repo, signed.revision)
                root = await store.update_tree(root, tree.changed)
                text = CommitText((author,), "Write notebooks in the form in which they are kept")
                signed = self._commits.sign(repo, (signed.revision,), root, text)
                await store.add_commit(repo, signed)
            await self._add_first(store, repo, signed.revision, tree.rows, author)
        self._live.index.update(repo, [row for row, _ in tree.rows])
        await self._write_files(repo)
        await self._outbox.flush()

    async def _add_first(
        self,
        store: Store,
        repo: str,
        revision: Revision,
        rows: Sequence[tuple[DocumentRow, bytes]],
        author: PrincipalId,
    ) -> None:
        """Add the documents and branches of a new repository."""
        await store.add_documents(rows)
        await store.add_writers(
            (row.id, client, author) for row, state in rows for client in crdt.clients_of(state)
        )
        await store.add_to_main(repo, revision)
        for branch in _BRANCHES:
            await store.set_branch(repo, branch, revision)
            cause = AdvanceCause.created
            fact = self._commits.branch_fact(repo, branch, None, revision, cause, author)
            await store.add_facts([fact])

    async def _graph(self, store: Store, repo: str) -> CommitGraph:
        return CommitGraph(store, repo, await self.git.history(store, repo))

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[TreeEdit],
        author: PrincipalId,
        message: str,
        origin: ProposalOrigin = NEW,
    ) -> Proposed:
        """Store edits against `base` and return what they change; nothing is merged yet.

        The same id with the same edits returns the same answer again.

        Args:
            proposal: the id of the new proposal.
            repo: the repository's name.
            base: the revision that the edits were made against.
            edits: at most one for each path.
            author: the principal who proposes them.
            message: the message of the later commits.
            origin: what these edits take back or do again, if anything.

        Raises:
            Conflict: the id is taken by a proposal with other edits.
            InvalidInput: an edit does not fit its base, or they change nothing.
            NotFound: there is no such revision.
            Stale: the same lines have changed in `dev`; `extra["conflicts"]` has the texts.
            TooLarge: a file would become too large.
        """
        return await self._proposals.propose(proposal, repo, base, edits, author, message, origin)

    async def revert_draft(self, proposal: ProposalId) -> RevertDraft:
        """Return the edits that take a proposal back, around everybody's later work.

        Args:
            proposal: the id of a proposal that is in `main` or in `dev`.

        Raises:
            Conflict: nothing of the proposal is in `dev` or `main`, or it is taken back already.
            NotFound: there is no such proposal.
            Stale: later work changed the same lines.
        """
        return await self._run_to_end(self._proposals.revert_draft(proposal))

    async def pending(self, proposal: ProposalId) -> Pending:
        """Return a proposal in hunks, in any state, tried against the present `dev`.

        Args:
            proposal: the id of the proposal.

        Raises:
            NotFound: there is no such proposal.
        """
        return await self._proposals.pending(proposal)

    async def take_part(self, part: Part, own_id: ProposalId) -> Proposed:
        """Keep a part of a proposal that waits as a proposal of its own.

        Its author is the proposal's; the proposal stays as it is. The same part again is the same
        proposal.

        Args:
            part: some hunks of it.
            own_id: the id of the new proposal.

        Raises:
            Conflict: the proposal has a newer version, or waits no longer.
            InvalidInput: this is no part of the proposal.
            NotFound: there is no such proposal.
            Stale: it does not fit the live text.
        """
        return await self._run_to_end(self._parts.take(part, own_id))

    async def withdraw_part(self, part: Part, by: PrincipalId, reason: str) -> Proposed:
        """Close a part of a proposal that waits, and return what is left of it.

        Args:
            part: some hunks of it, not all.
            by: the person who withdraws it.
            reason: why, for the fact.

        Raises:
            Conflict: the proposal has a newer version, waits no longer, or some of the part was
                accepted.
            InvalidInput: this is no part of the proposal, or it is all of it.
            NotFound: there is no such proposal.
        """
        return await self._run_to_end(self._parts.narrow(part, by, reason))

    async def list_pending(
        self, repo: str, path: str = "", after: ProposalId | None = None, limit: int = 100
    ) -> list[Pending]:
        """Return the proposals that wait beside `dev`, in the order in which they came.

        Args:
            repo: the repository's name.
            path: only those that change this file; empty: all.
            after: only those that came after this one.
            limit: at most so many.

        Raises:
            NotFound: there is no such repository.
        """
        await self.head(repo, "dev")
        return await self._proposals.list_pending(repo, path, after, limit)

    async def withdraw(self, proposal: ProposalId) -> None:
        """Close a proposal that waits beside `dev`; a second time does nothing.

        Args:
            proposal: the id of the proposal.

        Raises:
            Conflict: it is, or was, in `dev` or `main`.
            NotFound: there is no such proposal.
        """
        await self._run_to_end(self._proposals.withdraw(proposal))

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`; a second time does nothing.

        Args:
            proposal: the id of the proposal.

        Returns:
            The commit of `dev`.

        Raises:
            Conflict: the proposal was reverted.
            NotFound: there is no such proposal.
            Stale: the same lines have changed in `dev`, or on `main`, since the base.
            Unavailable: a store does not answer. The merge may happen all the same; merge again.
        """
        return await self._run_to_end(self._proposals.merge(proposal))

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev`, and leave everybody else's.

        Args:
            proposal: the id of the proposal.

        Returns:
            The commit of `dev`.

        Raises:
            Conflict: the proposal is not in `dev`, or others have changed the same lines since;
                nothing is written.
            NotFound: there is no such proposal.
            Unavailable: a store does not answer. The revert may happen all the same.
        """
        return await self._run_to_end(self._proposals.revert(proposal))

    async def candidate(
        self, *proposals: ProposalId, outputs: CleanOutputs | None = None
    ) -> Candidate:
        """Merge proposals onto the current `main`, one upon the other, on no branch.

        Args:
            proposals: the ids of open proposals of one repository.
            outputs: of a clean re-run, written into the notebooks.

        Raises:
            Conflict: the first proposal is not open.
            InvalidInput: there is no proposal, or the outputs fit no notebook.
            NotFound: there is no such proposal.
            Stale: the same lines as the first one's have changed on `main`.
        """
        if not 0 < len(proposals) <= MAX_BATCH:
            raise InvalidInput(f"A candidate is made of 1 to {MAX_BATCH} proposals.")
        made = await self._run_to_end(self._mainline.candidate(proposals, outputs or {}))
        commit = await self.commit(made.repo, made.revision)
        changes = await self.changed(made.repo, made.main, made.revision)
        members: list[CandidateMember] = []
        before = made.main
        for proposal, own in made.members.items():
            single = len(made.members) == 1 and own == made.revision
            rows = changes if single else await self.changed(made.repo, before, own)
            members.append(CandidateMember(proposal=proposal, commit=own, changes=rows))
            before = own
        return Candidate(
            revision=made.revision,
            main=made.main,
            tree=commit.tree,
            changes=changes,
            members=tuple(members),
            left_out=tuple(p for p in proposals if p not in made.members),
        )

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Advance `main` to a candidate, and `dev` with it; a second time does nothing.

        Where people have since changed the same lines `dev` keeps their text.

        Args:
            repo: the repository's name.
            revision: the candidate.
            expected: the current revision of `main`, which is the parent of the candidate.

        Raises:
            Conflict: `main` is not at `expected`, or the revision is no candidate.
            NotFound: there is no such revision.
            Stale: `dev` has another file at the path of a new one.
        """
        await self._run_to_end(self._mainline.advance(repo, revision, expected))

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit the tree of `to` on top of `main`, and make the same change in `dev`.

        Args:
            repo: the repository's name.
            to: an earlier revision of `main`.
            author: the principal who rolls back.
            reason: goes into the message of the commit.

        Returns:
            The new revision of `main`.

        Raises:
            Conflict: `main` has that tree already, or `dev` has another file at a restored path.
            NotFound: `to` is not in the history of `main`.
        """
        return await self._run_to_end(self._mainline.rollback(repo, to, author, reason))

    # -- branches of people and agents -------------------------------------------------------

    async def create_branch(
        self, repo: str, name: BranchName, at: Revision, owner: PrincipalId
    ) -> BranchHead:
        """Make a branch of one's own; see `core.ports.Branches`."""
        return await self._moved(self._own.create(repo, name, at, owner))

    async def move_branch(
        self, repo: str, name: BranchName, to: Revision, expected: Revision, by: PrincipalId
    ) -> BranchHead:
        """Move a branch of one's own; see `core.ports.Branches`."""
        return await self._moved(self._own.move(repo, name, to, expected, by))

    async def delete_branch(
        self, repo: str, name: BranchName, expected: Revision, by: PrincipalId
    ) -> None:
        """Delete a branch of one's own; see `core.ports.Branches`."""
        await self._moved(self._own.delete(repo, name, expected, by))

    async def commit_edits(
        self,
        repo: str,
        name: BranchName,
        expected: Revision,
        edits: Sequence[TreeEdit],
        author: PrincipalId,
        message: str,
    ) -> Revision:
        """Commit edits on a branch of one's own.

        Args:
            repo: the repository's name.
            name: the branch.
            expected: its head, against which the edits were made.
            edits: at most one for each path.
            author: its owner.
            message: the commit's message.

        Raises:
            Conflict: the branch is elsewhere, or has these files already.
            Forbidden: it belongs to somebody else.
            InvalidInput: an edit does not fit.
            NotFound: there is no such repository or branch.
            Refused: it is `main`, `dev`, or that of a proposal.
        """
        return await self._moved(self._own.commit(repo, name, expected, edits, author, message))

    async def pick(
        self, repo: str, revision: Revision, name: BranchName, author: PrincipalId
    ) -> Revision:
        """Commit on a branch of one's own what another commit changed.

        Args:
            repo: the repository's name.
            revision: the commit; of a merge, what it changed in its first parent.
            name: the branch.
            author: its owner.

        Raises:
            Conflict: the branch has all of it already.
            Forbidden: it belongs to somebody else.
            NotFound: there is no such repository, branch or revision.
            Refused: it is `main`, `dev`, or that of a proposal.
            Stale: the same lines have changed there.
        """
        return await self._moved(self._own.pick(repo, revision, name, author))

    async def pick_draft(self, repo: str, revision: Revision) -> PickDraft:
        """Return the edits that do on `main` again what a commit changed.

        Raises:
            Conflict: `main` has all of it already.
            NotFound: there is no such repository or revision.
            Stale: the same lines have changed there.
        """
        return await self._own.pick_draft(repo, revision)

    async def check_owner(self, repo: str, name: BranchName, by: PrincipalId) -> None:
        """Raise `Forbidden` unless somebody owns a branch, `NotFound` if there is none."""
        await self._own.check_owner(repo, name, by)

    async def adopt(self, repo: str, commit: str, author: PrincipalId) -> Revision:
        """Return the revision of a pushed git commit, made if it has none.

        Raises:
            InvalidInput: it is no commit.
            Refused: something in it cannot be kept; the message names it.
            TooLarge: it is over a bound.
        """
        return await self._run_to_end(self._pushed.revision(repo, commit, author))

    async def pushed_draft(self, repo: str, commit: str) -> PickDraft:
        """Return the edits of `main` that a pushed git commit makes.

        Raises:
            Conflict: it changes nothing.
            InvalidInput: it does not come from `main`.
            Refused: something in it cannot be kept; the message names it.
            TooLarge: it changes too much.
        """
        return await self._run_to_end(self._pushed.draft(repo, commit))

    async def verify(self, repo: str, after: str = "") -> VerifyPage:
        """Read a page of a repository back from the store, and say what is damaged.

        Args:
            repo: the repository's name.
            after: `next` of the page before; empty: from the beginning.

        Raises:
            Busy: somebody else reads a page of it now; `extra["retry_after_s"]` says when to ask.
            InvalidInput: `after` is of no page.
            NotFound: there is no such repository.
        """
        return await self._verification.page(repo, after)

    async def collect(self, repo: str, keep_s: float, *, dry_run: bool) -> CollectionReport:
        """Delete, or count, what nothing reaches; every named revision can still be restored.

        Args:
            repo: the repository's name.
            keep_s: what is younger stays, in seconds.
            dry_run: only count.

        Raises:
            Busy: another collection runs; `extra["retry_after_s"]` says when to ask.
            Fenced: another server owns the repository.
            NotFound: there is no such repository.
        """
        work = self._collection.collect(repo, keep_s, dry_run=dry_run)
        return await self._run_to_end(work)

    async def _moved(self, work: Coroutine[object, None, T]) -> T:
        """Run a move of a branch to its end, and publish its fact."""
        result = await self._run_to_end(work)
        await self._outbox.flush()
        return result

    async def _create(
        self, repo: str, imported: ImportedRepo, author: PrincipalId, message: str
    ) -> Revision:
        async with (
            self._owned.claimed(repo),
            self._transactions.branch_lock(repo),
            self._stores.change(repo) as store,
        ):
            await store.add_repo(repo)
            await store.add_contents(imported.contents)
            await store_blobs(store, imported.blobs)
            tree = await store.build_tree(imported.entries)
            signed = self._commits.sign(repo, (), tree, CommitText((author,), message))
            revision = signed.revision
            await store.add_commit(repo, signed)
            await self._add_first(store, repo, revision, imported.rows, author)
        self._live.index.update(repo, [row for row, _ in imported.rows])
        await self._write_files(repo)
        await self._outbox.flush()
        return revision

    async def _write_files(self, repo: str) -> None:
        """Write every working file of a repository that differs from its document."""
        rows = [
            self._live.index.rows[document] for document in self._live.index.paths(repo).values()
        ]
        for start in range(0, len(rows), _PAGE):
            page = rows[start : start + _PAGE]
            newer = await self._live.log.newer(repo, {row.id: row.upto for row in page})
            # Only documents that were edited since their snapshot have to be replayed.
            unedited = [row for row in page if row.id not in newer]
            async with self._stores.begin() as store:
                stored = await store.objects.present({row.sha256 for row in unedited})
                contents = await store.contents(stored)
            texts = {row.id: contents[row.sha256] for row in unedited if row.sha256 in contents}
            await self._writer.write_all(repo, page, texts)

    async def _run_to_end(self, work: Coroutine[object, None, T]) -> T:
        """Run work to its end even if the caller is cancelled, as a request may be."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        async def run() -> None:
            try:
                result = await work
            except asyncio.CancelledError:
                done.cancel()
                raise
            except Exception as error:  # noqa: BLE001 - handed to the caller
                done.set_exception(error)
                done.exception()  # retrieved here, in case the caller no longer waits
            else:
                done.set_result(result)

        self._tasks.create_task(run())
        return await asyncio.shield(done)
