"""Whose turn it is in the merge queue of a repository: pure.

One candidate is under test at a time. It holds a batch: the oldest proposal of each author in
turn, until there are no more or the batch is full, each on top of the one before. What fails
together is tested in smaller batches; an author with more proposals in it than anybody else goes
into one of their own, so others wait for one test run at most. These, and the proposals of an
author whose last one failed, are tested apart: never two in a row while others wait.

>>> turn(ControlState(), "study")
()
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from typing import NamedTuple

from angelos.control.state.models import ControlState, ProposalRecord
from angelos.control.state.proposals import together
from angelos.core.facts import CandidateOutcome
from angelos.core.ids import PrincipalId, ProposalId
from angelos.core.pending import MAX_BATCH

Ended = Callable[[ProposalRecord], object]


class AuthorTurn(NamedTuple):
    """How an author stands in the queue: less comes first."""

    tested_at: float = 0.0
    failed: bool = False
    """Whether the last proposal of theirs that was tested failed."""


def turn(
    state: ControlState, repo: str, ended: Ended = lambda _: False
) -> tuple[ProposalRecord, ...]:
    """Return the proposals whose turn it is: under test, else approved, else the next batch.

    Args:
        state: All proposals.
        repo: The repository.
        ended: Whether a proposal is about to be rejected: it is in no new batch.
    """
    records = [record for record in state.proposals.values() if record.repo == repo]
    for turn_state in ("testing", "approved"):
        first = next((record for record in records if record.state == turn_state), None)
        if first is not None:
            return tuple(record for record in records if together(record, first))
    pending = [record for record in records if record.state == "pending" and not ended(record)]
    return _next_batch(records, pending, last_apart=repo in state.apart)


def is_apart(state: ControlState, batch: Sequence[ProposalRecord]) -> bool:
    """Return whether a batch is tested apart from the rest."""
    first = batch[0]
    if first.group:
        return True
    records = [record for record in state.proposals.values() if record.repo == first.repo]
    return _author_turns(records)[first.author].failed


def split(batch: Sequence[ProposalRecord]) -> dict[ProposalId, str]:
    """Return the group of each proposal of a batch that failed.

    Whoever has more proposals in it than anybody else is alone in the second group.
    """
    count = Counter(record.author for record in batch)
    ranks = count.most_common()
    if len(ranks) == 1:
        second = {record.id for record in batch[len(batch) // 2 :]}
    else:
        most = ranks[0][1]
        alone = most > ranks[1][1]
        authors = [author for author, _ in ranks]
        apart = set(authors[:1] if alone else authors[: len(authors) // 2])
        second = {record.id for record in batch if record.author in apart}
    label = batch[0].group or batch[0].id.removeprefix("prop-")
    return {record.id: f"{label}{'b' if record.id in second else 'a'}" for record in batch}


def _next_batch(
    records: Sequence[ProposalRecord], pending: Sequence[ProposalRecord], *, last_apart: bool
) -> tuple[ProposalRecord, ...]:
    turns = _author_turns(records)
    clean = [r for r in pending if not r.group and not turns[r.author].failed]
    apart = _apart(pending, turns)
    if clean and (last_apart or not apart):
        return tuple(_round_robin(clean, turns))[:MAX_BATCH]
    return apart


def _author_turns(records: Iterable[ProposalRecord]) -> dict[PrincipalId, AuthorTurn]:
    turns: dict[PrincipalId, AuthorTurn] = {}
    for record in records:
        own = AuthorTurn(record.tested_at, record.outcome is CandidateOutcome.failed)
        turns[record.author] = max(turns.get(record.author, AuthorTurn()), own)
    return turns


def _round_robin(
    clean: Sequence[ProposalRecord], turns: dict[PrincipalId, AuthorTurn]
) -> list[ProposalRecord]:
    """Return proposals, one of each author in turn; first whoever was tested longest ago."""
    by_author: dict[PrincipalId, list[ProposalRecord]] = {}
    for record in clean:
        by_author.setdefault(record.author, []).append(record)
    lines = sorted(by_author.values(), key=lambda line: turns[line[0].author].tested_at)
    rounds = zip_longest(*lines)
    return [record for row in rounds for record in row if record is not None]


def _apart(
    pending: Sequence[ProposalRecord], turns: dict[PrincipalId, AuthorTurn]
) -> tuple[ProposalRecord, ...]:
    """Return the proposals apart from the rest that were tested longest ago, if there are any."""
    units: dict[str, list[ProposalRecord]] = {}
    for record in pending:
        if record.group:
            units.setdefault(record.group, []).append(record)
        elif turns[record.author].failed:
            units.setdefault(f"~{record.author}", [record])  # one at a time

    def rank(label: str) -> tuple[float, str]:
        unit = units[label]
        tested_at = turns[unit[0].author].tested_at if label[0] == "~" else unit[0].tested_at
        return tested_at, label

    return tuple(units[min(units, key=rank)]) if units else ()
