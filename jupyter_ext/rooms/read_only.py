r"""What a person types who may read a document and not change it: not taken, and said so.

JupyterLab has no read-only editors for shared documents (jupyterlab#18369), so a reader can type,
and sees the text. The server takes nothing of it. It closes the room with the one code for which
JupyterLab shows a dialog, and that dialog says that nothing was saved. Reloading shows the
document as it is.

JupyterLab also writes by itself, when a document is opened: its id, its state, the trust of cells.
That is dropped in silence; only words count (`Reader.changes`).

    reader = Reader("text:file:1")
    reader.changes(room.ydoc, update)  # True: the text would be another one
"""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

from pycrdt import Array, Decoder, Doc, Text

from angelos.angelgit.documents.crdt import guarded
from angelos.core.errors import InvalidInput

CLOSED = 1003
"""The close code for which JupyterLab shows a dialog with our words."""
PAUSE_S, MOST_S = 1.0, 4.0
"""The dialog waits for a pause, at most so long: keys that are typed on would answer it."""
_MAX_TOLD = 1_000
_READ_ONLY = "You may only read here. What you typed was not saved."
_NOT_KEPT = "Your last edit cannot be kept. Reload to go on."


def goodbye(words: str) -> str:
    """Return the reason of a close frame: JupyterLab's dialog shows `words` and offers to reload.

    A close frame holds 123 bytes (RFC 6455, section 5.5.1), so `words` may have 57.
    """
    said = {"reason": "initialization_error", "reloadable": True, "errorReason": words}
    return json.dumps(said, separators=(",", ":"))


READ_ONLY, NOT_KEPT = goodbye(_READ_ONLY), goodbye(_NOT_KEPT)


class Reader:
    """One connection of somebody who may not edit."""

    def __init__(self, room_id: str) -> None:
        """Take the room's id (`format:type:file_id`)."""
        self._notebook = ":notebook:" in room_id
        self._doc: Doc[Any] = Doc()
        """What they see: the document, and what they sent."""

    def changes(self, document: Doc[Any], update: bytes) -> bool:
        """Tell whether an update of theirs changes words of the document.

        True for bytes that are no update.
        """
        try:
            with guarded("the document"):
                self._doc.apply_update(document.get_update(self._doc.get_state()))
                before = self._words()
                self._doc.apply_update(update)
                return self._words() != before
        except InvalidInput:
            return True

    def pages(self, document: Doc[Any]) -> set[int]:
        """Return the CRDT client ids of what they sent: of their page, until it is loaded anew."""
        return _clients(self._doc.get_state()) - _clients(document.get_state())

    def _words(self) -> object:
        if not self._notebook:
            return str(self._doc.get("source", type=Text))
        cells = self._doc.get("cells", type=Array).to_py() or []
        return [
            (cell.get("cell_type"), cell["source"])
            for cell in cells
            if isinstance(cell, dict) and cell.get("source")
        ]


class Told:
    """Who was told already: a page tries to connect again while its dialog is still open."""

    def __init__(self) -> None:
        self._pages: OrderedDict[tuple[str, int], None] = OrderedDict()

    def first(self, room_id: str, pages: set[int]) -> bool:
        """Note pages by their CRDT client ids; False if all of them are known."""
        new = [(room_id, page) for page in pages if (room_id, page) not in self._pages]
        self._pages.update(dict.fromkeys(new))
        while len(self._pages) > _MAX_TOLD:
            self._pages.popitem(last=False)
        return bool(new) or not pages


def _clients(state: bytes) -> set[int]:
    decoder = Decoder(state)
    found = set()
    for _ in range(decoder.read_var_uint()):
        found.add(decoder.read_var_uint())
        decoder.read_var_uint()
    return found
