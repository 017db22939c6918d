r"""Whether a notebook's outputs agree with those that it holds; for the runner, in its box.

Numbers may differ by a little, images in what nobody sees, addresses and ids in any way. A cell
without stored outputs agrees with anything, and so does one that is tagged `volatile`.

    >>> differs([stream("x = 0.30000000000000004\n")], [stream("x = 0.3\n")])
    ''
    >>> differs([stream("3 rows\n")], [stream("4 rows\n")])
    "it holds '3 rows' and printed '4 rows'"
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from angelos.node.witness.pictures import NotAPicture, distance

WORK = "/work"
MAX_NOTEBOOK = 64_000_000
MAX_OUTPUTS = 2_000_000
"""Characters of the outputs that are reported, of all cells that are made anew."""
RELATIVE, ABSOLUTE = 1e-6, 1e-9
PICTURE_BITS = 10
"""So many of the 64 bits of two perceptual hashes may differ."""
_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?|\bnan\b|\binf\b")
_VOLATILE_TEXT = re.compile(
    r"0x[0-9a-fA-F]{4,}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|\bT_[0-9a-f]{5}\b|/tmp/[\w./-]+|\bid=\"[^\"]*\""
)
_SHOWN = 60
_COMPARED = ("image/png", "image/jpeg", "text/plain", "text/markdown", "text/latex", "text/html")
"""Of the forms of one output, the first of these is compared."""
Output = dict[str, Any]
AskHarness = Callable[..., dict[str, Any]]


class Broken(Exception):
    """Something is wrong, so there is no complete report."""


def stream(text: str) -> Output:
    """Return an output as `print` makes it."""
    return {"output_type": "stream", "name": "stdout", "text": text}


class Cell:
    """A code cell of the notebook in the checkout."""

    def __init__(self, case: str, cell: dict[str, Any], *, fresh: bool) -> None:
        tags = cell.get("metadata", {}).get("tags", [])
        self.case = case
        self.source = _text(cell.get("source", ""))
        self.outputs: list[Output] = cell.get("outputs", [])
        self.may_raise = "raises-exception" in tags
        self.fresh = fresh
        self.any_output = fresh or "volatile" in tags


class Notebook:
    """The cells that are asked for, one case each; sentinels are cells that must fail."""

    def __init__(self, path: str, sentinels: dict[str, str], fresh: frozenset[str]) -> None:
        """Read the notebook; raise `Broken` if it is none."""
        self._sentinels = sentinels
        self._room = MAX_OUTPUTS
        self._cells: dict[str, Cell] = {}
        try:
            with Path(WORK, path).open(encoding="utf-8") as file:
                document = json.loads(file.read(MAX_NOTEBOOK))
            for index, cell in enumerate(document["cells"]):
                if cell["cell_type"] == "code" and _text(cell["source"]).strip():
                    name = str(cell.get("id") or f"#{index + 1}")
                    case = f"{path}::{name}"
                    self._cells[case] = Cell(case, cell, fresh=name in fresh)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Broken(f"{path} is no notebook: {error}") from error
        self._path = path
        self.cases = list(self._cells)

    def start(self, ask: AskHarness, nonce: str) -> None:
        """Have the kernel started; raise `Broken` if it does not start."""
        ask(nonce, do="start", path=self._path)

    def ask(self, harness: AskHarness, case: str, nonce: str, after: str | None) -> dict[str, Any]:
        """Run one cell and return what became of it."""
        del after
        cell = self._cells.get(case)
        source = cell.source if cell is not None else self._sentinels[case]
        answer = harness(nonce, do="cell", source=source, quiet=cell is None)
        outputs = answer.get("outputs")
        if not isinstance(outputs, list):
            raise Broken("an answer has no outputs")
        error = answer.get("error")
        if cell is None or (error and not cell.may_raise):
            return _failed(answer, error)
        problem = "" if cell.any_output else differs(cell.outputs, outputs)
        if problem:
            return {"nonce": answer["nonce"], "outcome": "failed", "detail": problem}
        made = json.dumps(outputs) if cell.fresh else ""
        self._room -= len(made)
        if self._room < 0:
            detail = f"its outputs and those before it have over {MAX_OUTPUTS} characters"
            return {"nonce": answer["nonce"], "outcome": "failed", "detail": detail}
        return {"nonce": answer["nonce"], "outcome": "passed", "detail": "", "made": made}


def _failed(answer: dict[str, Any], error: Any) -> dict[str, Any]:
    if not error:
        return {"nonce": answer["nonce"], "outcome": "passed", "detail": ""}
    name, text = str(error.get("ename")), str(error.get("evalue"))
    detail = f"{name}: {text}"
    if name == "NameError":
        detail += " (no cell above makes it: it was left in the kernel that made the outputs)"
    outcome = "failed" if name == "AssertionError" else "error"
    return {"nonce": answer["nonce"], "outcome": outcome, "detail": detail}


def _text(value: Any) -> str:
    return "".join(value) if isinstance(value, list) else str(value)


# -- comparing -------------------------------------------------------------------------------


def differs(stored: list[Output], fresh: list[Output]) -> str:
    """Return how the outputs of a run differ from those that are stored, or ""."""
    if not stored:
        return ""
    old, new = _merged(stored), _merged(fresh)
    if len(old) != len(new):
        return f"it holds {len(old)} outputs and made {len(new)}"
    for before, after in zip(old, new, strict=True):
        if problem := _differs(before, after):
            return problem
    return ""


def _merged(outputs: list[Output]) -> list[Output]:
    """Return outputs with neighbouring prints in one, and without standard error."""
    merged: list[Output] = []
    for output in outputs:
        kind = output.get("output_type")
        if kind == "stream":
            if output.get("name") == "stderr":
                continue
            if merged and merged[-1].get("output_type") == "stream":
                text = _text(merged[-1]["text"]) + _text(output.get("text", ""))
                merged[-1] = {**merged[-1], "text": text}
                continue
        merged.append(output)
    return merged


def _differs(before: Output, after: Output) -> str:
    old, new = before.get("output_type"), after.get("output_type")
    if old != new:
        return f"it holds a {old} and made a {new}"
    if old == "stream":
        return _text_differs(_text(before.get("text", "")), _text(after.get("text", "")))
    if old == "error":
        same = before.get("ename") == after.get("ename")
        return "" if same else f"it holds {before.get('ename')} and raised {after.get('ename')}"
    return _data_differs(before.get("data", {}), after.get("data", {}))


def _data_differs(old: dict[str, Any], new: dict[str, Any]) -> str:
    if "application/vnd.jupyter.widget-view+json" in old:
        return ""  # its model is another in each run
    kind = next((kind for kind in _COMPARED if kind in old), None)
    if kind is None:
        others = (kind for kind in old if kind != "application/javascript")
        return next((f"its {k} is another" for k in others if new.get(k) != old[k]), "")
    if kind not in new:
        return f"it holds {kind} and made none"
    compare = _picture_differs if kind.startswith("image/") else _text_differs
    return compare(_text(old[kind]), _text(new[kind]))


def _text_differs(old: str, new: str) -> str:
    first, second = (" ".join(_VOLATILE_TEXT.sub("~", text).split()) for text in (old, new))
    if first == second:
        return ""
    words = _NUMBER.split(first)
    if words == _NUMBER.split(second):
        pairs = zip(_NUMBER.findall(first), _NUMBER.findall(second), strict=True)
        if all(_close(a, b) for a, b in pairs):
            return ""
    return f"it holds {_short(first)!r} and printed {_short(second)!r}"


def _close(old: str, new: str) -> bool:
    if old == new:
        return True
    if old.lstrip("+-").isdigit() and new.lstrip("+-").isdigit():
        return int(old) == int(new)
    return math.isclose(float(old), float(new), rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _picture_differs(old: str, new: str) -> str:
    try:
        first, second = (base64.b64decode("".join(text.split())) for text in (old, new))
    except (binascii.Error, ValueError):
        return "a picture in it cannot be read"
    if first == second:
        return ""
    try:
        bits = distance(first, second)
    except NotAPicture:
        return "a picture in it is another"
    return "" if bits <= PICTURE_BITS else f"a picture in it is another ({bits} of 64 bits)"
