"""What a message of a room's WebSocket is: the y-protocol's, and Jupyter's requests to save.

    sync        0, step (0 what do you have, 1 what you lack, 2 an update), bytes
    awareness   1, bytes
    raw         2, text; Jupyter's own: "save" and a number

Anything else Jupyter ignores.
"""

from __future__ import annotations

from jupyter_server_ydoc.utils import MessageType
from pycrdt import Decoder, YMessageType, YSyncMessageType, read_message

NO_MESSAGE = 1007
"""Close code for bytes that are no message of the protocol (RFC 6455, section 7.4.1)."""


def is_message(message: bytes) -> bool:
    """Tell whether bytes have the form of a message; what an update holds is pycrdt's to say.

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
    except Exception:  # noqa: BLE001 - bytes of a stranger's, in pycrdt's words
        return False
    return True


def save_request(message: bytes) -> int | None:
    """Return the number of a request to save; None if the message is none."""
    decoder = Decoder(message)
    decoder.read_var_uint()
    return decoder.read_var_uint() if decoder.read_var_string() == "save" else None


def message_body(message: bytes) -> bytes:
    """Return the update in a sync message; empty if there is none."""
    try:
        return read_message(message[2:])
    except Exception:  # noqa: BLE001 - bytes of a stranger's, in pycrdt's words
        return b""


def changes(message: bytes) -> bool:
    """Tell whether a message carries changes of the document or asks for it to be written."""
    if not message:
        return False
    if message[0] == MessageType.RAW:
        return True
    return message[0] == MessageType.SYNC and message[1:2] != bytes([YSyncMessageType.SYNC_STEP1])
