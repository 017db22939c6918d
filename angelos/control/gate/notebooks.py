"""What a patch takes away from a notebook that judges, and its code for the rule over syntax trees.

A notebook judges when a step of the pipeline re-runs it. Its code may change; it may not be made
so that it cannot fail: cells that were code stay code, no cell may newly raise or be volatile, and
no assertion goes.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from angelos.control.gate import vocabulary
from angelos.control.gate.syntax import UNPARSABLE
from angelos.core.findings import GateFinding, GateRule

RAISES = "raises-exception"
VOLATILE = "volatile"
"""The tag of a cell whose outputs differ from run to run, such as a time."""
_SKIPS = frozenset({"skip-execution", "parameters", VOLATILE})


Cells = list[dict[str, Any]]


class NotANotebook(ValueError):
    """The text is no notebook of nbformat 4."""


def cells_of(body: bytes) -> Cells:
    """Return the cells of a notebook.

    Raises:
        NotANotebook: It is none.
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotANotebook(str(error)) from error
    cells = document.get("cells") if isinstance(document, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise NotANotebook("it has no cells")
    return cells


def source_of(cell: dict[str, Any]) -> str:
    """Return the source of a cell, whichever of its two forms it has."""
    source = cell.get("source", "")
    if isinstance(source, list):
        return "".join(line for line in source if isinstance(line, str))
    return source if isinstance(source, str) else ""


def tags_of(cell: dict[str, Any]) -> frozenset[str]:
    """Return the tags of a cell."""
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return (
        frozenset(tag for tag in tags if isinstance(tag, str))
        if isinstance(tags, list)
        else frozenset()
    )


def hollowed(path: str, before: bytes, after: bytes) -> list[GateFinding]:
    """Return why a changed notebook may fail less than `main`'s."""
    try:
        old, new = cells_of(before), cells_of(after)
    except NotANotebook as error:
        return [GateFinding(rule=GateRule.judge_changed, path=path, reason=f"no notebook: {error}")]
    reasons = [*_tagged(old, new), *_no_longer_code(old, new)]
    if _allows_errors(after) and not _allows_errors(before):
        reasons.append((GateRule.errors_expected, "it allows errors in all cells"))
    if _kernel(before) != _kernel(after):
        reasons.append((GateRule.judge_changed, "it runs in another kernel"))
    if _asserts(old) - _asserts(new):
        reasons.append((GateRule.judge_changed, "it changes or removes assertions"))
    return [GateFinding(rule=rule, path=path, reason=reason) for rule, reason in reasons]


def _tagged(old: Cells, new: Cells) -> Iterator[tuple[GateRule, str]]:
    """Yield the cells with a new tag by which they cannot fail."""
    tags_before = {_name(cell, i): tags_of(cell) for i, cell in enumerate(old)}
    for index, cell in enumerate(new):
        name = _name(cell, index)
        tags = tags_of(cell) - tags_before.get(name, frozenset())
        if RAISES in tags:
            yield GateRule.errors_expected, f"cell {name} may raise an error"
        if skips := tags & _SKIPS:
            yield GateRule.tests_skipped, f"cell {name} is tagged {', '.join(sorted(skips))}"


def _no_longer_code(old: Cells, new: Cells) -> Iterator[tuple[GateRule, str]]:
    code = {_name(cell, i) for i, cell in enumerate(new) if cell.get("cell_type") == "code"}
    lost = [
        _name(cell, i)
        for i, cell in enumerate(old)
        if cell.get("cell_type") == "code" and source_of(cell).strip()
        if _name(cell, i) not in code
    ]
    if lost:
        yield GateRule.tests_fewer, f"it has no code cell {', '.join(lost[:5])} any more"


def _name(cell: dict[str, Any], index: int) -> str:
    name = cell.get("id")
    return name if isinstance(name, str) and name else f"#{index + 1}"


def _metadata(body: bytes) -> dict[str, Any]:
    metadata = json.loads(body).get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _allows_errors(body: bytes) -> bool:
    execution = _metadata(body).get("execution")
    return isinstance(execution, dict) and bool(execution.get("allow_errors"))


def _kernel(body: bytes) -> str:
    spec = _metadata(body).get("kernelspec")
    return str(spec.get("name")) if isinstance(spec, dict) else ""


def _asserts(cells: Cells) -> Counter[str]:
    """Return the assertions of all code cells, as they are written, and how often."""
    asserts: Counter[str] = Counter()
    for cell in cells:
        if cell.get("cell_type") != "code":
            continue
        try:
            tree = ast.parse(_without_magics(source_of(cell))[0])
        except UNPARSABLE:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                asserts[ast.dump(node)] += 1
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name.startswith("assert"):
                    asserts[ast.dump(node)] += 1
    return asserts


def code_of(body: bytes) -> tuple[bytes, Counter[str]]:
    """Return the code of all cells as one module, and the lines in it that are no Python.

    Raises:
        NotANotebook: It is none.
    """
    parts: list[str] = []
    magics: Counter[str] = Counter()
    for cell in cells_of(body):
        if cell.get("cell_type") == "code":
            text, lines = _without_magics(source_of(cell))
            if not _is_python(text):  # joined with the next cell it could be read as a string
                text, lines = "", [*lines, source_of(cell)]
            parts.append(text)
            magics.update(lines)
    return "\n".join(parts).encode("utf-8", "surrogatepass"), magics


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _without_magics(source: str) -> tuple[str, list[str]]:
    lines, magics = source.split("\n"), []
    if source.lstrip().startswith("%%"):
        first = source.lstrip().split("\n", 1)[0]
        if first.strip() not in vocabulary.MAGICS:
            return "", [source]
    for index, line in enumerate(lines):
        text = line.strip()
        if text.startswith(("%", "!", "?")) or text.endswith("?"):
            magics.append(text)
            lines[index] = line[: len(line) - len(line.lstrip())] + "pass"
    return "\n".join(lines), magics


def unknown_magics(path: str, before: Counter[str], after: Counter[str]) -> list[GateFinding]:
    """Return the new lines of a notebook that are neither Python nor a magic that is known."""
    return [
        GateFinding(rule=GateRule.syntax, path=path, reason=f"it runs {line[:80]!r}")
        for line in after - before
        if line not in vocabulary.MAGICS
    ]


# -- outputs ---------------------------------------------------------------------------------


def stale_cells(before: bytes | None, after: bytes) -> tuple[str, ...]:
    """Return the code cells whose source, or a cell before them, is another than in `before`.

    Their outputs, if they hold any, are of another source. A name is the cell's id, or `#` and its
    place from 1, as the runner has it.
    """
    try:
        new = _code_cells(cells_of(after))
        old = _code_cells(cells_of(before)) if before is not None else []
    except NotANotebook:
        return ()
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    return tuple(name for name, _ in new[same:])


def _code_cells(cells: Cells) -> list[tuple[str, str]]:
    """Return name and source of the cells that run."""
    return [
        (_name(cell, index), source)
        for index, cell in enumerate(cells)
        if cell.get("cell_type") == "code" and (source := source_of(cell)).strip()
    ]


def dropped_outputs(before: bytes, after: bytes) -> int:
    """Return how many code cells lose the outputs that they had."""
    try:
        old, new = cells_of(before), cells_of(after)
    except NotANotebook:
        return 0
    holding = {_name(cell, i) for i, cell in enumerate(old) if cell.get("outputs")}
    bare = {
        _name(cell, i)
        for i, cell in enumerate(new)
        if cell.get("cell_type") == "code" and not cell.get("outputs")
    }
    return len(holding & bare)
