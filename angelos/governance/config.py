"""Settings of governance."""

from __future__ import annotations

import msgspec


class GovernanceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often checkpoints are signed and what is suspicious."""

    checkpoint_every_s: float = 2.0
    checkpoint_entries: int = 256
    """Sign at the latest after so many entries, however quickly they come."""
    batch: int = 500
    """Facts projected in one transaction at most."""
    export_page: int = 100
    """Entries (and checkpoints) that an export holds at once; one may have a megabyte."""
    settle_s: float = 5.0
    """How long the end waits until the journal's last facts are in the log and signed."""
    denied_to_flag: int = 3
    """A principal whose runs were denied so often within `denied_window_s` is flagged."""
    denied_window_s: float = 600.0
