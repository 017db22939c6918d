"""The seams of the system: small protocols that everything else depends on.

Real adapters live in `angelos/adapters` and in the planes; fakes for tests in
`angelos/testing/`. What each promises is in its
docstring.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol, Self

import msgspec

from angelos.core.branches import BranchName
from angelos.core.envelopes import DeadLetter, PutReceipt, QueueDelivery, QueueDepth, RoutedEnvelope
from angelos.core.facts import Fact
from angelos.core.fencing import FencingToken
from angelos.core.findings import PatchScore
from angelos.core.frames import Item
from angelos.core.ids import (
    START,
    DocumentId,
    Offset,
    PrincipalId,
    ProposalId,
    Revision,
)
from angelos.core.intake import IntakeReceipt, Submission
from angelos.core.messages import Tier
from angelos.core.pending import Acceptance, BatchCandidate, Part, Pending, ProposalDraft
from angelos.core.principals import ActingSession, EndCause, Generation, Standing
from angelos.core.reports import RunReport
from angelos.core.repository import (
    NEW,
    BlobRef,
    Branch,
    BranchHead,
    Candidate,
    Change,
    CleanOutputs,
    FileEntry,
    PickDraft,
    ProposalOrigin,
    Proposed,
    RevertDraft,
    TreeEdit,
)
from angelos.core.revision import Bundle
from angelos.core.revision_v2 import EntryMode, SignedCommitObject, TreeEntry
from angelos.core.runs import Exit, Output
from angelos.core.sessions import (
    Collected,
    CollectLimits,
    SessionSignal,
    SessionSpec,
    TerminalSize,
)


class Clock(Protocol):
    """Time, passed in so that tests can hold it."""

    def time(self) -> float:
        """Return Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


class JournalPosition(msgspec.Struct, frozen=True, kw_only=True):
    """Where an offset stands in the journal."""

    epoch: str
    """One life of the journal: offsets of another mean nothing here."""
    oldest: Offset
    """The first that is there; `START` if nothing is."""
    newest: Offset
    gap: Offset = START
    """The newest fact that was trimmed and is kept nowhere else; `START` if there is none."""
    present: bool
    """Whether the offset is one that the journal holds, or the newest it ever had."""


class Journal(Protocol):
    """The log of facts.

    A fact returned with an offset survives `kill -9` of any process of ours. Appending a fact
    whose id is already in the journal returns the old offset. Readers resume by offset.
    """

    async def append(self, facts: Sequence[Fact]) -> list[Offset]:
        """Append facts in order, all or none, and return their offsets."""
        ...

    def follow(
        self, after: Offset, kinds: Collection[str] = (), subject: str = ""
    ) -> AsyncIterator[Fact]:
        """Yield facts after `after` for ever, in order; filters only leave out, never reorder."""
        ...

    async def read(
        self, after: Offset, limit: int = 1000, kinds: Collection[str] = (), subject: str = ""
    ) -> list[Fact]:
        """Return at most `limit` facts after `after` that are there now."""
        ...

    async def last(self) -> Offset:
        """Return the newest offset (`START` when empty)."""
        ...

    async def position(self, offset: Offset) -> JournalPosition:
        """Return where an offset stands, for a reader that wants to go on from it."""
        ...


class EnvelopeQueue(Protocol):
    """Envelopes to each destination, bodies opaque.

    At least once; deduplicated by (source, id) over at least the newest 65,536 ids of a
    destination, acknowledged ones included; in the order of `put` for each (source, destination,
    lane); bounded in each lane. What a receipt was given for survives `kill -9` of every process
    of ours, and with `durability = "always"` of the store and the host. One consumer a
    destination: whoever claims it last. Every method raises `Unavailable` when the store does not
    answer, after which it may be repeated.
    """

    async def put(self, envelope: RoutedEnvelope) -> PutReceipt:
        """Take an envelope durably.

        Putting it again, acknowledged or not, is no change and says `duplicate`; a duplicate is
        never refused for want of room. Calls may run beside each other: those of one sender keep
        the order in which they were made.

        Raises:
            Busy: The lane is full and not lossy; `extra["retry_after_s"]` says when to try
                again. Other lanes and destinations are not affected.
            InvalidInput: The header has the wrong form.
            TooLarge: The body is larger than a frame holds.
        """
        ...

    async def claim(self, destination: PrincipalId, holder: str) -> FencingToken:
        """Become the one consumer of a destination; whoever was it before is fenced at once.

        Args:
            destination: Whose envelopes to take; it need not exist yet.
            holder: One life of one process.
        """
        ...

    def take(self, token: FencingToken) -> AsyncIterator[QueueDelivery]:
        """Yield all that is not acknowledged, then what comes, for ever; close it by `aclosing`.

        It begins with the oldest that is not acknowledged, also if it was handed out before: a
        consumer that was killed loses nothing. Envelopes of `Lane.control` that wait come first.
        What expired or cannot be read is set aside as a dead letter, and what is behind it comes.
        After an envelope was given back, those of the same source and lane that were not handed
        out yet wait until it is acknowledged or dead; all others come.

        Raises:
            Fenced: From the next step, and out of a wait within 2 s, once there is another
                consumer. What it would have yielded goes to that one.
            Conflict: A `take` of this token is not closed yet.
        """
        ...

    async def ack(self, token: FencingToken, positions: Collection[Offset]) -> int:
        """Forget envelopes for good, all in one call, and return how many were there.

        Raises:
            Fenced: There is another consumer; nothing was forgotten.
        """
        ...

    async def nack(
        self, token: FencingToken, position: Offset, detail: str, *, final: bool = False
    ) -> None:
        """Give one envelope back: it comes again after a delay, or not at all.

        The delay grows by the retry policy, with jitter; after as many as it allows the envelope
        is dead (`attempts`). Giving back what is not there is no change.

        Args:
            token: The consumer's.
            position: Of the delivery.
            detail: Why, in words, kept with a dead letter; at most 500 characters are kept.
            final: It would never succeed: it is dead at once (`refused`).

        Raises:
            Fenced: There is another consumer; nothing was changed.
        """
        ...

    async def depth(self, destination: PrincipalId) -> QueueDepth:
        """Return what waits for a destination."""
        ...

    async def remove(
        self, destination: PrincipalId, source: PrincipalId, ids: Collection[str]
    ) -> int:
        """Remove waiting envelopes of one source by their ids, and return how many there were.

        What is handed out already may be carried out all the same. Removed ids stay known: to
        put one again is a duplicate.
        """
        ...

    async def dead_letters(
        self, destination: PrincipalId, after: Offset = START, limit: int = 100
    ) -> list[DeadLetter]:
        """Return dead letters with a position after `after`, in the order of their positions."""
        ...

    async def replay(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Put dead letters at the end of their lanes again, as if they had never been given back.

        They get new positions, and no deadline if they had expired. Unreadable ones stay where
        they are. Returns how many were put. All or none:

        Raises:
            Busy: There is no room for all of them.
        """
        ...

    async def drop_dead(self, destination: PrincipalId, positions: Collection[Offset]) -> int:
        """Forget dead letters for good and return how many there were."""
        ...


# -- repository ------------------------------------------------------------------------------


class Repository(Protocol):
    """AngelGit. Stale bases are refused; revisions are hashes; every commit is signed.

    `dev` is the branch of the live documents that people type into; a proposal waits beside it
    until a person accepts it or `main` moves to its candidate, which was tested.
    """

    async def create(
        self,
        repo: str,
        files: Mapping[str, bytes],
        author: PrincipalId,
        message: str,
        modes: Mapping[str, EntryMode] | None = None,
    ) -> Revision:
        """Import files as a new repository; `dev` and `main` both start at the revision."""
        ...

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        ...

    async def head(self, repo: str, branch: Branch) -> Revision:
        """Return a branch's revision; raise `NotFound`."""
        ...

    async def tree(self, repo: str, revision: Revision) -> tuple[TreeEntry, ...]:
        """Return the entries of a revision, sorted by path; raise `NotFound`."""
        ...

    async def entries(
        self, repo: str, revision: Revision, paths: Collection[str]
    ) -> dict[str, TreeEntry]:
        """Return the entries of a revision at some paths, of those that are there."""
        ...

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content at a revision; raise `NotFound`."""
        ...

    async def read_live(self, repo: str, path: str) -> bytes:
        """Return a file's content in the live documents of `dev`, typed a moment ago included."""
        ...

    async def bundle(self, repo: str, revision: Revision, have: Revision | None = None) -> Bundle:
        """Return one revision, signed, or what it has beyond `have`, for a node to verify."""
        ...

    async def changed(self, repo: str, before: Revision, after: Revision) -> tuple[Change, ...]:
        """Return the paths that differ between two revisions."""
        ...

    async def own_changes(self, repo: str, commit: Revision) -> tuple[Change, ...]:
        """Return what a commit changed against its first parent, with whole diffs."""
        ...

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
        """Take edits against `base` durably and return what they change; nothing is merged yet.

        Raises `Stale` (with both texts in `extra["conflicts"]`) when the same lines have since
        changed in `dev`, `InvalidInput` when an edit does not fit its base, `NotFound`.
        The same id with the same edits again returns the same answer; with other edits it is
        a `Conflict`.
        """
        ...

    async def merge(self, proposal: ProposalId) -> Revision:
        """Merge a proposal into the live documents of `dev`, commit `dev`, return its revision.

        Raises `Stale` when the same lines changed since `propose`. Merging twice is once.
        """
        ...

    async def candidate(
        self, *proposals: ProposalId, outputs: CleanOutputs | None = None
    ) -> Candidate:
        """Merge proposals of one repository onto the present `main`, one upon the other.

        Nothing is on a branch. `outputs` of a clean re-run are written into the notebooks. The
        same call again returns the same candidate as long as `main` is where it was.

        Raises `Stale` when the same lines as the first one's have changed in `main` since, and
        `Conflict` when the first is not open; others that do not fit are left out and named.
        """
        ...

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate, and bring what `dev` lacks of it into the live documents.

        Where people have since changed the same lines `dev` keeps their text. Raises `Conflict`
        unless `main` still is at `expected`; `Stale` when a new file's path is taken in `dev`.
        """
        ...

    async def withdraw(self, proposal: ProposalId) -> None:
        """Close a proposal that was never in `dev`; raise `Conflict` for any other."""
        ...

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev` again, around everybody else's.

        Raises `Conflict`, with nothing written, when others have changed the same lines since.
        """
        ...

    async def pick_draft(self, repo: str, revision: Revision) -> PickDraft:
        """Return the edits that do on `main` again what a commit of any branch changed.

        Raises `Stale` when the same lines have changed in `main`, `Conflict` when it has them.
        """
        ...

    async def resolve(self, repo: str, name: str) -> Revision:
        """Return the revision that a branch, a revision or its beginning stands for."""
        ...

    async def pending(self, proposal: ProposalId) -> Pending:
        """Return a proposal in hunks, in any state, tried against the present `dev`."""
        ...

    async def take_part(self, part: Part, own_id: ProposalId) -> Proposed:
        """Keep a part of a proposal that waits as a proposal of its own, with the part's digest.

        Its author is the proposal's, which stays as it is: what is accepted by both is in `dev`
        once. The same part again is the same proposal, whatever `own_id`. Raises `Stale` where it
        does not fit `dev`, and `Conflict` if the proposal has a newer version.
        """
        ...

    async def withdraw_part(self, part: Part, by: PrincipalId, reason: str) -> Proposed:
        """Close a part of a proposal that waits, and return what is left of it.

        What is left has a digest of its own, and its candidates are void. A fact
        `proposal.narrowed` says so.
        """
        ...

    async def revert_draft(self, proposal: ProposalId) -> RevertDraft:
        """Return the edits that take a proposal back, around everybody's later work.

        Proposed like any others they enter `dev` and `main`; reverting a revert brings the edits
        back. Raises `Stale` when later work changed the same lines, `Conflict` when nothing of the
        proposal is in `dev` or `main`.
        """
        ...

    async def rollback(self, repo: str, to: Revision, author: PrincipalId, reason: str) -> Revision:
        """Commit `to`'s tree on top of `main` (its parent is the commit rolled back).

        The same change is applied to the live documents of `dev`. Raises `Conflict` when `main`
        already has that tree and `NotFound` when `to` is not in `main`'s history.
        """
        ...

    async def history(self, repo: str, branch: Branch, limit: int = 50) -> list[Revision]:
        """Return first-parent history, newest first."""
        ...


class LiveDocuments(Protocol):
    """Rooms that are open in the running server; `jupyter_ext` provides it.

    A room belongs to a document, whatever path that has.
    """

    async def apply(self, document: DocumentId, update: bytes) -> bool:
        """Apply a CRDT update to the open room of a document; False when none is open."""
        ...

    async def close(self, document: DocumentId, reason: str) -> bool:
        """Close the room of a document that was deleted; False when none is open.

        Args:
            document: The document.
            reason: For the people in the room, at most 57 characters.
        """
        ...


# -- the repository to come (docs/explanation/decisions/0011) --------------------------------
#
# AngelGit's issue implements these, small protocol by small protocol, and then replaces
# `Repository` by `BranchingRepository`. All of them: `NotFound` for a repository, revision or
# proposal that does not exist; `Fenced` from every method that writes once another process owns
# the repository; `Unavailable` when a store does not answer, after which the call may be repeated.
# What a method has returned survives `kill -9` of every process; a call that was cut off was
# carried out whole or not at all, and repeating it tells which.


class Branches(Protocol):
    """Open-ended branches; who may move which is decided before, by policy."""

    async def branches(self, repo: str, after: str = "", limit: int = 100) -> list[BranchHead]:
        """Return branches in the order of their names.

        Args:
            repo: The repository.
            after: Only names that sort after this one, by code points; the last one of a page
                gives the next.
            limit: At most so many, 1 to 1,000.
        """
        ...

    async def branch(self, repo: str, name: BranchName) -> BranchHead:
        """Return one branch; `dev` is its last commit, without what is typed since.

        Raises:
            NotFound: There is no such branch.
        """
        ...

    async def create_branch(
        self, repo: str, name: BranchName, at: Revision, owner: PrincipalId
    ) -> BranchHead:
        """Make a branch at a revision.

        Making it again, by the same owner at the revision where it is, changes nothing.

        Raises:
            Conflict: The name is taken, or cannot stand beside another (`core.branches`).
            Refused: `main`, `dev` and `proposals/...` are not made by anybody.
            NotFound: The repository does not have the revision.
        """
        ...

    async def move_branch(
        self, repo: str, name: BranchName, to: Revision, expected: Revision
    ) -> BranchHead:
        """Move a branch by compare-and-set, forward or not.

        Moving it to where it is already changes nothing, whatever was expected.

        Raises:
            Conflict: It is not at `expected`; `extra["revision"]` says where it is.
            Refused: `main` moves by `advance`, `dev` by acceptance, `proposals/...` by `propose`.
            NotFound: There is no such branch or revision.
        """
        ...

    async def delete_branch(self, repo: str, name: BranchName, expected: Revision) -> None:
        """Delete a branch; its revisions stay readable by their hashes until garbage collection.

        Deleting what is not there changes nothing.

        Raises:
            Conflict: It is not at `expected`.
            Refused: `main`, `dev` and `proposals/...` are not deleted by anybody.
        """
        ...


class PendingEdits(Protocol):
    """Proposals that are tried against `dev`, kept beside it, and enter when a person says so.

    While a proposal is pending, `dev`'s live documents, files on disk and commits are as if it
    did not exist. Each answer is tried against the live text as it is at that moment, what was
    typed a moment ago included.
    """

    async def propose(self, draft: ProposalDraft) -> Pending:
        """Try edits against the present `dev` and keep them; nothing enters it.

        The same draft again returns the proposal as it is now, and nothing else happens. Equal
        texts are no conflict: an edit that `dev` has already is kept and fits. Two insertions at
        one place are none either: both survive.

        Raises:
            Stale: The same lines (cell, file, mode) have changed in `dev` since the base;
                `core.pending.conflicts_of` gives the newer texts. Nothing is kept.
            InvalidInput: An edit does not fit its base, changes nothing, or is malformed: its
                path or link is not safe, its blob is not stored, a `before` is not the base's;
                more than 256 edits. Nothing is kept.
            Conflict: The id has other content and `replaces` is not its digest; or a hunk of the
                version to be replaced is in `dev` or `main` already.
            NotFound: There is no such base, or proposal in `depends_on` or `reverts`.
        """
        ...

    async def pending(self, proposal: ProposalId) -> Pending:
        """Return a proposal in any state, tried against the present `dev`."""
        ...

    async def list_pending(
        self,
        repo: str,
        path: str = "",
        after: ProposalId | None = None,
        limit: int = 100,
    ) -> list[Pending]:
        """Return the proposals that have open hunks, in the order in which they first came.

        Args:
            repo: The repository.
            path: Only those with a hunk of this file, which may be its new path; empty: all.
            after: Only those that came after this one; the last one of a page gives the next.
                It need not be open any more.
            limit: At most so many, 1 to 1,000.
        """
        ...

    async def accept(self, part: Part, by: PrincipalId) -> Acceptance:
        """Merge a part into the live documents of `dev` and commit it.

        What people have typed until then is committed first, under their names. The part's commit
        has the proposal's author as its first author; `by` is one of its trailers' values. Open
        rooms show the part when this returns. The rest of the proposal stays open, and is tried
        again. Accepting hunks that are in `dev` already is no change; of a part that holds nothing
        else the answer names the commit that brought the last of them in.

        Raises:
            Stale: A hunk of the part no longer fits; nothing of the part entered.
            Conflict: A hunk was withdrawn, or the proposal has a newer version.
            InvalidInput: This is no part of the proposal.
        """
        ...

    async def withdraw(self, part: Part, by: PrincipalId, reason: str) -> Pending:
        """Close a part for good: its hunks that are open will not enter.

        Hunks that are in `dev` stay there (`revert` takes them out); withdrawing twice is once.

        Raises:
            Conflict: The proposal has a newer version.
            InvalidInput: This is no part of the proposal.
        """
        ...


class Landing(Protocol):
    """How accepted and approved edits reach `main`, and how one proposal is taken back."""

    async def merge_many(self, repo: str, parts: Sequence[Part]) -> BatchCandidate:
        """Commit parts one upon the other on top of the present `main`, on no branch.

        Each part that fits `main` and the parts before it becomes one commit, of exactly its own
        edits; the others are left out and named, and stand in nobody's way. Nothing else changes,
        `dev` included. The result depends on the parts, their order and `main` alone, so any
        part of a batch that failed can be tried again; asked again it is the same candidate,
        unless a part was withdrawn or replaced since.

        Args:
            repo: The repository.
            parts: 1 to 512, each of another proposal.

        Raises:
            InvalidInput: There are none or too many, a proposal twice, or no such part.
        """
        ...

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate; `dev` then contains it, by a commit with both as parents.

        `main`'s tree is exactly the candidate's. In `dev` a hunk that was not there yet enters;
        where people have since changed the same lines `dev` keeps their text. The hunks of all
        members become `promoted`. Advancing to where `main` is already changes nothing.

        Raises:
            Conflict: `main` is not at `expected`, the candidate was not made on `expected`, or a
                member was withdrawn or replaced since; nothing moved. `extra["revision"]` says
                where `main` is.
            NotFound: There is no such candidate.
        """
        ...

    async def revert(
        self, proposal: ProposalId, revert_id: ProposalId, author: PrincipalId, reason: str
    ) -> Pending:
        """Propose to take one proposal's edits back, around everybody's later work.

        The answer is a proposal like any other, with `reverts` set: it enters `dev` by
        acceptance and `main` by its tests. It is based on `main` where the edits are in `main`,
        else on `dev`. Reverting a revert brings the edits back, once. The same call again
        returns the same proposal.

        Args:
            proposal: What to take back; all its hunks that are in `main`, or else in `dev`.
            revert_id: Id of the new proposal.
            author: Whose proposal it is.
            reason: Its message.

        Raises:
            Stale: Later work changed the same lines; nothing is kept.
            Conflict: Nothing of the proposal is in `dev` or `main`; it is withdrawn, not
                reverted. Or `revert_id` is another proposal.
        """
        ...


class Blobs(Protocol):
    """Binary content by its hash, streamed and bounded."""

    async def put_blob(self, repo: str, content: AsyncIterator[bytes]) -> BlobRef:
        """Store content and return its SHA-256 and size; storing it again is no change.

        A blob that no revision or pending edit names is kept for at least a day. Peak memory does
        not grow with the content. If `content` raises, nothing is stored and its error comes out.

        Raises:
            TooLarge: There is more than the configured limit; no more is read, nothing is stored.
        """
        ...

    def read_blob(self, repo: str, sha256: str) -> AsyncIterator[bytes]:
        """Yield a blob in pieces of at most 1 MiB, none of them empty.

        Raises:
            NotFound: There is no such blob, before the first piece.
            Tampered: At the end: what was read is not what the hash names. Nothing of it may be
                used.
        """
        ...


class RevisionSource(Protocol):
    """Revisions of format 2 (`core.revision_v2`), for nodes and for whoever looks at history."""

    async def signed(self, repo: str, revision: Revision) -> SignedCommitObject:
        """Return a commit's exact bytes and signature."""
        ...

    async def directory(self, repo: str, digest: str) -> bytes:
        """Return a directory object of any revision by its hash; a node asks for what it lacks.

        Raises:
            NotFound: No revision that may be read has such an object.
            Tampered: The stored object is not the one that its hash names.
        """
        ...

    async def files(
        self, repo: str, revision: Revision, under: str = "", after: str = "", limit: int = 1000
    ) -> list[FileEntry]:
        """Return files and links of a revision in the order of their paths (by code points).

        Args:
            repo: The repository.
            revision: Which one.
            under: Only those in this folder and below it; empty: all.
            after: Only paths after this one; the last one of a page gives the next.
            limit: At most so many, 1 to 10,000.
        """
        ...

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content, or a link's target, with its hash checked.

        Raises:
            NotFound: There is no such file.
            TooLarge: It is a blob of more than `MAX_READ_BYTES`; `Blobs.read_blob` streams it.
            Tampered: The content is not what the revision names.
        """
        ...


class BranchingRepository(Branches, PendingEdits, Landing, Blobs, RevisionSource, Protocol):
    """All of the repository to come; today's is `Repository`."""


class Leases(Protocol):
    """Who owns what at present, so that of several processes one at a time writes.

    Time is the lease store's own, never a holder's clock. An epoch is never given twice for one
    resource, over restarts too; whoever writes checks it in the same transaction or script.
    """

    async def acquire(self, resource: str, holder: str, ttl_s: float) -> FencingToken:
        """Take a free or expired resource and return a token with a higher epoch than any before.

        The same holder takes it again at once, with a new epoch: its earlier self is fenced.

        Args:
            resource: For example `repo/study`; at most 200 bytes.
            holder: One life of one process; a restarted one has another name.
            ttl_s: It is free again so long after the last renewal.

        Raises:
            Conflict: Another holder has it; `extra` has `holder` and `free_in_s`.
        """
        ...

    async def renew(self, token: FencingToken, ttl_s: float) -> None:
        """Keep a resource for `ttl_s` more from now on.

        A lease that has expired is kept as long as nobody else has taken it.

        Raises:
            Fenced: A higher epoch was given, or it was released. The holder must stop writing.
        """
        ...

    async def release(self, token: FencingToken) -> None:
        """Give a resource back; it is free at once. A token that is fenced changes nothing."""
        ...

    async def check(self, token: FencingToken) -> None:
        """Return if the token has the highest epoch that was given, expired or not.

        Raises:
            Fenced: It has not, or it was released.
        """
        ...


# -- channel and sandbox ---------------------------------------------------------------------


class Announcements(Protocol):
    """What each of several processes says of itself, for as long as it lives."""

    async def announce(self, holder: str, body: bytes) -> dict[str, bytes]:
        """Say that `holder` lives, and what it is; return what the others say, by holder.

        Whoever does not announce for some seconds is not there any more.

        Raises:
            Unavailable: The store does not answer.
        """
        ...

    async def withdraw(self, holder: str) -> None:
        """Say that `holder` is not there any more.

        Raises:
            Unavailable: The store does not answer.
        """
        ...


class Channel(Protocol):
    """An authenticated, ordered, flow-controlled link between the hub and one peer."""

    peer: PrincipalId

    @property
    def online(self) -> bool:
        """Whether there is a connection now."""
        ...

    @property
    def idle(self) -> bool:
        """Whether there is a connection, and the peer has processed all that was sent."""
        ...

    async def send(self, batch: Sequence[Item]) -> None:
        """Send a batch; waits while the peer has given no credit. Raises `Unavailable`."""
        ...

    async def recv(self) -> list[Item]:
        """Return the next batch; raise `Unavailable` when the link is gone."""
        ...

    async def close(self, reason: str = "") -> None:
        """Close the link."""
        ...


class Admission(Protocol):
    """Decides which facts of peers the hub writes down (control, by the state of its tasks)."""

    def admitted(self, fact: Fact) -> Fact | None:
        """Return what is written into the journal for a peer's fact, None for nothing.

        Args:
            fact: well formed, and said by its actor in its own name: the hub has checked that.
        """
        ...

    def folds(self, kind: str) -> bool:
        """Return whether facts of this kind change what `admitted` decides by."""
        ...

    async def folded(self, offset: Offset) -> None:
        """Return when a fact of such a kind, which the journal has at `offset`, is folded."""
        ...

    async def catch_up(self) -> None:
        """Return when `admitted` knows all that the journal has now.

        A hub that learns late of a task would take what its node says for a stranger's.

        Raises:
            Unavailable: the journal does not hand it out in time.
        """
        ...


class SandboxSession(Protocol):
    """One program in a box of its own; `async with` ends it, whatever it is doing.

    Leaving the `async with` kills every process of the box and removes all that it left, and so
    does a cancelled task. Methods may be called from several tasks, and after the end; none of
    them raises because the program has ended.
    """

    tier: Tier

    async def __aenter__(self) -> Self:
        """Return the session, which runs already."""
        ...

    async def __aexit__(self, *error: object) -> None:
        """End every process and remove the box; what `wait` returned stays true."""
        ...

    async def write_stdin(self, data: bytes) -> bool:
        """Give the program input; return False if it no longer reads (the data is dropped).

        Waits while the program does not read; what is given by one caller arrives in order.

        Args:
            data: At most 1 MiB.

        Raises:
            Conflict: The session is not interactive, or its input was closed.
            TooLarge: There is more; nothing was given.
        """
        ...

    async def close_stdin(self) -> None:
        """End the program's input after what was given; on a terminal, type Ctrl-D. Idempotent."""
        ...

    def output(self) -> AsyncIterator[Output]:
        """Yield what the program writes as it writes it, in order for each stream; not empty.

        It ends when every process of the box that could write has ended. A program waits while
        nobody reads and a bounded buffer is full; so somebody must read it to its end. Over
        `limits.output_bytes` in all the program is ended, and what was within the limit comes.

        Raises:
            Conflict: It is being read already, or has been.
        """
        ...

    async def signal(self, signal: SessionSignal) -> None:
        """Send a signal; after the end, nothing happens.

        A paused session gets it when it is resumed; only `kill` ends it at once.
        """
        ...

    async def resize(self, size: TerminalSize) -> None:
        """Set the terminal's size; the program gets SIGWINCH.

        Raises:
            Conflict: The session has no terminal.
        """
        ...

    async def pause(self) -> None:
        """Stop every process of the box until `resume`; idempotent.

        A paused session uses no CPU, and its time is not wall time. Its memory stays.

        Raises:
            Unavailable: The box could not be stopped as a whole; it runs on.
        """
        ...

    async def resume(self) -> None:
        """Let a paused session go on; idempotent."""
        ...

    async def wait(self) -> Exit:
        """Return how the program ended, as soon as every process of the box has; always the same.

        `status` rests on counters of the kernel or the sampler, never on the program's own text.
        """
        ...

    async def collect(
        self,
        patterns: tuple[str, ...],
        limits: CollectLimits = CollectLimits(),  # noqa: B008
    ) -> Collected:
        """Return files of the writable folder, or else of /tmp, in the order of their paths.

        Only regular files are taken, by a walk that follows no link; what matches a pattern and
        is not taken is named with the reason. A folder without a match gives nothing.

        Args:
            patterns: As in `core.paths.matches`, relative to that folder; 1 to 100.
            limits: What is within them, in the order of paths, is taken.

        Raises:
            Conflict: The program has not ended.
            InvalidInput: A pattern could name something outside the folder.
            Unavailable: The session was left; the folder is gone.
        """
        ...

    @property
    def displayed(self) -> bool:
        """Return whether the program has left rich output in `/tmp`."""
        ...

    def listener(self) -> socket.socket:
        """Return the socket that listens on the box's loopback; the caller closes it. Once.

        Raises:
            Conflict: The session has none, or it was taken.
        """
        ...

    async def report(self) -> RunReport:
        """Return what came over the report channel, after the end; always the same.

        A report that is cut off, forged or garbage is an incomplete report, never an error.

        Raises:
            Conflict: The session has no report channel.
        """
        ...


class SessionSandbox(Protocol):
    """Starts programs in boxes of their own; `run_session` is a plain run over it.

    What one session does to its box no other session can see, and nothing outside the box changes
    except what its spec names. Between sessions nothing is left.
    """

    tier: Tier
    """The isolation in force; each session and exit repeats it."""

    async def start(self, spec: SessionSpec) -> SandboxSession:
        """Start a program and return at once; it may have ended already.

        A program that cannot be started (not there, not executable, refused by a guard) is a
        session all the same, whose `Exit` says so. Cancelling `start` leaves nothing behind.

        Raises:
            InvalidInput: There is neither code nor a program, or a path in the spec is wrong.
            Unavailable: No box can be made on this machine, now or ever; it says why.
            Busy: As many boxes as allowed are open; `extra["retry_after_s"]` says when to try.
            Refused: The tier in force cannot give what the spec asks for.
        """
        ...


class ContentStore(Protocol):
    """Keeps contents by their SHA-256 for a while after their last use."""

    async def put(self, content: bytes) -> str:
        """Keep a content durably and return its hash; the same content again is no change.

        Raises:
            Busy: There is no room until older contents are over.
        """
        ...

    async def get(self, digest: str) -> bytes:
        """Return a content, whose time begins anew; raise `NotFound`."""
        ...

    async def has(self, digests: Collection[str]) -> set[str]:
        """Return those of the hashes whose contents are kept, whose time begins anew."""
        ...


# -- who acts, and what they hand in --------------------------------------------------------


class Generations(Protocol):
    """Keeps the generation of each principal; ADAM's issue implements it.

    What a method has returned survives `kill -9` and holds for every process that asks
    afterwards: nothing that was made under an older generation counts from then on. Whoever keeps
    an answer keeps it for 2 s at most. Each change is a fact, by which others cut open sockets.
    """

    async def begin(self, principal: PrincipalId) -> Standing:
        """Let a new principal act, or one whose quarantine has ended, and return its standing.

        A new one has generation 1. One that is released keeps the generation that its quarantine
        began, so nothing from before it counts again. Beginning what is active is no change.

        Raises:
            Conflict: The principal was removed: its id is never used again.
            InvalidInput: This is no principal's id.
        """
        ...

    async def standing(self, principal: PrincipalId) -> Standing:
        """Return how a principal stands.

        Raises:
            NotFound: Nobody has had this id.
        """
        ...

    async def end(
        self, principal: PrincipalId, generation: Generation, cause: EndCause
    ) -> Standing:
        """End a generation and return the standing of the next.

        Ending one that is over already is no change, except that `quarantined` and `removed`
        still take hold of whatever generation is the present one: two who end it at once do not
        cancel each other. What was removed stays removed.

        Raises:
            NotFound: Nobody has had this id.
            InvalidInput: There has been no such generation yet.
        """
        ...


class ProposalIntake(Protocol):
    """Takes proposals in, whichever way they come; ADAM implements it.

    Every refusal is a fact as well (bounded in rate), before its error comes out. What a receipt
    was given for survives `kill -9`; a call that was cut off has taken the proposal in or not, and
    the same submission again tells which.
    """

    async def submit(self, submission: Submission) -> IntakeReceipt:
        """Decide whether the author may propose this, keep it, and set its tests going.

        Returns when it is kept, not when it is decided. The same submission again (of the same
        principal, whatever the session) returns the same digest and says `duplicate`; a base that
        is a branch is not resolved anew.

        Raises:
            Unauthenticated: The session is over, or its generation (`core.principals`).
            Forbidden: Policy does not let this principal propose this, or enter it `live`.
            Stale: The same lines changed since the base; `core.pending.conflicts_of` has the
                newer texts.
            InvalidInput: An edit does not fit its base, or a field has the wrong form.
            NotFound: There is no such repository, branch, revision or stored blob.
            Conflict: The id is another's or has other edits, and `replaces` is not its digest;
                or it is too late to replace it.
            Busy: The author has as many open proposals, or made as many in the last hour, as
                allowed; `extra["retry_after_s"]` says when to try. Others are not affected.
        """
        ...

    async def find(self, proposal: ProposalId, session: ActingSession) -> IntakeReceipt:
        """Return the receipt of a proposal as it is now, to its author or whoever may read it.

        Raises:
            Unauthenticated: The session is over.
            NotFound: There is no such proposal, or the caller may not know of it.
        """
        ...


class PatchScorer(Protocol):
    """Says how unlike approved history a patch is: a hint, on which no permission rests."""

    async def score(self, texts: Sequence[str]) -> PatchScore | None:
        """Return the score of the added lines of a patch, a text a file; None without a model.

        Raises:
            Unavailable: There is a model, and no score within its time and memory.
        """
        ...


class Signals(Protocol):
    """What governance and control need of whoever keeps identities (the hub)."""

    async def quarantine(self, principal: PrincipalId, reason: str) -> None:
        """Revoke its certificates, close its connections, refuse it from now on. Idempotent."""
        ...

    async def release(
        self,
        principal: PrincipalId,
        *,
        by: PrincipalId | None = None,
        new_key: bool = False,
        probation_until: float = 0.0,
    ) -> None:
        """End a quarantine; with `new_key` its certificates stay void. Idempotent."""
        ...

    async def knows(self, principal: PrincipalId) -> bool:
        """Return whether there is such a node or agent, or it is about to join."""
        ...

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        """Tell whether a principal is refused at present."""
        ...
