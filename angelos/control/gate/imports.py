r"""What a file imports, by which names, and whether the rule understands it.

>>> aliases = aliases_of(ast.parse("import os.path as p\nfrom math import pi"))
>>> aliases.modules
{'p': 'os.path', 'pi': 'math.pi'}
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Collection
from dataclasses import dataclass, field

from angelos.control.gate import vocabulary


@dataclass
class Aliases:
    """Names of a file and what they are."""

    modules: dict[str, str] = field(default_factory=dict)
    """Name -> dotted name of the module, or of what was imported from one."""
    whole: set[str] = field(default_factory=set)
    """Names that are modules."""
    defined: set[str] = field(default_factory=set)
    """Names that the file's own statements bind."""

    @property
    def roots(self) -> set[str]:
        """The top-level modules that are imported."""
        return {name.partition(".")[0] for name in self.modules.values()}

    def resolve(self, node: ast.AST) -> str:
        """Return the dotted module name that an expression is, or ""."""
        if isinstance(node, ast.Name):
            return self.modules.get(node.id, "") if node.id in self.whole else ""
        if isinstance(node, ast.Attribute):
            base = self.resolve(node.value)
            dotted = f"{base}.{node.attr}" if base else ""
            return dotted if dotted and _is_module(dotted) else ""
        return ""


def aliases_of(tree: ast.Module) -> Aliases:
    """Return the names that a file imports and defines, wherever in it."""
    aliases = Aliases()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                bound = name.asname or name.name.partition(".")[0]
                aliases.modules[bound] = name.name if name.asname else bound
                aliases.whole.add(bound)
        elif isinstance(node, ast.ImportFrom):
            _import_from(aliases, node)
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            aliases.defined.add(statement.name)
        else:
            aliases.defined |= _stored(statement)
    return aliases


def _import_from(aliases: Aliases, node: ast.ImportFrom) -> None:
    for name in node.names:
        bound = name.asname or name.name
        if node.level:
            aliases.defined.add(bound)  # the repository's own
            continue
        dotted = f"{node.module}.{name.name}"
        aliases.modules[bound] = dotted
        if _is_module(dotted):
            aliases.whole.add(bound)


def _stored(statement: ast.stmt) -> set[str]:
    names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


_MODULES = (
    vocabulary.WHOLE
    | frozenset(vocabulary.PARTS)
    | frozenset(vocabulary.TEST_PARTS)
    | vocabulary.TEST_WHOLE
    | frozenset({"os.path"})
)


def _is_module(dotted: str) -> bool:
    return dotted in _MODULES or dotted in sys.stdlib_module_names


def understood(
    module: str, name: str, *, test: bool, own: Collection[str], used: Collection[str]
) -> bool:
    """Return whether a module (or, if given, a name in it) is understood.

    Args:
        module: Its dotted name.
        name: What is taken from it; empty for the module itself.
        test: Whether a new test takes it.
        own: Top-level modules of the repository.
        used: Installed modules that `main` imports already.
    """
    root = module.partition(".")[0]
    if root in own:
        return name not in vocabulary.HIDDEN
    if root in vocabulary.FRAMEWORKS:
        return test and _listed(module, name, vocabulary.TEST_WHOLE, vocabulary.TEST_PARTS)
    if module == "os.path":
        return not name.startswith("_")
    if root in sys.stdlib_module_names:
        return _listed(module, name, vocabulary.WHOLE, vocabulary.PARTS)
    hidden = {*module.split("."), name} & vocabulary.HIDDEN or name.startswith("_")
    return not hidden and (root in vocabulary.LIBRARIES or root in used)


def _listed(module: str, name: str, whole: Collection[str], parts: dict[str, str]) -> bool:
    if module in whole:
        if not name:
            return True
        return not name.startswith("_") and (
            name not in sys.stdlib_module_names
            or name == module  # such as time.time
            or f"{module}.{name}" in whole
        )
    if module in parts:
        return not name or name in parts[module].split()
    return False
