"""The messages on a room's WebSocket: the y-protocol's, and Jupyter's requests to save.

    sync        0, step (0 my state, 1 what you lack, 2 an update), bytes
    awareness   1, bytes
    raw         2, text; Jupyter's own: "save" and a number

Jupyter ignores anything else.
"""

from __future__ import annotations

from jupyter_server_ydoc.utils import MessageType
from pycrdt import Decoder, YMessageType, YSyncMessageType, read_message

NO_MESSAGE = 1007
"""Close code for an invalid message (RFC 6455, section 7.4.1)."""


def is_message(message: bytes) -> bool:
    """Return whether bytes have the form of a message; pycrdt checks the update in it.

    >>> is_message(bytes([MessageType.SYNC, YSyncMessageType.SYNC_STEP1, 1, 0])), is_message(b"")
    (True, False)
    """
    try:
        if message[0] == MessageType.SYNC:
            YSyncMessageType(message[1])
            read_message(message[2:])
        elif message[0] == MessageType.RAW:
            save_request(message)
        elif message[0] == YMessageType.AWARENESS:
            read_message(message[1:])
    except Exception:  # noqa: BLE001 - pycrdt raises many kinds for invalid bytes
        return False
    return True


def save_request(message: bytes) -> int | None:
    """Return the number of a request to save, None for any other message."""
    decoder = Decoder(message)
    decoder.read_var_uint()
    return decoder.read_var_uint() if decoder.read_var_string() == "save" else None


def message_body(message: bytes) -> bytes:
    """Return the update in a sync message, empty if there is none."""
    try:
        return read_message(message[2:])
    except Exception:  # noqa: BLE001 - pycrdt raises many kinds for invalid bytes
        return b""


def changes(message: bytes) -> bool:
    """Return whether a message changes the document or asks for it to be saved."""
    if not message:
        return False
    if message[0] == MessageType.RAW:
        return True
    return message[0] == MessageType.SYNC and message[1:2] != bytes([YSyncMessageType.SYNC_STEP1])
