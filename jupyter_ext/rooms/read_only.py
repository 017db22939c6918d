r"""Refuses the edits of a person who may only read a document, and says so.

JupyterLab has no read-only editors for shared documents (jupyterlab#18369), so a reader can type,
and sees the text. The server drops it. It closes the room with the one code for which JupyterLab
shows a dialog, and that dialog says that nothing was saved. Reloading shows the document as it is.

JupyterLab also writes on its own when a document is opened: its id, its state, the trust of cells.
That is dropped silently; only a change of text counts (`ReadOnlyClient.changes`).

    client = ReadOnlyClient("text:file:1")
    client.changes(room.ydoc, update)  # True: the text would change
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from pycrdt import Array, Decoder, Doc, Text

from angelos.angelgit.documents.crdt import guarded
from angelos.core.errors import InvalidInput

CLOSED = 1003
"""The close code for which JupyterLab shows a dialog with our text."""
PAUSE_S, MOST_S = 1.0, 4.0
"""The dialog waits for a pause in typing, at most this long: a key would dismiss it."""
_MAX_PAGES = 1_000
_READ_ONLY = "You may only read here. What you typed was not saved."
_NOT_KEPT = "Your last edit cannot be kept. Reload to continue."


def goodbye(text: str) -> str:
    """Return the reason of a close frame: JupyterLab's dialog shows `text` and offers to reload.

    A close frame holds 123 bytes (RFC 6455, section 5.5.1), so `text` may have 57.
    """
    reason = {"reason": "initialization_error", "reloadable": True, "errorReason": text}
    return json.dumps(reason, separators=(",", ":"))


READ_ONLY, NOT_KEPT = goodbye(_READ_ONLY), goodbye(_NOT_KEPT)


class ReadOnlyClient:
    """One connection of a person who may not edit.

    Args:
        room_id: `format:type:file_id`.
    """

    def __init__(self, room_id: str) -> None:
        self._notebook = ":notebook:" in room_id
        self._doc: Doc[Any] = Doc()
        """What this person sees: the document with their own edits."""

    def changes(self, document: Doc[Any], update: bytes) -> bool:
        """Return whether an update changes the text of the document; True for invalid bytes."""
        try:
            with guarded("the document"):
                self._doc.apply_update(document.get_update(self._doc.get_state()))
                before = self._text()
                self._doc.apply_update(update)
                return self._text() != before
        except InvalidInput:
            return True

    def pages(self, document: Doc[Any]) -> set[int]:
        """Return the CRDT client ids of this person's edits: one for each loading of the page."""
        return _clients(self._doc.get_state()) - _clients(document.get_state())

    def _text(self) -> object:
        if not self._notebook:
            return str(self._doc.get("source", type=Text))
        cells = self._doc.get("cells", type=Array).to_py() or []
        return [
            (cell.get("cell_type"), cell["source"])
            for cell in cells
            if isinstance(cell, dict) and cell.get("source")
        ]


class PageNotices:
    """The pages that have shown the dialog: a page reconnects while its dialog is still open."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, int], None] = OrderedDict()

    def first(self, room_id: str, pages: set[int]) -> bool:
        """Remember pages by their CRDT client ids; return False if all have shown the dialog."""
        new = [(room_id, page) for page in pages if (room_id, page) not in self._pages]
        self._pages.update(dict.fromkeys(new))
        while len(self._pages) > _MAX_PAGES:
            self._pages.popitem(last=False)
        return bool(new) or not pages


def _clients(state: bytes) -> set[int]:
    decoder = Decoder(state)
    clients = set()
    for _ in range(decoder.read_var_uint()):
        clients.add(decoder.read_var_uint())
        decoder.read_var_uint()  # its clock
    return clients
