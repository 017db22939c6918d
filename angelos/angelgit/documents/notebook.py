"""Notebooks: from JSON to the CRDT layout of jupyter_ydoc's YNotebook, and back.

The canonical text is byte for byte what Jupyter's own contents manager writes (nbformat 4.5,
sorted keys, indent 1, sources split into lines, `trusted` left out), so that a room and AngelGit
write the same file. Cells are matched by id; a cell that stays keeps its CRDT identity, and only
its changed parts are edited.

    meta: {nbformat, nbformat_minor, metadata: {...}}
    cells: [{id, cell_type, source: Text, metadata: Map, outputs: Array, execution_count, ...}]
"""

from __future__ import annotations

import bisect
import copy
import hashlib
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any, NoReturn, cast

from pycrdt import Array, Doc, Map, Text

from angelos.angelgit.documents.edits import TextEdit, line_hunks, text_edits
from angelos.core.errors import InvalidInput

Json = dict[str, Any]
_INT64 = 2**63
_COMPARED = 2_000
"""How many characters of two sources are compared, ..."""
_LIKENESS = 0.6
"""... and how much of them is common to two versions of one cell."""
_SHARED = {"source", "metadata", "outputs", "execution_state"}
CELL_TYPES = ("code", "markdown", "raw")
_CELL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_COMMON = ("id", "cell_type", "metadata", "source")
_FIELDS = {
    "code": (*_COMMON, "outputs", "execution_count"),
    "markdown": (*_COMMON, "attachments"),
    "raw": (*_COMMON, "attachments"),
}
"""What nbformat 4.5 knows of each type of cell."""


def parse(text: str, path: str, like: Json | None = None) -> Json:
    """Return a valid notebook (format 4.5, every cell with an id) from its JSON text.

    Args:
        text: the JSON.
        path: the file's path, for messages.
        like: an earlier version. A cell without an id (format 4.4 and older) gets the id of the
            equal cell there, otherwise one that is derived from its source.

    Raises:
        InvalidInput: it is not a notebook; the text names the place.
    """
    import nbformat

    try:
        nb = json.loads(
            text, parse_constant=_reject_constant, parse_int=_int64, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path} is not a notebook: {error}", hint="Send the full notebook as JSON."
        ) from error
    if not isinstance(nb, dict) or not isinstance(nb.get("cells"), list):
        raise InvalidInput(f"{path} is not a notebook: it has no list of cells.")
    if nb.get("nbformat") != 4 or not isinstance(nb.get("nbformat_minor"), int):  # noqa: PLR2004
        raise InvalidInput(
            f"{path} is a notebook of format {nb.get('nbformat')!r}; 4 is needed.",
            hint="Convert it with `jupyter nbconvert --to notebook --nbformat 4`.",
        )
    nb["nbformat_minor"] = max(nb["nbformat_minor"], 5)
    nb.setdefault("metadata", {})
    for cell in nb["cells"]:
        if not isinstance(cell, dict):
            raise InvalidInput(f"{path} is not a notebook: a cell is not an object.")
        _join_lines(cell)
    _give_ids(nb, like or {"cells": [], "metadata": {}})
    ids = [cell["id"] for cell in nb["cells"]]
    if len(set(ids)) != len(ids):
        duplicate = next(i for i in ids if ids.count(i) > 1)
        raise InvalidInput(f"{path} has two cells with the id {duplicate!r}.")
    try:
        nbformat.validate(_without_unknown(nb))
    except nbformat.ValidationError as error:
        raise InvalidInput(f"{path} is not a valid notebook: {error}") from error
    for cell in nb["cells"]:
        _tidy(cell)
    return nb


def load(text: str, path: str) -> Json:
    """Return the notebook of a canonical text, which AngelGit wrote itself.

    It is not validated: what a room has accepted may hold outputs that no kernel sends.

    Raises:
        InvalidInput: it is not JSON, or two cells have one id.
    """
    try:
        nb = json.loads(text)
        ids = [cell["id"] for cell in nb["cells"]]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is not a notebook: {error!r}") from error
    if len(set(ids)) != len(ids):
        raise InvalidInput(f"{path} has two cells with one id.")
    for cell in nb["cells"]:
        _join_lines(cell)
    return nb


def dump(nb: Json) -> str:
    """Return the canonical text of a notebook."""
    import nbformat
    from nbformat.v4.nbjson import JSONWriter

    text = JSONWriter().writes(nbformat.from_dict(nb))
    return text if text.endswith("\n") else text + "\n"


def read(doc: Doc[Any]) -> Json:
    """Return the notebook in a document, without the keys that exist only in live documents."""
    meta = _integral(doc.get("meta", type=Map).to_py() or {})
    # A client may put any value into the array; a value that is no cell is left out of the file.
    cells = [cell for cell in sound_cells(plain_cells(doc)) if cell is not None]
    for cell in cells:
        cell.pop("execution_state", None)
        _tidy(cell)
    metadata, minor = meta.get("metadata"), meta.get("nbformat_minor")
    return {
        "cells": cells,
        "metadata": metadata if isinstance(metadata, dict) else {},
        "nbformat": 4,
        "nbformat_minor": max(minor, 5) if type(minor) is int else 5,
    }


def plain_cells(doc: Doc[Any]) -> list[Any]:
    """Return the values in the array of cells as plain data, as a client put them there."""
    return _integral(doc.get("cells", type=Array).to_py() or [])


def sound_cells(raw: Sequence[Any]) -> list[Json | None]:
    """Return cells with all of their parts, each with an id of its own; None for what is none.

    Of two cells with one id the second is left out if it has the same text, which is what two
    people make who move a cell; otherwise it gets another id.
    """
    sound: list[Json | None] = []
    sources: dict[str, str] = {}
    for index, value in enumerate(raw):
        if not isinstance(value, dict):
            sound.append(None)
            continue
        cell = _sound_cell(value)
        cell_id = cell.get("id")
        if not isinstance(cell_id, str) or not _CELL_ID.fullmatch(cell_id):
            cell["id"] = _derived_id(f"{index}\0{cell['source']}", sources)
        elif cell_id in sources:
            if sources[cell_id] == cell["source"]:
                sound.append(None)
                continue
            cell["id"] = _derived_id(f"{cell_id}\0{cell['source']}", sources)
        sources[cell["id"]] = cell["source"]
        sound.append(cell)
    return sound


def _sound_cell(value: Json) -> Json:
    cell = dict(value)
    source = cell.get("source", "")
    cell["source"] = source if isinstance(source, str) else _as_text(source)
    metadata = cell.get("metadata")
    cell["metadata"] = metadata if isinstance(metadata, dict) else {}
    kind = cell.get("cell_type")
    if kind not in CELL_TYPES:
        cell["cell_type"] = "raw"
        cell["metadata"] = {**cell["metadata"], "angelos": {"cell_type": _as_text(kind)}}
    if cell["cell_type"] == "code":
        outputs = cell.get("outputs")
        cell["outputs"] = outputs if isinstance(outputs, list) else []
        cell.setdefault("execution_count", None)
    return cell


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    if _is_lines(value):
        return "".join(cast("list[str]", value))
    return "" if value is None else json.dumps(value, default=str, ensure_ascii=False)


def _derived_id(salt: str, used: Collection[str]) -> str:
    """Return an id that is derived and not random: the same notebook must have one text."""
    number = 0
    while True:
        derived = hashlib.sha256(f"{number}\0{salt}".encode("utf-8", "replace")).hexdigest()[:8]
        if derived not in used:
            return derived
        number += 1


def _without_unknown(nb: Json) -> Json:
    """Return a notebook without the fields of cells that nbformat does not know."""
    cells = []
    for cell in nb["cells"]:
        known = _FIELDS.get(cell.get("cell_type"), ())
        cells.append({key: cell[key] for key in cell if key in known or not known})
    return {**nb, "cells": cells}


def write(doc: Doc[Any], new: Json) -> None:
    """Edit a document so that it holds `new`; the caller opens the pycrdt transaction.

    A cell in both keeps its CRDT identity. A cell that moved relative to the others is deleted and
    inserted as a new one, because yjs 13 has no move operation.
    """
    _write_meta(doc, new)
    cells = doc.get("cells", type=Array)
    old_ids = [cast("str", c.get("id")) if isinstance(c, Map) else "" for c in cells]
    new_ids = [cell["id"] for cell in new["cells"]]
    moved = moved_cells(old_ids, new_ids)
    retained = set(new_ids) - moved
    # Two clients may have inserted a cell with one id: only the first is kept.
    first = {cell: index for index, cell in reversed(list(enumerate(old_ids)))}
    in_place: set[str] = set()
    for index in reversed(range(len(old_ids))):
        if old_ids[index] not in retained or first[old_ids[index]] != index:
            del cells[index]
        else:
            in_place.add(old_ids[index])
    for index, cell in enumerate(new["cells"]):
        if cell["id"] not in in_place:
            cells.insert(index, new_cell(cell))
        elif not _edit_cell(cast("Map[Any]", cells[index]), cell):
            del cells[index]
            cells.insert(index, new_cell(cell))


def moved_cells(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Return the smallest set of ids that changed their position relative to the others.

    >>> moved_cells(["a", "b", "c"], ["c", "a", "new", "b"])
    {'c'}
    """
    position = {cell: i for i, cell in reversed(list(enumerate(before)))}
    common = [cell for cell in after if cell in position]
    # The cells that stay are a longest increasing subsequence of the old positions. Patience
    # sorting finds its length in O(n log n); the walk back over the piles finds its members.
    tails: list[int] = []
    piles: list[int] = []
    for cell in common:
        pile = bisect.bisect_left(tails, position[cell])
        tails[pile : pile + 1] = [position[cell]]
        piles.append(pile)
    stay: set[str] = set()
    next_pile = len(tails) - 1
    for cell, pile in zip(reversed(common), reversed(piles), strict=True):
        if pile == next_pile:
            stay.add(cell)
            next_pile -= 1
    return set(common) - stay


def json_equal(a: object, b: object) -> bool:
    """Return whether two values are the same JSON; in Python `True == 1`, in JSON they differ.

    >>> json_equal({"a": [1]}, {"a": [True]}), json_equal([], [])
    (False, True)
    """
    if type(a) is not type(b):
        return False
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(json_equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(json_equal, a, b))
    return a == b


def _write_meta(doc: Doc[Any], new: Json) -> None:
    meta = doc.get("meta", type=Map)
    for key in ("nbformat", "nbformat_minor"):
        if not json_equal(_integral(meta.get(key)), new[key]):
            meta[key] = new[key]
    metadata = meta.get("metadata")
    if isinstance(metadata, Map):
        _update(metadata, new["metadata"])
    else:
        meta["metadata"] = Map(copy.deepcopy(new["metadata"]))


def new_cell(cell: Json) -> Map[Any]:
    """Return a cell as it is put into a document."""
    shared: Json = {k: copy.deepcopy(v) for k, v in cell.items() if k not in _SHARED}
    shared["source"] = Text(cell["source"])
    shared["metadata"] = Map(copy.deepcopy(cell.get("metadata", {})))
    if cell["cell_type"] == "code":
        shared["outputs"] = Array(new_outputs(cell.get("outputs", [])))
        shared["execution_state"] = "idle"
    return Map(shared)


def new_outputs(outputs: list[Json]) -> list[Map[Any]]:
    """Return outputs as they are put into a document."""
    shared = []
    for output in copy.deepcopy(outputs):
        if not isinstance(output, dict):
            continue
        if output.get("output_type") == "stream":
            output["text"] = Text(output.get("text", ""))
        shared.append(Map(output))
    return shared


def _edit_cell(ycell: Map[Any], new: Json) -> bool:
    """Edit a cell in place; return False if its types do not allow that."""
    old = _integral(ycell.to_py() or {})
    source, metadata = ycell.get("source"), ycell.get("metadata")
    if old.get("cell_type") != new["cell_type"] or not isinstance(source, Text):
        return False
    if not isinstance(metadata, Map):
        return False
    apply_edits(source, old["source"], new["source"])
    _update(metadata, new.get("metadata", {}), keep=("trusted",))
    if new["cell_type"] == "code" and not json_equal(
        old.get("outputs", []), new.get("outputs", [])
    ):
        outputs = ycell.get("outputs")
        if not isinstance(outputs, Array):
            return False
        outputs.clear()
        outputs.extend(new_outputs(new.get("outputs", [])))
    for key in ({*old, *new}) - _SHARED:
        if key not in new:
            del ycell[key]
        elif key not in old or not json_equal(old[key], new[key]):
            ycell[key] = copy.deepcopy(new[key])
    return True


def apply_edits(text: Text, before: str, after: str) -> None:
    """Edit a shared text from `before` to `after` with the fewest edits."""
    edits = list(reversed(text_edits(before, after)))
    # pycrdt looks for each place from the front, through all items there, and copies what is
    # behind it in its item. So some edits that lie far apart are made first, which leaves items
    # of moderate length; then those between them, the last ones first (20,000 edits of 1 MB take
    # 0.2 s, from front to back 2 s, and from back to front 30 s).
    step = max(1, math.isqrt(len(edits)))
    shifts = [0]
    for edit in edits[::step]:
        shifts.append(shifts[-1] + _apply_edit(text, edit, shifts[-1]))
    for group in range(len(shifts) - 2, -1, -1):
        shift = shifts[group + 1]
        for edit in edits[group * step + 1 : (group + 1) * step]:
            shift += _apply_edit(text, edit, shift)


def _apply_edit(text: Text, edit: TextEdit, shift: int) -> int:
    """Make an edit whose place has moved by `shift`; return by how much it moves what follows."""
    # Insert behind the deleted range. In front of it the new text could share its position
    # (YATA's left origin) with a line that somebody else inserts before the range, and the
    # order of the two would depend on client ids.
    at = edit.at + shift
    if edit.insert:
        text.insert(at + edit.delete, edit.insert)
    if edit.delete:
        del text[at : at + edit.delete]
    return len(edit.insert.encode()) - edit.delete


def _update(shared: Map[Any], new: Json, keep: tuple[str, ...] = ()) -> None:
    old = _integral(shared.to_py() or {})
    for key in old.keys() - new.keys():
        if key not in keep:
            del shared[key]
    for key, value in new.items():
        if key not in old or not json_equal(old[key], value):
            shared[key] = copy.deepcopy(value)


def _integral(value: Any) -> Any:
    """Return a value with integral floats as ints: a CRDT has only JavaScript's numbers."""
    if type(value) is float:
        if not math.isfinite(value):
            return None  # JSON has no such number
        return int(value) if value.is_integer() and abs(value) < 2**53 else value
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, list):
        return [_integral(v) for v in value]
    if isinstance(value, dict):
        return {k: _integral(v) for k, v in value.items()}
    return value


def _tidy(cell: Json) -> None:
    cell.get("metadata", {}).pop("trusted", None)
    if cell.get("cell_type") != "code" and not cell.get("attachments", True):
        del cell["attachments"]


def _join_lines(cell: Json) -> None:
    """Join sources and outputs that the file holds as lists of lines."""
    for holder, key in [(cell, "source"), *((o, "text") for o in _dicts(cell.get("outputs")))]:
        if _is_lines(holder.get(key)):
            holder[key] = "".join(holder[key])
    bundles = [o.get("data") for o in _dicts(cell.get("outputs"))]
    attachments = cell.get("attachments")
    bundles += list(attachments.values()) if isinstance(attachments, dict) else []
    for bundle in _dicts(bundles):
        for mime, value in bundle.items():
            if not _is_json(mime) and _is_lines(value):
                bundle[mime] = "".join(value)


def _is_json(mime: str) -> bool:
    return mime == "application/json" or (
        mime.startswith("application/") and mime.endswith("+json")
    )


def _is_lines(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _dicts(value: object) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _give_ids(book: Json, like: Json) -> None:
    """Give an id to each cell that has none: that of the cell in `like` which it stands for.

    Many tools write notebooks without ids, outputs and metadata. They edit sources, so a cell that
    gets the id of an earlier one gets what it does not have of that one, too.
    """
    cells: list[Json] = book["cells"]
    used = {cell["id"] for cell in cells if isinstance(cell.get("id"), str)}
    if not used and isinstance(book["metadata"], dict):
        book["metadata"] = {**like["metadata"], **book["metadata"]}
    bare = {i for i, cell in enumerate(cells) if not isinstance(cell.get("id"), str)}
    for index, earlier in _counterparts(
        cells, bare, [c for c in like["cells"] if c["id"] not in used]
    ):
        cells[index]["id"] = earlier["id"]
        used.add(earlier["id"])
        _carry_over(cells[index], earlier)
    for index in sorted(bare):
        cell = cells[index]
        salt = 0
        # Derived, not random: the same text must have one canonical text.
        while not isinstance(cell.get("id"), str):
            source = cell.get("source")
            derived = hashlib.sha256(f"{index}.{salt}\0{source}".encode()).hexdigest()[:8]
            if derived not in used:
                cell["id"] = derived
                used.add(derived)
            salt += 1


def _counterparts(
    cells: list[Json], bare: set[int], like: list[Json]
) -> Iterator[tuple[int, Json]]:
    """Yield the places of cells without an id, each with the earlier cell that it stands for.

    Cells with equal sources are pairs, in order. Between two pairs a cell whose source changed
    is the earlier one in its place, if as many lie between, else one that is like it.
    """
    texts = [[_cell_line(cell) for cell in side] for side in (like, cells)]
    gaps: list[tuple[int, int, int, int]] = []
    old = new = 0
    for hunk in line_hunks(*("".join(side) for side in texts)):
        for offset in range(hunk.start - old):
            if new + offset in bare:
                yield new + offset, like[old + offset]
        gaps.append((hunk.start, hunk.end, hunk.new_start, hunk.new_end))
        old, new = hunk.end, hunk.new_end
    for offset in range(min(len(like) - old, len(cells) - new)):
        if new + offset in bare:
            yield new + offset, like[old + offset]
    for start, end, new_start, new_end in gaps:
        indices = [index for index in range(new_start, new_end) if index in bare]
        yield from _changed_counterparts(cells, indices, like[start:end])


def _changed_counterparts(
    cells: list[Json], indices: list[int], earlier: list[Json]
) -> Iterator[tuple[int, Json]]:
    """Yield pairs of cells whose sources differ: in their places, or else those that are alike."""
    in_place = len(indices) == len(earlier)
    for old in earlier:
        for index in indices:
            same_type = old["cell_type"] == cells[index].get("cell_type")
            if same_type and (in_place or _alike(old, cells[index])):
                yield index, old
                indices = [other for other in indices if other > index]
                break
            if in_place:
                indices = indices[1:]
                break


def _alike(earlier: Json, cell: Json) -> bool:
    sources = [str(side.get("source", ""))[:_COMPARED] for side in (earlier, cell)]
    return SequenceMatcher(None, *sources, autojunk=False).quick_ratio() > _LIKENESS


def _cell_line(cell: Json) -> str:
    row = f"{cell.get('cell_type')}\0{cell.get('source')}"
    return hashlib.sha256(row.encode(errors="replace")).hexdigest() + "\n"


def _carry_over(cell: Json, earlier: Json) -> None:
    """Put into a cell what an edit of its source does not mean to remove."""
    for key in ("metadata", "attachments"):
        if not cell.get(key) and earlier.get(key):
            cell[key] = copy.deepcopy(earlier[key])
    if cell.get("cell_type") == "code" and not cell.get("outputs"):
        cell["outputs"] = copy.deepcopy(earlier.get("outputs", []))
        if cell.get("execution_count") is None:
            cell["execution_count"] = earlier.get("execution_count")


def _reject_constant(constant: str) -> NoReturn:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _finite(digits: str) -> float:
    """Return a number as a document keeps it: `1.0` becomes `1`, as when Jupyter saves a room."""
    value = float(digits)
    if not math.isfinite(value):
        msg = f"the number {digits[:40]} is too large"
        raise ValueError(msg)
    return _integral(value)


def _int64(digits: str) -> int:
    value = int(digits)
    if not -_INT64 <= value < _INT64:
        msg = f"the number {digits[:40]} does not fit into 64 bits"
        raise ValueError(msg)
    return value
