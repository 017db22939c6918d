"""Which of the connected peers a message goes to: by name, by labels, to the least loaded.

>>> peers = [
...     ConnectedPeer(PrincipalId("node/a"), frozenset({"role=execution", "gpu"}), 3),
...     ConnectedPeer(PrincipalId("node/b"), frozenset({"role=execution", "language=rust"}), 1),
... ]
>>> choose("role=execution", "", peers)
'node/b'
>>> choose("gpu", "", peers)
'node/a'
>>> choose("node/away", "", peers)          # a name need not be connected: its queue waits for it
'node/away'
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from angelos.core.errors import InvalidInput, NotFound
from angelos.core.ids import PrincipalId, is_principal

_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,31}(=[A-Za-z0-9_.+-]{1,63})?")
_MOST_LABELS = 16


@dataclass(frozen=True)
class ConnectedPeer:
    """A connected peer."""

    principal: PrincipalId
    labels: frozenset[str]
    load: int
    """How many envelopes are with it, not settled."""
    subprotocol: str = ""
    """How its frames are written."""
    hub: str = ""
    """The hub that it is connected to; this one if empty."""


def parse_labels(text: str) -> frozenset[str]:
    """Return the labels in `language=rust,gpu`.

    Raises:
        InvalidInput: One has the wrong form, or there are too many.
    """
    labels = frozenset(filter(None, text.split(",")))
    if len(labels) > _MOST_LABELS or not all(map(_LABEL.fullmatch, labels)):
        raise InvalidInput(
            f"{text[:80]!r} are no labels.", hint="Write name or name=value, separated by commas."
        )
    return labels


def labels_of(node_role: str, reported: str) -> frozenset[str]:
    """Return a peer's labels: its enrolled role, and what it reports of itself but a role."""
    own = frozenset({f"role={node_role}"}) if node_role else frozenset[str]()
    try:
        labels = parse_labels(reported)
    except InvalidInput:
        return own
    return own | {label for label in labels if not label.startswith("role")}


def choose(to: str, sticky: str, peers: Iterable[ConnectedPeer]) -> PrincipalId:
    """Return the destination of a message.

    Args:
        to: A principal, or labels that the destination must all have.
        sticky: Messages with the same word go to the same one of the able, whatever its load, as
            long as it is connected (rendezvous hashing: Thaler and Ravishankar, 1998).
        peers: Who is connected.

    Raises:
        NotFound: Nobody connected has all these labels.
        InvalidInput: `to` is neither.
    """
    if "/" in to:
        if not is_principal(to):
            raise InvalidInput(f"{to[:80]!r} is no principal.")
        return PrincipalId(to)
    labels = parse_labels(to)
    if not labels:
        raise InvalidInput("A message needs a destination.")
    able = [peer for peer in peers if labels <= peer.labels]
    if not able:
        raise NotFound(f"Nobody connected has the labels {to}.")
    if sticky:
        return max(able, key=lambda peer: _weight(sticky, peer.principal)).principal
    return min(able, key=lambda peer: (peer.load, peer.principal)).principal


def _weight(sticky: str, principal: PrincipalId) -> bytes:
    return hashlib.sha256(f"{sticky} {principal}".encode()).digest()
