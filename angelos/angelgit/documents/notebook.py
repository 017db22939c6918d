"""Notebooks: JSON in, the CRDT layout of jupyter_ydoc's YNotebook out, and back.

The canonical text is byte for byte what Jupyter's own contents manager writes (nbformat 4.5,
sorted keys, indent 1, sources split into lines, `trusted` left out), so that a notebook saved by
a room and one materialised by AngelGit are the same file. Cells are matched by id; a retained
cell keeps its CRDT identity and only what changed in it is edited.

    meta: {nbformat, nbformat_minor, metadata: {...}}
    cells: [{id, cell_type, source: Text, metadata: Map, outputs: Array, execution_count, ...}]
"""

from __future__ import annotations

import bisect
import copy
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, cast

from pycrdt import Array, Doc, Map, Text

from angelos.angelgit.documents.edits import text_edits
from angelos.core.errors import InvalidInput

Json = dict[str, Any]
_INT64 = 2**63
_SHARED = {"source", "metadata", "outputs", "execution_state"}


def parse(text: str, path: str, like: Json | None = None) -> Json:
    """Return a valid notebook (4.5, every cell with an id) from its JSON text.

    Cells without ids (format 4.4 and older) get those of the equal cells of `like`, else made-up
    ones. Raises `InvalidInput` with the place that is wrong.
    """
    import nbformat

    try:
        nb = json.loads(text, parse_constant=_refuse, parse_int=_int, parse_float=_float)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(
            f"{path} is not a notebook: {error}", hint="Give the whole notebook as JSON."
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
    _give_ids(nb["cells"], like["cells"] if like else [])
    ids = [cell["id"] for cell in nb["cells"]]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise InvalidInput(f"{path} has two cells with the id {twice!r}.")
    try:
        nbformat.validate(nb)
    except nbformat.ValidationError as error:
        raise InvalidInput(f"{path} is not a valid notebook: {error}") from error
    for cell in nb["cells"]:
        _tidy(cell)
    return nb


def dump(nb: Json) -> str:
    """Return the canonical text of a notebook."""
    import nbformat
    from nbformat.v4.nbjson import JSONWriter

    text = JSONWriter().writes(nbformat.from_dict(nb))
    return text if text.endswith("\n") else text + "\n"


def read(doc: Doc[Any]) -> Json:
    """Return the notebook in a document (numbers as in the file, no live-only keys)."""
    meta = _whole(doc.get("meta", type=Map).to_py() or {})
    raw = _whole(doc.get("cells", type=Array).to_py() or [])
    # Whoever edits in a room may put anything there; what is no cell is not part of the file.
    cells = [c for c in raw if isinstance(c, dict) and isinstance(c.get("source"), str)]
    for cell in cells:
        cell.pop("execution_state", None)
        _tidy(cell)
    return {
        "cells": cells,
        "metadata": meta.get("metadata", {}),
        "nbformat": meta.get("nbformat", 4),
        "nbformat_minor": meta.get("nbformat_minor", 5),
    }


def write(doc: Doc[Any], new: Json) -> None:
    """Edit a document so that it holds `new`; the caller holds the transaction.

    Cells in both keep their identity, cells only in `new` are inserted where they stand, cells
    that moved against the others are deleted and made anew (yjs 13 has no move).
    """
    _write_meta(doc, new)
    cells = doc.get("cells", type=Array)
    old_ids = [cast("str", cell.get("id")) for cell in cells]
    new_ids = [cell["id"] for cell in new["cells"]]
    moved = moved_cells(old_ids, new_ids)
    wanted = set(new_ids) - moved
    first = {cell: index for index, cell in reversed(list(enumerate(old_ids)))}
    seen: set[str] = set()
    for index in reversed(range(len(old_ids))):
        if old_ids[index] not in wanted or first[old_ids[index]] != index:
            del cells[index]
        else:
            seen.add(old_ids[index])
    for index, cell in enumerate(new["cells"]):
        if cell["id"] not in seen:
            cells.insert(index, _new_cell(cell))
        elif not _edit_cell(cast("Map[Any]", cells[index]), cell):
            del cells[index]
            cells.insert(index, _new_cell(cell))


def moved_cells(before: Sequence[str], after: Sequence[str]) -> set[str]:
    """Return the ids that changed their place relative to the others (the fewest possible).

    >>> moved_cells(["a", "b", "c"], ["c", "a", "new", "b"])
    {'c'}
    """
    place = {cell: i for i, cell in reversed(list(enumerate(before)))}
    common = [cell for cell in after if cell in place]
    # Longest increasing subsequence by patience sorting.
    tails: list[int] = []
    piles: list[int] = []
    for cell in common:
        pile = bisect.bisect_left(tails, place[cell])
        tails[pile : pile + 1] = [place[cell]]
        piles.append(pile)
    stay: set[str] = set()
    want = len(tails) - 1
    for cell, pile in zip(reversed(common), reversed(piles), strict=True):
        if pile == want:
            stay.add(cell)
            want -= 1
    return set(common) - stay


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same JSON; to Python `True` and `1` are equal.

    >>> same({"a": [1]}, {"a": [True]}), same([], [])
    (False, True)
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(v, other[k]) for k, v in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def _write_meta(doc: Doc[Any], new: Json) -> None:
    meta = doc.get("meta", type=Map)
    for key in ("nbformat", "nbformat_minor"):
        if not same(_whole(meta.get(key)), new[key]):
            meta[key] = new[key]
    have = meta.get("metadata")
    if isinstance(have, Map):
        _update(have, new["metadata"])
    else:
        meta["metadata"] = Map(copy.deepcopy(new["metadata"]))


def _new_cell(cell: Json) -> Map[Any]:
    made: Json = {k: copy.deepcopy(v) for k, v in cell.items() if k not in _SHARED}
    made["source"] = Text(cell["source"])
    made["metadata"] = Map(copy.deepcopy(cell.get("metadata", {})))
    if cell["cell_type"] == "code":
        made["outputs"] = Array(_new_outputs(cell.get("outputs", [])))
        made["execution_state"] = "idle"
    return Map(made)


def _new_outputs(outputs: list[Json]) -> list[Map[Any]]:
    made = []
    for output in copy.deepcopy(outputs):
        if output.get("output_type") == "stream":
            output["text"] = Text(output.get("text", ""))
        made.append(Map(output))
    return made


def _edit_cell(ycell: Map[Any], new: Json) -> bool:
    """Edit a cell in place; False if its shape does not allow that."""
    old = _whole(ycell.to_py() or {})
    source, metadata = ycell.get("source"), ycell.get("metadata")
    if old.get("cell_type") != new["cell_type"] or not isinstance(source, Text):
        return False
    if not isinstance(metadata, Map):
        return False
    apply_edits(source, old["source"], new["source"])
    _update(metadata, new.get("metadata", {}), keep=("trusted",))
    if new["cell_type"] == "code" and not same(old.get("outputs", []), new.get("outputs", [])):
        outputs = ycell.get("outputs")
        if not isinstance(outputs, Array):
            return False
        outputs.clear()
        outputs.extend(_new_outputs(new.get("outputs", [])))
    for key in ({*old, *new}) - _SHARED:
        if key not in new:
            del ycell[key]
        elif key not in old or not same(old[key], new[key]):
            ycell[key] = copy.deepcopy(new[key])
    return True


def apply_edits(text: Text, before: str, after: str) -> None:
    """Turn a shared text that holds `before` into `after` with the fewest edits."""
    for edit in text_edits(before, after):
        # Behind what goes, so that it does not stand at one place with another's new line
        # before it, where either may come first, in the middle of a line too.
        if edit.insert:
            text.insert(edit.at + edit.delete, edit.insert)
        if edit.delete:
            del text[edit.at : edit.at + edit.delete]


def _update(shared: Map[Any], new: Json, keep: tuple[str, ...] = ()) -> None:
    old = _whole(shared.to_py() or {})
    for key in old.keys() - new.keys():
        if key not in keep:
            del shared[key]
    for key, value in new.items():
        if key not in old or not same(old[key], value):
            shared[key] = copy.deepcopy(value)


def _whole(value: Any) -> Any:
    """Return a value with whole floats as ints: a CRDT knows only JavaScript's numbers."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, list):
        return [_whole(v) for v in value]
    if isinstance(value, dict):
        return {k: _whole(v) for k, v in value.items()}
    return value


def _tidy(cell: Json) -> None:
    cell.get("metadata", {}).pop("trusted", None)
    if cell.get("cell_type") != "code" and not cell.get("attachments", True):
        del cell["attachments"]


def _join_lines(cell: Json) -> None:
    """Join sources and outputs that are kept as lists of lines in the file."""
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


def _is_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, str) for v in value)


def _dicts(value: Any) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _give_ids(cells: list[Json], like: list[Json]) -> None:
    used = {cell["id"] for cell in cells if isinstance(cell.get("id"), str)}
    known: dict[tuple[Any, Any], list[str]] = {}
    for cell in like:
        known.setdefault((cell["cell_type"], cell["source"]), []).append(cell["id"])
    for index, cell in enumerate(cells):
        if isinstance(cell.get("id"), str):
            continue
        source = cell.get("source")
        spare = known.get((cell.get("cell_type"), source), []) if isinstance(source, str) else []
        ids = [i for i in spare if i not in used]
        salt = 0
        while not ids:
            made = hashlib.sha256(f"{index}.{salt}\0{source}".encode()).hexdigest()[:8]
            ids = [made] if made not in used else []
            salt += 1
        cell["id"] = ids[0]
        used.add(ids[0])


def _refuse(constant: str) -> Any:
    msg = f"{constant} is not JSON"
    raise ValueError(msg)


def _float(digits: str) -> float:
    """Return a number as a document keeps it: `1.0` is `1`, as when a room of Jupyter saves."""
    value = float(digits)
    if not math.isfinite(value):
        msg = f"the number {digits[:40]} is too large"
        raise ValueError(msg)
    return _whole(value)


def _int(digits: str) -> int:
    value = int(digits)
    if not -_INT64 <= value < _INT64:
        msg = f"the number {digits[:40]} does not fit into 64 bits"
        raise ValueError(msg)
    return value
