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
from angelos.angelgit.merge.hunks import edit_conflict, file_hunks, hunks_of, placed
from angelos.angelgit.storage.models import ProposalStatus, StoredProposal
from angelos.core.ids import Revision
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
    return Pending(
        id=record.id,
        repo=record.repo,
        base=record.base,
        author=record.author,
        message=record.message,
        digest=record.digest,
        hunks=tuple(msgspec.structs.replace(hunk, state=state) for hunk in hunks),
        dev=dev,
        at=_time_of(record.id),
        reverts=record.reverts,
        conflicts=tuple(edit_conflict(conflict) for conflict in tried.conflicts),
    )


def _hunks(change: ChangedFile, live: Mapping[str, FileContent]) -> tuple[PendingHunk, ...]:
    """Return the hunks of one file: by line where both sides are text, else of the whole."""
    path, before, after = change.path, change.before, change.after
    whole = file_hunks(path, change.to, before, after)
    if any(side is not None and not side.live for side in (before, after)):
        return whole
    hunks = hunks_of(path, before and before.text, after and after.text)
    present = live.get(path)
    if before is not None and after is not None and present is not None and present.live:
        hunks = placed(hunks, path, before.text, present.text)
    return (*whole, *hunks)


def _time_of(proposal: str) -> float:
    """Return when an id was made, in Unix seconds: it begins with the time (RFC 9562)."""
    return int(proposal.rpartition("-")[2][:12], 16) / 1000
