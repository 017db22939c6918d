"""What one consumer of a queue has read and not handed out, and what comes next; pure.

Order is kept for each source in each lane. An envelope that was given back holds what is behind it
of the same source and lane; all others pass. Rows that are held are not kept: they are read again
when what holds them is acknowledged or dead.

    backlog = Backlog()
    backlog.add(Lane.command, rows, now)
    row = backlog.next(now)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import msgspec

from angelos.core.envelopes import Lane, RoutedEnvelope
from angelos.core.ids import Offset, PrincipalId, offset_key

FRESH_S = 0.25
"""How long what was read may be handed out without asking the store again who owns it."""
LANES = tuple(Lane)
Sender = tuple[PrincipalId, Lane]
"""Within one, order is kept."""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One envelope of the store."""

    position: Offset
    envelope: RoutedEnvelope
    nacks: int = 0
    due: float = 0.0
    """Monotonic seconds before which it is not handed out."""

    @property
    def sender(self) -> Sender:
        """Whose order it is part of."""
        return self.envelope.header.source, self.envelope.header.lane

    @property
    def key(self) -> tuple[int, int]:
        """By which rows sort."""
        return offset_key(self.position)


@dataclass
class _Retry:
    sender: Sender
    key: tuple[int, int]
    nacks: int
    due: float
    out: bool = False


_NO_ROWS: deque[Row] = deque()


@dataclass(slots=True)
class _LaneRows:
    rows: deque[Row] = field(default_factory=lambda: _NO_ROWS)
    """Shared and empty until there are some: most lanes of most consumers never have any."""
    start: str = "-"
    """From where the store is read next: a position, `(` before it if that was read already."""
    more: bool = True
    """The store may have more."""


class Backlog:
    """The rows of one destination in one consumer."""

    def __init__(self) -> None:
        self._lanes = {lane: _LaneRows() for lane in LANES}
        self._out: dict[Offset, Sender] = {}
        self._retries: dict[Offset, _Retry] = {}
        self._skipped: dict[Sender, Offset] = {}
        self._read_at = 0.0

    # -- reading --------------------------------------------------------------------------------

    def starts(self) -> list[str]:
        """Return from where each lane is to be read now; empty for a lane that has rows."""
        return [
            lane.start if lane.more and not lane.rows else ""
            for lane in (self._lanes[name] for name in LANES)
        ]

    def due_retries(self, now: float) -> list[Offset]:
        """Return the positions that were given back and may be handed out again now."""
        return [
            position
            for position, retry in self._retries.items()
            if not retry.out and retry.due <= now and self._first_of(retry.sender) is retry
        ]

    def next_due(self) -> float | None:
        """Return when the next one may be handed out again, None if none waits for that."""
        waiting = [r.due for r in self._retries.values() if not r.out]
        return min(waiting, default=None)

    def add(self, lane: Lane, rows: Iterable[Row], last: str, *, more: bool, now: float) -> None:
        """Take what was read of a lane.

        Args:
            lane: Which.
            rows: In their order.
            last: The position of the last entry that was read, readable or not; empty: none.
            more: Whether there is more behind it.
            now: When it was asked for.
        """
        state = self._lanes[lane]
        for row in rows:
            if row.position in self._out or row.position in self._retries:
                continue
            if row.nacks:
                self._retries[row.position] = _Retry(row.sender, row.key, row.nacks, row.due)
            else:
                if state.rows is _NO_ROWS:
                    state.rows = deque()
                state.rows.append(row)
        state.more = more
        if last:
            state.start = f"({last}"
        self._read_at = now

    @property
    def given_back(self) -> bool:
        """Whether anything that was given back is not settled."""
        return bool(self._retries)

    def changed(self, lanes: Iterable[Lane] = LANES) -> None:
        """Note that the store may have more in these lanes."""
        for lane in lanes:
            self._lanes[lane].more = True

    def refresh(self, now: float) -> None:
        """Forget rows that were read too long ago: they are read again, under the same token."""
        if now - self._read_at <= FRESH_S:
            return
        for lane in self._lanes.values():
            if lane.rows:
                lane.start = lane.rows[0].position
                lane.rows.clear()
                lane.more = True

    # -- handing out ----------------------------------------------------------------------------

    def next(self) -> Row | None:
        """Return the next row that may be handed out: control first, else the oldest."""
        chosen: Row | None = None
        for name, lane in self._lanes.items():
            row = self._head(name) if lane.rows else None
            if row is None:
                continue
            if chosen is None or row.key < chosen.key:
                chosen = row
            if name is Lane.control:
                break
        if chosen is not None:
            self._lanes[chosen.envelope.header.lane].rows.popleft()
        return chosen

    def hand_out(self, row: Row) -> None:
        """Note that a row is with its consumer."""
        self._out[row.position] = row.sender
        if (retry := self._retries.get(row.position)) is not None:
            retry.out = True

    def sender(self, position: Offset) -> Sender | None:
        """Return whose order a row is part of that was handed out."""
        return self._out.get(position)

    def give_back(self, position: Offset, sender: Sender, nacks: int, due: float) -> None:
        """Note that it is to be handed out again at `due`."""
        self._out.pop(position, None)
        self._retries[position] = _Retry(sender, offset_key(position), nacks, due)

    def settle(self, positions: Collection[Offset]) -> None:
        """Note that these are acknowledged, dead or removed; what they held is read again."""
        for position in positions:
            self._out.pop(position, None)
            retry = self._retries.pop(position, None)
            if retry is not None and self._first_of(retry.sender) is None:
                self._release(retry.sender)

    def drop(self, positions: Collection[Offset]) -> None:
        """Note that these were removed from the store while they waited."""
        gone = frozenset(positions)
        for lane in self._lanes.values():
            if any(row.position in gone for row in lane.rows):
                lane.rows = deque(row for row in lane.rows if row.position not in gone)
        self.settle(gone)

    def _head(self, lane: Lane) -> Row | None:
        rows = self._lanes[lane].rows
        while rows:
            row = rows[0]
            first = self._first_of(row.sender) if self._retries else None
            if first is None or row.key < first.key:
                return row
            self._skipped.setdefault(row.sender, row.position)
            rows.popleft()
        return None

    def _first_of(self, sender: Sender) -> _Retry | None:
        """Return the oldest of this sender's that was given back: it holds the rest."""
        mine = [retry for retry in self._retries.values() if retry.sender == sender]
        return min(mine, key=lambda retry: retry.key, default=None)

    def _release(self, sender: Sender) -> None:
        skipped = self._skipped.pop(sender, None)
        if skipped is None:
            return
        lane = self._lanes[sender[1]]
        start = lane.rows[0].position if lane.rows else skipped
        lane.start = min(skipped, Offset(start), key=offset_key)
        lane.rows.clear()
        lane.more = True
