"""What the broker is told by its operator, and why it refuses. Pure data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from angelos.core.network import NetworkVerdict

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class BrokerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one box may have of the network."""

    connections: _Positive = 16
    """At once; others wait."""
    requests: _Positive = 10_000
    """In all, with those that are refused: each is a fact."""
    head_bytes: _Positive = 32_768
    """Of the head of a request or an answer."""
    headers: _Positive = 100
    request_bytes: _Positive = 64_000_000
    """Of the body of one request."""
    total_bytes: _Positive = 4_000_000_000
    """Sent and received in all."""
    connect_s: float = 15.0
    """To look a name up, to connect and to agree on keys."""
    idle_s: float = 60.0
    """Of each step in which nothing moves."""


class Credential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A header that the node puts into requests to one host."""

    name: str
    """By which rules name it: `https://host/ as NAME`."""
    host: str
    port: int = 443
    header: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]+\Z")] = "Authorization"
    value: Annotated[
        str, msgspec.Meta(min_length=8, max_length=8_192, pattern=r"^[!-~]([ -~]*[!-~])?\Z")
    ]
    """As h11 sends it: the error that another one ends in would hold it."""


class NetworkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator of a node says of its network."""

    hosts: dict[str, str] = {}
    """Names whose addresses are listed, private ones too: `host[:port]` -> `address[:port]`."""
    authorities: Path | None = None
    """A file of certificates that are trusted beside those of the system."""
    credentials: tuple[Credential, ...] = ()
    index: str = ""
    """The package index, as a rule: `https://pypi.org/simple/`; without one there is none."""
    index_files: tuple[str, ...] = ()
    """Rules of the hosts from which it has its files."""
    limits: BrokerLimits = BrokerLimits()


class RequestRefused(Exception):
    """A request of a box that is not carried out."""

    def __init__(self, verdict: NetworkVerdict, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
