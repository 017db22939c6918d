r"""What a patch takes away from tests: by their syntax trees, before anything runs.

A test that is new is free. One that `main` has stays as it is, whatever stands beside it:

>>> before = b"def test_a():\n    assert f() == 1\n"
>>> weakened("t.py", before, before + b"def test_b():\n    assert f()\n")
[]
>>> [str(f) for f in weakened("t.py", before, b"def test_a():\n    f()\n")]
['t.py: it changes or removes test_a()']
"""

from __future__ import annotations

import ast
import doctest
from collections import Counter
from collections.abc import Iterator

from angelos.control.gate.syntax import UNPARSABLE, Unit, units_of
from angelos.core.findings import GateFinding, GateRule

_NAMED = 5
_parser = doctest.DocTestParser()


def weakened(path: str, before: bytes, after: bytes) -> list[GateFinding]:
    """Return what a patch changes in a module of tests that `main` has, beyond new tests."""
    try:
        old, new = units_of(ast.parse(before)), units_of(ast.parse(after))
    except UNPARSABLE:
        return [_changed(path, "a test in it cannot be parsed")]
    missing = Counter(map(_key, old)) - Counter(map(_key, new))
    names = list(dict.fromkeys(name for name, _ in missing))
    present = {unit.name for unit in old}
    remaining = Counter(map(_key, old))
    added: list[Unit] = []
    for unit in new:
        if remaining[_key(unit)]:
            remaining[_key(unit)] -= 1
        else:
            added.append(unit)
    heads = {unit.name for unit in old if unit.name.endswith(".head")}
    used = _names_in(old)
    for unit in added:
        if unit.name not in names and not _free(unit, present, heads, used):
            names.append(unit.name)
    if not names:
        return []
    listed = ", ".join(names[:_NAMED]) + (" and more" if len(names) > _NAMED else "")
    return [_changed(path, f"it changes or removes {listed}")]


def _key(unit: Unit) -> tuple[str, str]:
    return unit.name, unit.text


def _names_in(units: list[Unit]) -> set[str]:
    """Return the names that units read, bind or import: what another import may not bind."""
    names: set[str] = set()
    for root in (node for unit in units for node in unit.nodes):
        for node in ast.walk(root):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                names |= _bound_by(node)
    return names


def _bound_by(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name.partition(".")[0] for alias in node.names}


def _free(unit: Unit, present: set[str], heads: set[str], used: set[str]) -> bool:
    """Return whether a unit may be added: a test of a new name, a new class, or an import.

    An import that binds a name which the tests of `main` use would give them another meaning.
    """
    node = unit.nodes[0]
    if isinstance(node, ast.Import | ast.ImportFrom):
        return not unit.owner and not _bound_by(node) & (used | {"*"})
    if unit.name in present:
        return False
    last = unit.name.removeprefix(unit.owner)
    if unit.owner and f"{unit.owner}head" not in heads:
        return True  # of a class that is new
    return last.startswith(("test", "Test")) and not last.startswith("test_support")


def _changed(path: str, reason: str) -> GateFinding:
    return GateFinding(rule=GateRule.judge_changed, path=path, reason=reason)


def examples_changed(path: str, before: bytes, after: bytes | None) -> list[GateFinding]:
    """Return the docstrings whose examples on `main` are not all there any more, as they were."""
    try:
        old = dict(_examples(ast.parse(before)))
        new = dict(_examples(ast.parse(after))) if after is not None else {}
    except UNPARSABLE:
        return [_changed(path, "its examples cannot be parsed")]
    return [
        _changed(path, f"it changes or removes examples of {name or 'the module'}")
        for name, examples in old.items()
        if examples - new.get(name, Counter())
    ]


def _examples(tree: ast.Module) -> Iterator[tuple[str, Counter[tuple[str, str]]]]:
    """Yield the qualified name of each docstring with its examples and what they print."""
    stack: list[tuple[str, ast.AST]] = [("", tree)]
    while stack:
        name, node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=True) or ""
            if examples := _parser.get_examples(text):
                yield name, Counter((e.source, e.want) for e in examples)
            stack += [
                (f"{name}.{child.name}".lstrip("."), child)
                for child in node.body
                if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            ]
