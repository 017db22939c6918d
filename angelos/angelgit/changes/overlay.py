"""What a proposal is as an overlay: its hunks, where they are in the live text, what conflicts.

Pure and sometimes expensive: the callers use `in_thread`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from angelos.angelgit.merge.changes import ChangedFile
from angelos.angelgit.merge.conflicts import MergeConflict
from angelos.angelgit.merge.files import FileContent
from angelos.angelgit.merge.hunks import edit_conflict, placed
from angelos.angelgit.merge.parts import change_hunks
from angelos.angelgit.storage.models import ProposalStatus, StoredProposal
from angelos.core.ids import HunkId, Revision
from angelos.core.pending import HunkState, Pending, PendingHunk

_STATES = {
    ProposalStatus.proposed: HunkState.open,
    ProposalStatus.merged: HunkState.accepted,
    ProposalStatus.promoted: HunkState.promoted,
    ProposalStatus.reverted: HunkState.withdrawn,
    ProposalStatus.withdrawn: HunkState.withdrawn,
}


class TriedFiles(NamedTuple):
    """A proposal's files, tried against `dev`."""

    changed: Sequence[ChangedFile]
    live: Mapping[str, FileContent]
    """Path -> file in `dev` now; empty if the proposal no longer waits."""
    conflicts: Sequence[MergeConflict]
    accepted: Mapping[HunkId, HunkState]
    """The hunks that are in `dev` or `main` as parts of their own."""


def pending_of(stored: StoredProposal, tried: TriedFiles, dev: Revision) -> Pending:
    """Return a proposal in hunks, tried against the live text.

    Args:
        stored: the proposal.
        tried: its files.
        dev: the head of `dev` below the live text.
    """
    record = stored.record
    hunks = [hunk for change in tried.changed for hunk in _hunks(change, tried.live)]
    state = _STATES[stored.status]
    own = {*record.hunks} or {hunk.id for hunk in hunks}
    return Pending(
        id=record.id,
        repo=record.repo,
        base=record.base,
        author=record.author,
        message=record.message,
        digest=record.digest,
        hunks=tuple(
            msgspec.structs.replace(hunk, state=_further(state, tried.accepted.get(hunk.id)))
            for hunk in hunks
            if hunk.id in own
        ),
        dev=dev,
        at=_time_of(record.id),
        reverts=record.reverts,
        conflicts=tuple(edit_conflict(conflict) for conflict in tried.conflicts),
    )


def _further(of_whole: HunkState, of_part: HunkState | None) -> HunkState:
    """Return how far a hunk has come, which may also be in a part."""
    order = (HunkState.withdrawn, HunkState.open, HunkState.accepted, HunkState.promoted)
    return of_whole if of_part is None else max(of_whole, of_part, key=order.index)


def _hunks(change: ChangedFile, live: Mapping[str, FileContent]) -> tuple[PendingHunk, ...]:
    """Return the hunks of one file, with their places in the live text."""
    hunks, before, present = change_hunks(change), change.before, live.get(change.path)
    if before is None or change.after is None or present is None:
        return hunks
    if before.live and change.after.live and present.live:
        return placed(hunks, change.path, before.text, present.text)
    return hunks


def _time_of(proposal: str) -> float:
    """Return when an id was made, in Unix seconds: it begins with the time (RFC 9562)."""
    return int(proposal.rpartition("-")[2][:12], 16) / 1000
