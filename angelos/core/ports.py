"""The seams of the system: small protocols that everything else depends on.

Real adapters live in `angelos/adapters` and in the planes; fakes for tests in
`angelos/testing/`. What each promises is in its
docstring.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from angelos.core.frames import Envelope
from angelos.core.ids import CommandId, Offset, PrincipalId, ProposalId, Revision
from angelos.core.messages import Command, Fact, Tier
from angelos.core.repository import Branch, Candidate, Change, Edit, Proposed
from angelos.core.revision import Bundle, Entry
from angelos.core.runs import Exit, Output, RunSpec


class Clock(Protocol):
    """Time, passed in so that tests can hold it."""

    def time(self) -> float:
        """Return Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...


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


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """A command was taken durably; `duplicate` if its id was there already."""

    command: CommandId
    position: Offset
    duplicate: bool = False


class Delivery(Protocol):
    """One command handed out by a queue, to be acknowledged or given back."""

    command: Command
    position: Offset

    async def ack(self) -> None:
        """Say that it is done; it will not be delivered again."""
        ...

    async def nack(self, reason: str) -> None:
        """Say that it cannot be done; it is delivered again."""
        ...


class Queue(Protocol):
    """Commands to each destination: at least once, in order, deduplicated by id, bounded."""

    async def put(self, to: PrincipalId, command: Command) -> Receipt:
        """Take a command durably; raise `Busy` when the destination's queue is full."""
        ...

    def take(self, me: PrincipalId) -> AsyncIterator[Delivery]:
        """Yield what is not acknowledged, oldest first, then what comes, for ever."""
        ...

    async def depth(self, to: PrincipalId) -> int:
        """Return how many commands wait for `to`."""
        ...

    async def drop(self, to: PrincipalId, commands: Collection[CommandId]) -> int:
        """Remove waiting commands by id and return how many were removed."""
        ...


# -- repository ------------------------------------------------------------------------------


class Repository(Protocol):
    """AngelGit. Stale bases are refused; revisions are hashes; every commit is signed.

    `dev` is the branch of the live documents that people type into; a proposal is merged into
    it when it arrives. `main` moves only to a candidate that was tested.
    """

    async def create(
        self, repo: str, files: Mapping[str, bytes], author: PrincipalId, message: str
    ) -> Revision:
        """Import files as a new repository; `dev` and `main` both start at the revision."""
        ...

    async def repos(self) -> list[str]:
        """Return the names of all repositories."""
        ...

    async def head(self, repo: str, branch: Branch) -> Revision:
        """Return a branch's revision; raise `NotFound`."""
        ...

    async def tree(self, repo: str, revision: Revision) -> tuple[Entry, ...]:
        """Return the entries of a revision, sorted by path; raise `NotFound`."""
        ...

    async def read(self, repo: str, revision: Revision, path: str) -> bytes:
        """Return a file's content at a revision; raise `NotFound`."""
        ...

    async def read_live(self, repo: str, path: str) -> bytes:
        """Return a file's content in the live documents of `dev`, typed a moment ago included."""
        ...

    async def bundle(self, repo: str, revision: Revision) -> Bundle:
        """Return all of one revision, signed, for a node to verify."""
        ...

    async def changed(self, repo: str, before: Revision, after: Revision) -> tuple[Change, ...]:
        """Return the paths that differ between two revisions."""
        ...

    async def propose(
        self,
        proposal: ProposalId,
        repo: str,
        base: Revision,
        edits: Sequence[Edit],
        author: PrincipalId,
        message: str,
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

    async def candidate(self, proposal: ProposalId) -> Candidate:
        """Merge a proposal onto the present `main` and commit the result on no branch.

        Raises `Stale` when the same lines have changed in `main` since.
        """
        ...

    async def advance(self, repo: str, revision: Revision, expected: Revision) -> None:
        """Move `main` to a candidate; raise `Conflict` unless it still is at `expected`."""
        ...

    async def revert(self, proposal: ProposalId) -> Revision:
        """Take a merged proposal's edits out of `dev` again, around everybody else's.

        Raises `Conflict`, with nothing written, when others have changed the same lines since.
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
    """Rooms that are open in the running server; `jupyter_ext` provides it."""

    async def apply(self, repo: str, path: str, update: bytes) -> bool:
        """Apply a CRDT update to the open room of a document; False when none is open."""
        ...


class Snapshots(Protocol):
    """States of documents, each atomic with the log offset that it covers."""

    async def put(self, key: str, state: bytes, upto: Offset, sha256: str) -> None:
        """Store a state that contains every update up to and with `upto`."""
        ...

    async def get(self, key: str) -> tuple[bytes, Offset] | None:
        """Return the newest state and the offset that it covers."""
        ...


# -- channel and sandbox ---------------------------------------------------------------------


class Channel(Protocol):
    """An authenticated, ordered, flow-controlled link between the hub and one peer."""

    peer: PrincipalId

    async def send(self, batch: Sequence[Envelope]) -> None:
        """Send a batch; waits while the peer has given no credit. Raises `Unavailable`."""
        ...

    async def recv(self) -> list[Envelope]:
        """Return the next batch; raise `Unavailable` when the link is gone."""
        ...

    async def close(self, reason: str = "") -> None:
        """Close the link."""
        ...


class Sandbox(Protocol):
    """Runs programs in a box of their own."""

    tier: Tier

    def run(self, spec: RunSpec) -> AsyncIterator[Output | Exit]:
        """Yield output as it comes and one `Exit` last. Closing the iterator kills the run."""
        ...


class Admission(Protocol):
    """Decides which facts of peers the hub writes down (control, by the state of its tasks)."""

    def accepts(self, fact: Fact) -> bool:
        """Return whether a peer's fact is accepted into the journal.

        Args:
            fact: well formed, and said by its actor in its own name: the hub has checked that.
        """
        ...


class Signals(Protocol):
    """What governance and control need of whoever keeps identities (the hub)."""

    async def quarantine(self, principal: PrincipalId, reason: str) -> None:
        """Revoke its certificates, close its connections, refuse it from now on. Idempotent."""
        ...

    async def release(self, principal: PrincipalId) -> None:
        """End a quarantine; a new certificate has to be enrolled."""
        ...

    async def is_quarantined(self, principal: PrincipalId) -> bool:
        """Tell whether a principal is refused at present."""
        ...
