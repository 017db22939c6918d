"""The state of control as bytes, for a snapshot.

>>> unpacked(packed(ControlState())) == ControlState()
True
"""

from __future__ import annotations

import functools
import logging

import msgspec

from angelos.control.state.models import ControlState
from angelos.core.snapshots import fold_version

log = logging.getLogger(__name__)
_PACKAGES = ("angelos.control.state", "angelos.core")
_decoder = msgspec.msgpack.Decoder(ControlState)


@functools.cache
def version_of_fold() -> str:
    """Return the version of the code that folds facts to this state."""
    return fold_version(_PACKAGES)


def packed(state: ControlState) -> bytes:
    """Return a state as bytes."""
    return msgspec.msgpack.encode(state)


def unpacked(body: bytes) -> ControlState | None:
    """Return the state; None if the bytes are none, which is said in the server's log."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        log.warning("the snapshot of control cannot be read, and its facts are folded: %s", error)
        return None
