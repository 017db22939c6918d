"""What a proposal is as an overlay: its hunks, where they are in the live text, what conflicts.

Pure and sometimes expensive: the callers use `in_thread`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from angelos.angelgit.changes import prepare
from angelos.angelgit.merge.hunks import edit_conflict, hunks_of, placed
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


class ProposalTexts(NamedTuple):
    """The texts of a proposal's files by path."""

    before: Mapping[str, str]
    after: Mapping[str, str]
    live: Mapping[str, str]
    """In `dev` now; empty if the proposal no longer waits."""
    dev: Mapping[str, str]
    """Path -> document of the files in `dev`."""


def pending_of(stored: StoredProposal, texts: ProposalTexts, dev: Revision) -> Pending:
    """Return a proposal in hunks, tried against the live text.

    Args:
        stored: the proposal.
        texts: the texts of its files.
        dev: the head of `dev` below the live text.
    """
    record = stored.record
    hunks: list[PendingHunk] = []
    for change in record.paths:
        path = change.path
        before, after = texts.before.get(path), texts.after.get(path)
        of_file = hunks_of(path, before, after)
        if before is not None and path in texts.live:
            of_file = placed(of_file, path, before, texts.live[path])
        hunks += of_file
    conflicts = (
        prepare.find_conflicts(record.paths, texts.dev, texts.before, texts.live, texts.after)
        if stored.status is ProposalStatus.proposed
        else []
    )
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
        conflicts=tuple(edit_conflict(conflict) for conflict in conflicts),
    )


def _time_of(proposal: str) -> float:
    """Return when an id was made, in Unix seconds: it begins with the time (RFC 9562)."""
    return int(proposal.rpartition("-")[2][:12], 16) / 1000
