"""Text that was typed into a cell which another change had deleted, carried to where it is seen.

JupyterLab moves a cell, and changes its type, by deleting it and inserting another one with its id.
A page that has not seen that types into the deleted one: the edit is valid, and a CRDT drops its
text. What a deleted cell held is kept as `Remains`, with the id of each character, so that later
edits can be placed in it. What they change is merged into the live cell with its id by the line
merge, or, if there is none or the lines conflict, kept as a cell of its own, with its author.

    remains = remains_of(doc, update)        # before the update that deletes cells is applied
    carry(doc, remains, lost, update.deleted, writer, merged_text)
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pycrdt import Array, Doc, Map, Text

from angelos.angelgit.documents import notebook, yjs
from angelos.angelgit.documents.yjs import DeletedRange, Id, Struct, Update

MergeText = Callable[[str, str, str], str | None]
"""Returns the merge of (base, current, proposed), None if they conflict."""
LEFTOVER = "leftover"
"""Key of `metadata.angelos` of a cell that holds what could not be merged."""


class Character(msgspec.Struct):
    """One character of a deleted cell."""

    client: int
    clock: int
    text: str
    removed: bool = False

    def has(self, id_: Id) -> bool:
        """Return whether an id names this character; those outside of the BMP have two."""
        return self.client == id_[0] and 0 <= id_[1] - self.clock < yjs.units(self.text)


class Remains(msgspec.Struct, kw_only=True):
    """What a deleted cell held."""

    item: Id
    """Of the cell itself."""
    cell: str
    kind: str
    index: int
    """Where it was in the notebook."""
    units: list[Character]
    target: str
    """Id of the cell that gets what is typed here."""

    @property
    def text(self) -> str:
        """The text as a page that types into it shows it."""
        return "".join(unit.text for unit in self.units if not unit.removed)

    def insert(self, struct: Struct) -> bool:
        """Insert what a page typed; return False if it was not typed here."""
        if struct.origin is not None:
            place = self._find(struct.origin)
            place = None if place is None else place + 1
        else:
            place = None if struct.right is None else self._find(struct.right)
        if place is None:
            return False
        self.units[place:place] = _units_of(struct)
        return True

    def deleted_from(self, ranges: Sequence[DeletedRange]) -> bool:
        """Return whether a page that does not know that the cell is deleted deletes from it."""
        return not any(_covers(deleted, self.item) for deleted in ranges) and any(
            _covers(deleted, (unit.client, unit.clock))
            for deleted in ranges
            for unit in self.units
            if not unit.removed
        )

    def remove(self, ranges: Sequence[DeletedRange]) -> None:
        """Remove what a page deleted, unless it knows that the cell is deleted."""
        if any(_covers(deleted, self.item) for deleted in ranges):
            return
        for unit in self.units:
            if not unit.removed:
                place = (unit.client, unit.clock)
                unit.removed = any(_covers(deleted, place) for deleted in ranges)

    def _find(self, id_: Id) -> int | None:
        return next((at for at, unit in enumerate(self.units) if unit.has(id_)), None)


def remains_of(doc: Doc[Any], update: Update) -> list[Remains]:
    """Return the cells that an update, which is not applied yet, deletes."""
    if not update.deleted:
        return []
    cells = doc.get("cells", type=Array)
    remains: list[Remains] = []
    for index in range(len(cells)):
        item = _item(cells, index)
        if any(_covers(deleted, item) for deleted in update.deleted):
            remains += filter(None, [remains_at(cells, index)])
    return remains


def remains_at(cells: Array[Any], index: int) -> Remains | None:
    """Return what the cell at an index will leave behind; None if it has no text or no id."""
    cell = cells[index]
    source, cell_id = (
        (cell.get("source"), cell.get("id")) if isinstance(cell, Map) else (None, None)
    )
    if not isinstance(source, Text) or not isinstance(cell_id, str):
        return None
    return Remains(
        item=_item(cells, index),
        cell=cell_id,
        kind=str(cell.get("cell_type")),
        index=index,
        units=_units(source),
        target=cell_id,
    )


def lost_structs(update: Update, event: Update) -> list[Struct]:
    """Return what an update types of which nothing is visible, given what its document emitted."""
    gone = [deleted for deleted in event.deleted if deleted not in update.deleted]
    if not gone:
        return []
    return [
        struct
        for struct in update.structs
        if struct.text
        and any(_covers(deleted, (struct.client, struct.clock)) for deleted in gone)
        and not any(_covers(deleted, (struct.client, struct.clock)) for deleted in update.deleted)
    ]


def carry(
    doc: Doc[Any],
    remains: list[Remains],
    lost: Sequence[Struct],
    deleted: Sequence[DeletedRange],
    writer: str,
    merge: MergeText,
) -> list[Remains]:
    """Bring what was typed into deleted cells to cells that are seen; return what changed.

    Args:
        doc: the document; the caller opens the transaction.
        remains: those of its deleted cells; one may be added.
        lost: what was typed.
        deleted: what the same update deletes.
        writer: who typed it; noted in a cell that is made for it.
        merge: the line merge.
    """
    before = {id(one): one.text for one in remains}
    waiting = _insert(remains, lost)
    for one in remains:
        one.remove(deleted)
    if waiting:  # of its cell nothing is known any more
        units = [unit for struct in waiting for unit in _units_of(struct)]
        item = (units[0].client, units[0].clock)
        stray = Remains(item=item, cell="", kind="raw", index=1 << 30, units=units, target="")
        remains.append(stray)
        before[id(stray)] = ""
    changed = [one for one in remains if one.text != before[id(one)]]
    for one in changed:
        _bring(doc, one, before[id(one)], writer, merge)
    return changed


def _insert(remains: Sequence[Remains], lost: Sequence[Struct]) -> list[Struct]:
    """Insert what was typed into the cells in which it was, and return what was in none."""
    waiting = list(lost)
    while True:
        placed = [s for s in waiting if any(one.insert(s) for one in reversed(remains))]
        waiting = [struct for struct in waiting if struct not in placed]
        if not placed or not waiting:
            return waiting


def _bring(doc: Doc[Any], remains: Remains, before: str, writer: str, merge: MergeText) -> None:
    cells = doc.get("cells", type=Array)
    target = next(
        (cell for cell in cells if isinstance(cell, Map) and cell.get("id") == remains.target),
        None,
    )
    source = target.get("source") if target is not None and remains.target else None
    if isinstance(source, Text):
        live = str(source)
        merged = merge(before, live, remains.text)
        if merged is not None:
            notebook.apply_edits(source, live, merged)
            return
    remains.target = uuid.uuid4().hex[:8]
    kind = remains.kind if remains.kind in notebook.CELL_TYPES else "raw"
    note = {LEFTOVER: {"of": remains.cell, "author": writer}}
    cell = {
        "id": remains.target,
        "cell_type": kind,
        "source": remains.text,
        "metadata": {"angelos": note},
    }
    if kind == "code":
        cell |= {"outputs": [], "execution_count": None}
    cells.insert(min(remains.index, len(cells)), notebook.new_cell(cell))


def _units(source: Text) -> list[Character]:
    units: list[Character] = []
    at = 0
    for character in str(source):
        client, clock = _item(source, at)
        units.append(Character(client, clock, character))
        at += len(character.encode())
    return units


def _units_of(struct: Struct) -> list[Character]:
    units: list[Character] = []
    clock = struct.clock
    for character in struct.text or "":
        units.append(Character(struct.client, clock, character))
        clock += yjs.units(character)
    return units


def _item(sequence: Array | Text, index: int) -> Id:
    item = sequence.sticky_index(index).to_json()["item"]
    return item["client"], item["clock"]


def _covers(deleted: DeletedRange, id_: Id) -> bool:
    return deleted.client == id_[0] and 0 <= id_[1] - deleted.clock < deleted.length
