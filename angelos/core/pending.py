"""Edits that wait: a proposal tried against `dev`, its pieces, and what becomes of them.

A proposal does not enter the live documents when it arrives. It is tried against `dev` on a copy
and kept as `Pending`: open notebooks show its hunks as an overlay. A person accepts a `Part` of
it, the whole or some files, cells or hunks. A part has a digest of its own, to which tests and
approvals bind, and the whole has the proposal's.

    >>> hunks = tuple(PendingHunk(id=HunkId(c * 16), path="a.py", kind=ChangeKind.text)
    ...     for c in "ab")
    >>> pending = Pending(id=ProposalId("prop-1"), repo="study", base=Revision("0" * 64),
    ...     author=PrincipalId("agent/ada"), message="", digest="d" * 64, hunks=hunks,
    ...     dev=Revision("0" * 64), at=0.0)
    >>> part_of(pending, PartChoice(paths=("a.py",))).digest == pending.digest
    True
    >>> part_of(pending, PartChoice(hunks=(HunkId("a" * 16),))).hunks
    ('aaaaaaaaaaaaaaaa',)
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any

import msgspec

from angelos.core.errors import Conflict, InvalidInput, Stale
from angelos.core.ids import HunkId, PrincipalId, ProposalId, Revision, TaskId
from angelos.core.messages import Input
from angelos.core.repository import TreeEdit

MAX_EDITS = 256
MAX_HUNKS = 20_000
MAX_BATCH = 512
MAX_CONFLICTS = 20
MAX_CONFLICT_TEXT = 4_000


class ChangeKind(StrEnum):
    """What a hunk changes, and so what a conflict is about."""

    text = "text"
    """Lines of a text file or of a cell's source."""
    created = "created"
    """A new file, or a new cell where `cell` is given."""
    deleted = "deleted"
    """A file, or a cell where `cell` is given."""
    moved = "moved"
    """A file to another path, or a cell to another place."""
    blob = "blob"
    link = "link"
    mode = "mode"
    outputs = "outputs"
    metadata = "metadata"


class HunkState(StrEnum):
    """How far one hunk has come; it never goes back."""

    open = "open"
    accepted = "accepted"
    """It is in `dev`, by a person's acceptance; `main` still needs its tests."""
    promoted = "promoted"
    """It is in `main`."""
    withdrawn = "withdrawn"
    """It will not enter any more."""


class PendingState(StrEnum):
    """How far a proposal has come, in the repository's eyes."""

    open = "open"
    """Some hunks are open, and all of these fit the present `dev`."""
    stale = "stale"
    """Some hunks are open, and of these some no longer fit the present `dev`."""
    accepted = "accepted"
    """None is open, some are in `dev` only."""
    promoted = "promoted"
    """None is open or in `dev` only, some are in `main`."""
    withdrawn = "withdrawn"
    """All of it was withdrawn."""


class EditConflict(msgspec.Struct, frozen=True, kw_only=True):
    """Two changes of one base that cannot both hold, with the three texts."""

    path: str
    kind: ChangeKind
    cell: str = ""
    """Id of the cell in which the lines are counted."""
    start: int = 0
    """First line of the base that both changed, from 1; 0 where it is not about lines."""
    end: int = 0
    """Last line; smaller than `start` where nothing stood before."""
    base: str = ""
    current: str = ""
    """As it is now in the branch that the edit was tried against; the newer text."""
    proposed: str = ""
    hunk: HunkId = HunkId("")


class PendingHunk(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest piece of a proposal that can be accepted by itself."""

    id: HunkId
    path: str
    kind: ChangeKind
    cell: str = ""
    to: str = ""
    """New path of a file that moves."""
    start: int = 0
    """First line that it replaces, from 1, in the base (in the cell's source, for a cell)."""
    end: int = 0
    """Last line; smaller than `start` where it only inserts."""
    at: int = 0
    """Where line `start` is in the present `dev`; 0 where it is not about lines or is stale."""
    previous: str = ""
    """Of a cell that is new or moves: the cell that it comes after; empty where it is first."""
    before: str = ""
    """The text that it replaces, whole; of a blob `sha256:<hex>`, of a move the old path, of a
    mode its name."""
    after: str = ""
    """The text that it puts there, in the same form."""
    state: HunkState = HunkState.open


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A proposal as the repository holds it, tried against the present `dev`."""

    id: ProposalId
    repo: str
    base: Revision
    author: PrincipalId
    message: str
    digest: str
    """`draft_digest` of what was proposed; approvals of the whole bind to it."""
    hunks: tuple[PendingHunk, ...]
    """In order of path, then of place in the base."""
    dev: Revision
    """The last commit of `dev` below the live text that it was tried against."""
    at: float
    """Unix seconds at which this version was proposed."""
    task: TaskId | None = None
    """The task in which an agent made it."""
    depends_on: ProposalId | None = None
    """The proposal whose branch it was based on; it lands after that one."""
    reverts: ProposalId | None = None
    """The proposal that it takes back."""
    conflicts: tuple[EditConflict, ...] = ()
    """Why it is stale."""

    @property
    def state(self) -> PendingState:
        """How far it has come."""
        states = {hunk.state for hunk in self.hunks}
        if HunkState.open in states:
            return PendingState.stale if self.conflicts else PendingState.open
        if HunkState.accepted in states:
            return PendingState.accepted
        promoted = HunkState.promoted in states
        return PendingState.promoted if promoted else PendingState.withdrawn


class ProposalDraft(msgspec.Struct, frozen=True, kw_only=True):
    """What is proposed, as control hands it to the repository."""

    id: ProposalId
    repo: str
    base: Revision
    """What the author read; on any branch."""
    edits: tuple[TreeEdit, ...]
    author: PrincipalId
    message: str
    task: TaskId | None = None
    depends_on: ProposalId | None = None
    replaces: str = ""
    """Digest of the version of this proposal that this one replaces; empty for the first."""
    reverts: ProposalId | None = None


class PartChoice(Input, frozen=True, kw_only=True):
    """Which hunks of a proposal; what is named is added up, and nothing named means the whole."""

    paths: tuple[str, ...] = ()
    cells: tuple[tuple[str, str], ...] = ()
    """Pairs of path and cell id."""
    hunks: tuple[HunkId, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Some hunks of one version of a proposal, or all."""

    proposal: ProposalId
    version: str
    """Digest of the whole proposal."""
    hunks: tuple[HunkId, ...]
    """Sorted, each once."""
    digest: str
    """What tests and approvals of the part bind to; of the whole it is the proposal's digest."""


class Acceptance(msgspec.Struct, frozen=True, kw_only=True):
    """A part that entered `dev`."""

    part: Part
    revision: Revision
    """The commit of `dev` that holds it; its first author is the proposal's."""
    by: PrincipalId
    """Who accepted what that commit brought in."""
    still_open: tuple[HunkId, ...]
    """What is left of the proposal."""


class LeftOutReason(StrEnum):
    """Why a part is not in a batch."""

    stale = "stale"
    """It does not fit `main` together with the parts before it."""
    depends = "depends"
    """The proposal that it depends on is neither in `main` nor before it in the batch."""
    withdrawn = "withdrawn"
    """One of its hunks was withdrawn, or its proposal was replaced by a newer version."""
    landed = "landed"
    """All of it is in `main` already."""


class BatchMember(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is in a batch, as a commit of its own."""

    part: Part
    revision: Revision


class BatchLeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is not in a batch."""

    part: Part
    reason: LeftOutReason
    conflicts: tuple[EditConflict, ...] = ()


class BatchCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """What `main` would become with several parts: signed commits on no branch."""

    revision: Revision
    """The last member's commit; `main` itself where there is no member."""
    main: Revision
    """Where `main` was; the first member's only parent."""
    tree: str
    members: tuple[BatchMember, ...]
    """In the order asked for, each the only parent of the next."""
    left_out: tuple[BatchLeftOut, ...] = ()


def draft_digest(draft: ProposalDraft) -> str:
    """Return the hash that an approval of the whole binds to.

    It covers repository, base, author, the exact edits, and what the proposal depends on or
    reverts; not its message, its id or the version that it replaces.

    Raises:
        InvalidInput: An edit holds text that is not Unicode.
    """
    covered = [
        draft.repo, draft.base, draft.author, list(draft.edits), draft.depends_on, draft.reverts,
    ]  # fmt: skip
    try:
        body = msgspec.json.encode(covered)
    except UnicodeEncodeError as error:
        raise InvalidInput(f"The edits hold text that is not Unicode: {error}") from error
    return hashlib.sha256(b"angelos.proposal.v2\0" + body).hexdigest()


def hunk_id(hunk: PendingHunk, repeated: int = 0) -> HunkId:
    """Return the id of a hunk: a hash of place and texts, and of nothing that changes later.

    Args:
        hunk: The hunk; its `id`, `at`, `previous` and `state` do not count.
        repeated: How many hunks that are equal in all this come before it.
    """
    covered = [
        hunk.path, hunk.kind, hunk.cell, hunk.to, hunk.start, hunk.end, hunk.before, hunk.after,
        repeated,
    ]  # fmt: skip
    body = msgspec.json.encode(covered)
    return HunkId(hashlib.sha256(b"angelos.hunk.v1\0" + body).hexdigest()[:16])


def part_of(pending: Pending, choice: PartChoice | None = None) -> Part:
    """Return the part of a proposal that somebody chose; without a choice, the whole.

    Raises:
        InvalidInput: Something that was named is not in the proposal, so that nothing is
            accepted in place of what was meant.
    """
    every = {hunk.id: hunk for hunk in pending.hunks}
    chosen = set[HunkId]()
    for path in choice.paths if choice else ():
        chosen |= _named(path, {h.id for h in pending.hunks if path in (h.path, h.to)})
    for path, cell in choice.cells if choice else ():
        cells = {h.id for h in pending.hunks if (h.path, h.cell) == (path, cell)}
        chosen |= _named(f"{path} cell {cell}", cells)
    for hunk in choice.hunks if choice else ():
        chosen |= _named(f"hunk {hunk}", {hunk} & every.keys())
    hunks = tuple(sorted(chosen or every))
    return Part(
        proposal=pending.id,
        version=pending.digest,
        hunks=hunks,
        digest=part_digest(pending.digest, hunks, every),
    )


def part_digest(version: str, hunks: Sequence[HunkId], every: Collection[HunkId]) -> str:
    """Return the digest of a part of the proposal with digest `version` and hunks `every`."""
    if set(hunks) == set(every):
        return version
    body = msgspec.json.encode([version, sorted(hunks)])
    return hashlib.sha256(b"angelos.part.v1\0" + body).hexdigest()


def check_part(pending: Pending, part: Part) -> None:
    """Refuse a part that is not one of this version of the proposal.

    Raises:
        Conflict: The proposal was replaced by a newer version since the part was made.
        InvalidInput: The part's hunks or digest are not those that `part_of` gives.
    """
    if part.proposal != pending.id or part.version != pending.digest:
        raise Conflict(
            f"{pending.id} has a newer version than the one that was looked at.",
            hint="Look at the proposal again.",
            digest=pending.digest,
        )
    every = {hunk.id for hunk in pending.hunks}
    right = part.hunks and list(part.hunks) == sorted({*part.hunks} & every)
    if not right or part.digest != part_digest(pending.digest, part.hunks, every):
        raise InvalidInput(f"This is no part of {pending.id}.")


def open_part(pending: Pending, choice: PartChoice | None = None) -> Part:
    """Return the part that somebody chose, of what of it is open.

    Raises:
        InvalidInput: Something that was named is not in the proposal.
        Conflict: All of it was accepted already.
    """
    part = part_of(pending, choice)
    every = {hunk.id for hunk in pending.hunks}
    open_hunks = {hunk.id for hunk in pending.hunks if hunk.state is HunkState.open}
    hunks = tuple(hunk for hunk in part.hunks if hunk in open_hunks)
    if not hunks:
        raise Conflict(f"All of this part of {pending.id} was accepted already.")
    digest = part_digest(pending.digest, hunks, every)
    return msgspec.structs.replace(part, hunks=hunks, digest=digest)


def is_all_that_is_open(pending: Pending, part: Part) -> bool:
    """Return whether nothing of a proposal is open beside a part."""
    open_hunks = {hunk.id for hunk in pending.hunks if hunk.state is HunkState.open}
    return open_hunks <= {*part.hunks}


def without_hunks(pending: Pending, part: Part) -> tuple[HunkId, ...]:
    """Return the hunks that are left of a proposal once a part of it is withdrawn, sorted.

    Raises:
        Conflict: The proposal has a newer version, or some of the part was accepted.
        InvalidInput: This is no part of the proposal, or it is all of it.
    """
    check_part(pending, part)
    accepted = {hunk.id for hunk in pending.hunks if hunk.state is not HunkState.open}
    if accepted & {*part.hunks}:
        raise Conflict(
            f"Some of this part of {pending.id} was accepted already; nothing was withdrawn.",
            hint="What was accepted is a proposal of its own, which can be rejected.",
        )
    left = {hunk.id for hunk in pending.hunks} - {*part.hunks}
    if not left:
        raise InvalidInput(f"This is all of {pending.id}: reject the proposal itself.")
    return tuple(sorted(left))


def stale(message: str, conflicts: Sequence[EditConflict]) -> Stale:
    """Return the error of edits that no longer fit, with the conflicts as evidence.

    At most `MAX_CONFLICTS` are kept, their texts cut to `MAX_CONFLICT_TEXT` characters; `more`
    says how many were left out.
    """
    rows: list[dict[str, Any]] = []
    for conflict in conflicts[:MAX_CONFLICTS]:
        texts = (conflict.base, conflict.current, conflict.proposed)
        base, current, proposed = (text[:MAX_CONFLICT_TEXT] for text in texts)
        short = msgspec.structs.replace(conflict, base=base, current=current, proposed=proposed)
        rows.append(msgspec.to_builtins(short))
    return Stale(
        message,
        hint="Read the newer text and propose again.",
        conflicts=rows,
        more=max(0, len(conflicts) - MAX_CONFLICTS),
    )


def conflicts_of(error: Stale) -> tuple[EditConflict, ...]:
    """Return the conflicts that a `Stale` carries, also one that crossed the wire.

    What cannot be read as a conflict is left out: an error never fails to be reported.
    """
    rows = error.extra.get("conflicts")
    conflicts: list[EditConflict] = []
    for row in rows if isinstance(rows, list | tuple) else ():
        try:
            conflicts.append(msgspec.convert(row, EditConflict))
        except msgspec.ValidationError:
            continue
    return tuple(conflicts)


def _named(name: str, hunks: set[HunkId]) -> set[HunkId]:
    if not hunks:
        raise InvalidInput(f"There is nothing of {name[:200]!r} in this proposal.")
    return hunks
