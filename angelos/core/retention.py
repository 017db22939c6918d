"""How long what grows is kept: settings, and what is removed at a moment.

>>> due(RetentionConfig(journal_days=2, outputs_days=1), now=10 * DAY_S).journal_before == 9 * DAY_S
True
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec

DAY_S = 86_400.0
_Days = Annotated[float, msgspec.Meta(ge=1, le=36_500)]


class RetentionConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept, and for how long; the audit log and repositories are kept for ever."""

    journal_days: _Days = 30.0
    """How old facts in the journal may be; those that last stay in the audit log."""
    journal_mb: Annotated[float, msgspec.Meta(ge=16, le=1_000_000)] = 256.0
    """How much the journal may hold, in Valkey's memory and on disk."""
    outputs_days: Annotated[float, msgspec.Meta(ge=0, le=36_500)] = 90.0
    """How long after its end a task's output is kept, unless it tested a proposal; 0: for ever."""
    files_days: _Days = 7.0
    """How long a file that goes into or came out of tasks is kept after its last use."""


class Due(NamedTuple):
    """What is to be removed; times are Unix seconds."""

    journal_before: float
    journal_bytes: int
    outputs_before: float | None
    """Of tasks that ended before; None: of none."""
    files_before: float


def due(config: RetentionConfig, now: float) -> Due:
    """Return what is to be removed at a moment.

    The journal holds outputs too, so it never keeps them for longer than they may be kept.
    """
    days = config.journal_days
    outputs = None
    if config.outputs_days:
        days = min(days, config.outputs_days)
        outputs = now - config.outputs_days * DAY_S
    return Due(
        journal_before=now - days * DAY_S,
        journal_bytes=int(config.journal_mb * 1_000_000),
        outputs_before=outputs,
        files_before=now - config.files_days * DAY_S,
    )
