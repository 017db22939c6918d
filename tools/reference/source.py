r"""What stands beside a definition in its source, and the Markdown that tables are made of.

>>> print(table(("a", "b"), [("x|y", "z")]))
| a | b |
|---|---|
| x\|y | z |
"""

from __future__ import annotations

import ast
import inspect
import io
import textwrap
import tokenize
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_FOR_TOOLS = ("noqa", "fmt:", "type:", "pyright:")


class Field(NamedTuple):
    """A field of a struct or a member of an enumeration, as it is written."""

    name: str
    type: str
    default: str
    text: str
    """The docstring below it, else the comment beside it."""


def fields(cls: type) -> list[Field]:
    """Return the fields that a class itself defines, in order."""
    source = textwrap.dedent(inspect.getsource(cls))
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and not token.string.lstrip("# ").startswith(_FOR_TOOLS)
    }
    body = ast.parse(source).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class
    found: list[Field] = []
    for node, after in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name, written = node.target.id, ast.unparse(node.annotation)
            if written.startswith("ClassVar"):
                continue
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name, written = node.targets[0].id, ""
        else:
            continue
        text = _docstring(after) or comments.get(node.end_lineno or 0, "")
        default = ast.get_source_segment(source, node.value) if node.value else ""
        found.append(Field(name, written, default or "", text))
    return found


def texts(cls: type) -> dict[str, str]:
    """Return what is said of each field of a class."""
    return {field.name: field.text for field in fields(cls)}


def _docstring(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return " ".join(str(node.value.value).split())
    return ""


def doc(thing: object) -> str:
    """Return a docstring, as it is written."""
    return inspect.getdoc(thing) or ""


def first(thing: object) -> str:
    """Return the first paragraph of a docstring in one line."""
    return " ".join(doc(thing).split("\n\n")[0].split())


def head(title: str, text: str) -> str:
    """Return how a page begins."""
    return f"# {title}\n\n<!-- Made from the code by `make docs`; do not edit. -->\n\n{text}\n"


def code(text: object) -> str:
    """Return `text` in backquotes, nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [tuple(names), *(tuple(_cell(cell) for cell in row) for row in rows)]
    marked = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([marked[0], "|" + "---|" * len(names), *marked[1:]])


def described(cls: type) -> str:
    """Return a struct as a table of its fields, types and defaults as they are written."""
    rows = [(code(f.name), code(f.type), code(f.default), f.text) for f in fields(cls)]
    return table(("field", "type", "default", ""), rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
