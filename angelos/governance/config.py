"""Settings of governance."""

from __future__ import annotations

import msgspec

from angelos.governance.detection.models import DetectionConfig


class GovernanceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often checkpoints are signed, and what is suspicious."""

    checkpoint_every_s: float = 2.0
    checkpoint_entries: int = 256
    """Sign after this many entries, even before the time."""
    batch: int = 500
    """The most facts that one transaction projects."""
    export_page: int = 100
    """The most entries (or checkpoints) that an export holds at once; one may have a megabyte."""
    settle_s: float = 5.0
    """How long a shutdown waits until the journal's last facts are in the log and signed."""
    detection: DetectionConfig = DetectionConfig()
    """What is a sign of misbehaviour, and what follows from it."""
