"""What the hub can be told."""

from __future__ import annotations

import msgspec

from angelos.core.channel import Config as ChannelConfig


class HubConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the hub; ports 0 are chosen free, others are kept if they can be had."""

    port: int = 0
    enrol_port: int = 0
    grant_key: bytes = b""
    """Control's public key, handed to whoever enrols."""
    revision_key: bytes = b""
    """AngelGit's public key, handed to whoever enrols."""
    channel: ChannelConfig = ChannelConfig()
    resume_s: float = 60.0
    """How long the session of a peer that is gone is kept for it."""
    tick_s: float = 1.0
    """How often links are looked after."""
    patience_s: float = 30.0
    """How long one event may take to be read before its reader is too slow."""
