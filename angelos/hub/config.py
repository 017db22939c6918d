"""Settings of the hub."""

from __future__ import annotations

from typing import Annotated

import msgspec

from angelos.core.channel import Config as ChannelConfig
from angelos.hub.fairness import IdentityLimits


class HubConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the hub.

    Port 0 means any free port; a port that is taken is replaced by one, unless it is `fixed`.
    """

    host: str = "127.0.0.1"
    port: int = 0
    enrol_port: int = 0
    fixed: bool = False
    """Others know the ports: they must not change."""
    public: str = ""
    """The name or address that others use; `host` if empty."""
    name: str = ""
    """Which of several hubs this is, as `system/gateway/gw.example.org`; control's own has none."""
    enrol_at: str = ""
    """Where tokens send new peers, `https://host:port`; to this hub if empty."""
    grant_key: bytes = b""
    """Control's public key, sent to every peer that enrols."""
    revision_key: bytes = b""
    """AngelGit's public key, sent to every peer that enrols."""
    channel: ChannelConfig = ChannelConfig()
    limits: IdentityLimits = IdentityLimits()
    """What one identity may spend."""
    unfolded: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    """The most facts of one peer that control has not folded yet; the peer waits."""
    resume_s: float = 60.0
    """How long the session of a disconnected peer is kept."""
    tick_s: float = 1.0
    """How often links are checked."""
    patience_s: float = 30.0
    """How long one write to a reader of events may take."""
