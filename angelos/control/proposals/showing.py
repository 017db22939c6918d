"""What a person was shown before they approve it: every page of a change, in order, to them.

    page = await showing.page(principal, record, after="")
    ...                                    # until a page has `shown`
    showing.check(principal, record, page.shown)

Each page gives a ticket for the next, and the last one gives the ticket that an approval needs. A
ticket is a MAC over the proposal, its digest and candidate, the person and the place, so nobody can
skip a page, use somebody else's, or one of another version; and the server remembers nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from angelos.control.context import ControlContext
from angelos.control.state.models import ProposalRecord
from angelos.control.state.proposals import is_long
from angelos.core.api import ProposalDiff
from angelos.core.errors import Conflict, InvalidInput, NotShown
from angelos.core.ids import Revision
from angelos.core.permissions import Principal
from angelos.core.repository import Change

PAGE_CHARS = 200_000
PAGE_FILES = 500
_KEPT_CHARS = 16_000_000
_CONTEXT = b"angelos.shown.v1"
_WHOLE = -1
_PLACE = re.compile(r"[0-9]{1,15}")


class Showing:
    """Serves whole changes, and checks who was served."""

    def __init__(self, context: ControlContext) -> None:
        self._repository = context.repository
        self._secret = hmac.digest(context.key.seed, _CONTEXT, "sha256")
        self._kept: OrderedDict[Revision, tuple[Change, ...]] = OrderedDict()

    async def page(self, principal: Principal, record: ProposalRecord, after: str) -> ProposalDiff:
        """Return a page of the whole change of a proposal.

        Args:
            principal: To whom it is shown.
            record: The proposal.
            after: `next` of the page before; empty for the first.

        Raises:
            Conflict: The proposal has no candidate: it is not tested, or is decided.
            InvalidInput: This is no page's `next`, or one of another version.
        """
        if record.commit is None:
            raise Conflict(
                f"{record.id} has no candidate yet, it is {record.state}.",
                hint="Its whole change is there when its tests have run.",
            )
        first, _, ticket = after.partition(".")
        start = int(first) if _PLACE.fullmatch(first) else 0
        if after and not self._is(ticket, principal, record, start):
            raise InvalidInput(
                "This is no page of the proposal as it is now, or not the next one.",
                hint="Begin again without `after`.",
            )
        changes, end = _cut_out(await self._changes(record.repo, record.commit), start)
        last = end is None
        place = _WHOLE if end is None else end
        ticket = self._ticket(principal, record, place)
        return ProposalDiff(
            proposal=record.id,
            digest=record.digest,
            changes=changes,
            next="" if last else f"{place}.{ticket}",
            shown=ticket if last else "",
        )

    def check(self, principal: Principal, record: ProposalRecord, shown: str) -> None:
        """Raise `NotShown` if a person may not know the whole of what they approve."""
        if is_long(record.changes) and not self._is(shown, principal, record, _WHOLE):
            raise NotShown(
                f"{record.id} is longer than what lists show, and the whole of it was not shown "
                f"to {principal.id}; nothing was counted.",
                hint=f"`angelos proposal approve {record.id} --whole` shows all of it first.",
            )

    def _ticket(self, principal: Principal, record: ProposalRecord, place: int) -> str:
        about = (
            record.id,
            record.digest,
            str(record.commit),
            principal.id,
            str(principal.generation),
            str(place),
        )
        return hmac.new(self._secret, msgspec.json.encode(about), hashlib.sha256).hexdigest()

    def _is(self, ticket: str, principal: Principal, record: ProposalRecord, place: int) -> bool:
        expected = self._ticket(principal, record, place)
        return ticket.isascii() and hmac.compare_digest(ticket, expected)

    async def _changes(self, repo: str, commit: Revision) -> tuple[Change, ...]:
        changes = self._kept.get(commit)
        if changes is None:
            changes = await self._repository.own_changes(repo, commit)
            self._kept[commit] = changes
        self._kept.move_to_end(commit)
        while len(self._kept) > 1 and sum(map(_length, self._kept.values())) > _KEPT_CHARS:
            self._kept.popitem(last=False)
        return changes


def _length(changes: Sequence[Change]) -> int:
    return sum(len(change.path) + len(change.diff) for change in changes)


def _cut_out(changes: Sequence[Change], start: int) -> tuple[tuple[Change, ...], int | None]:
    """Return the changes from a place on that fit a page, and where the next begins, if any.

    A place counts characters of diffs, and one more for each file.
    """
    page: list[Change] = []
    place, room = 0, PAGE_CHARS
    for change in changes:
        end = place + len(change.diff) + 1
        if end <= start:
            place = end
            continue
        if room <= 0 or len(page) == PAGE_FILES:
            return tuple(page), place
        rest = change.diff[max(0, start - place) :]
        if len(rest) > room:
            page.append(msgspec.structs.replace(change, diff=rest[:room], cut=True))
            return tuple(page), place + len(change.diff) - len(rest) + room
        page.append(msgspec.structs.replace(change, diff=rest))
        room -= len(rest)
        place = end
    return tuple(page), None
