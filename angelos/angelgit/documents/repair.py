"""Sets right what an editor or an extension puts into a shared notebook.

Two people who move one cell make two with one id; extensions leave out outputs, metadata or the id,
or invent a type. A document that a room has accepted can always be read (`notebook.read` sees
the same), and every cell of it opened. Fields that are not known stay as they are.

    with doc.transaction():
        repair(doc)
"""

from __future__ import annotations

from typing import Any

from pycrdt import Array, Doc, Map, Text

from angelos.angelgit.documents import notebook
from angelos.angelgit.documents.carry import Remains, remains_at


def repair(doc: Doc[Any]) -> list[Remains]:
    """Edit a notebook so that each cell has all of its parts and an id of its own.

    Returns:
        The cells that are deleted, because another one has their id and their text.
    """
    cells = doc.get("cells", type=Array)
    raw = notebook.plain_cells(doc)
    sound = notebook.sound_cells(raw)
    deleted: list[Remains] = []
    for index in reversed(range(len(raw))):
        cell, shared = sound[index], cells[index]
        if cell is None:
            if isinstance(shared, Map):
                deleted += filter(None, [remains_at(cells, index)])
                del cells[index]
        elif isinstance(shared, Map):
            _repair_cell(shared, cell)
    return deleted


def _repair_cell(shared: Map[Any], sound: notebook.Json) -> None:
    for key in ("id", "cell_type", "execution_count"):
        if key in sound and (key not in shared or shared[key] != sound[key]):
            shared[key] = sound[key]
    if not isinstance(shared.get("source"), Text):
        shared["source"] = Text(sound["source"])
    metadata = shared.get("metadata")
    if not isinstance(metadata, Map):
        shared["metadata"] = Map(sound["metadata"])
    elif "angelos" in sound["metadata"] and "angelos" not in metadata:
        metadata["angelos"] = sound["metadata"]["angelos"]
    if sound["cell_type"] == "code" and not isinstance(shared.get("outputs"), Array):
        shared["outputs"] = Array(notebook.new_outputs(sound["outputs"]))
