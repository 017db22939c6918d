r"""A default-deny rule over the syntax tree of a patch: what it does not understand asks a person.

No report of a test run is proof against code that was written to fool it: such code shares a
process with the tests. So an agent's patch passes alone only if each function and statement that
is new in it consists of what `vocabulary` lists.

    >>> [str(f) for f in unknown(None, b"import ctypes\n", SourceContext(path="a.py"))]
    ['a.py:1: it imports ctypes, which the rule does not know']
    >>> unknown(b"import ctypes\n", b"import ctypes\nX = 1\n", SourceContext(path="a.py"))
    []

Only what is new is looked at: a unit (a function, a method, the head of a class, a statement of a
module or class) whose tree stands in the file on `main` under the same name is `main`'s own.
"""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from angelos.control.gate import vocabulary
from angelos.control.gate.imports import Aliases, aliases_of, understood
from angelos.core.findings import GateFinding, GateRule

MAX_BYTES = 1_000_000
UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What `ast.parse` raises for text that is no Python, or too much of it."""
_EXCEPTIONS = frozenset(
    name
    for name in dir(builtins)
    if isinstance(getattr(builtins, name), type)
    and issubclass(getattr(builtins, name), BaseException)
)
_STATEMENTS = (
    ast.Return,
    ast.Delete,
    ast.Assign,
    ast.AugAssign,
    ast.AnnAssign,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.If,
    ast.With,
    ast.AsyncWith,
    ast.Match,
    ast.Raise,
    ast.Try,
    ast.TryStar,
    ast.Assert,
    ast.Import,
    ast.ImportFrom,
    ast.Nonlocal,
    ast.Global,
    ast.Expr,
    ast.Pass,
    ast.Break,
    ast.Continue,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)
_HIDDEN_TEXT = re.compile(
    r"__(globals|builtins?|subclasses|code|class|bases?|mro|dict|import|getattribute|loader|spec"
    r"|closure|self|wrapped|reduce(_ex)?|init_subclass)__"
    r"|/proc\b|/dev/fd|/self/|\b(tb_frame|f_back|f_locals|f_globals|gi_frame)\b"
)
_JUDGING_TEXT = re.compile(
    r"\.pth$|(^|[/\\])(conftest|sitecustomize|usercustomize|test_[^/\\]*)\.py$"
)
"""Names of files that judge, or that Python runs at its start."""
_HOOKS = re.compile(r"pytest_\w+|load_tests|(setUp|tearDown)Module")
"""Names that test frameworks call wherever they meet them."""
_STORED = frozenset(
    f"__{name}__"
    for name in (
        *("all", "author", "copyright", "doc", "hash", "license", "match_args", "slots"),
        "version",
    )
)
"""Special names that a module or a class may set."""
_VALUES = frozenset(
    ["int", "float", "complex", "bool", "str", "bytes", "tuple", "list", "dict", "set", "frozenset"]
)
_MADE = frozenset(
    f"__{name}__" for name in ("init", "new", "repr", "str", "format", "doc", "slots", "post_init")
)
"""What a class may define that is a number, a text or the like, and compares as one."""
_WRITES = frozenset(
    [
        "write_text",
        "write_bytes",
        "unlink",
        "touch",
        "rmtree",
        "copy",
        "copyfile",
        "copytree",
        "move",
        "symlink_to",
        "extractall",
    ]
)
_MOVES = frozenset(["rename", "replace", "renames", "remove", "unlink", "symlink", "link", "mkdir"])
_CHANGES = frozenset(
    [
        "add",
        "append",
        "clear",
        "discard",
        "extend",
        "insert",
        "pop",
        "popitem",
        "register",
        "remove",
        "setdefault",
        "update",
    ]
)
"""Methods that change what they are called of."""
_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.MULTILINE)
_FOREIGN_STORE = "it sets {0} on something that it did not make"


@dataclass(frozen=True)
class SourceContext:
    """What the rule has to know of a file."""

    path: str
    test: bool = False
    """It is a new test, which may use the test frameworks."""
    own: frozenset[str] = frozenset()
    """Top-level modules of the repository."""
    used: frozenset[str] = frozenset()
    """Installed modules that `main` imports already, anywhere."""


@dataclass
class Unit:
    """A piece of a file that is new or not as a whole."""

    name: str
    nodes: list[ast.AST]
    at_import: bool
    owner: str = ""
    """The class that it is a member of."""
    text: str = ""

    def __post_init__(self) -> None:
        self.text = "\n".join(ast.dump(node) for node in self.nodes)


def unknown(before: bytes | None, after: bytes, context: SourceContext) -> list[GateFinding]:
    """Return what is new in a Python file and not understood, in the order of lines."""
    problem = _unreadable(after)
    if problem:
        return [_finding(context, 0, problem)]
    try:
        tree = ast.parse(after)
        present = units_of(ast.parse(before)) if before is not None else []
    except UNPARSABLE as error:
        return [_finding(context, getattr(error, "lineno", 0) or 0, "it cannot be parsed")]
    old = Counter((unit.name, unit.text) for unit in present)
    fresh: list[Unit] = []
    for unit in units_of(tree):
        key = (unit.name, unit.text)
        if old[key]:
            old[key] -= 1
        else:
            fresh.append(unit)
    aliases = aliases_of(tree)
    values = _value_classes(tree)
    findings = [f for unit in fresh for f in _Reader(unit, aliases, context, values).read()]
    unique = dict.fromkeys((f.line, f.reason) for f in findings)
    return [_finding(context, line, reason) for line, reason in sorted(unique)]


def _finding(context: SourceContext, line: int, reason: str) -> GateFinding:
    return GateFinding(rule=GateRule.syntax, path=context.path, line=line, reason=reason)


def _unreadable(source: bytes) -> str:
    """Return why the bytes are not surely what Python will read, or ""."""
    if len(source) > MAX_BYTES:
        return f"it has more than {MAX_BYTES} bytes"
    head = b"\n".join(source.split(b"\n", 2)[:2])
    declared = _CODING.search(head)
    if declared and declared.group(1).lower().replace(b"_", b"-") not in {b"utf-8", b"utf8"}:
        return "it declares an encoding other than UTF-8"
    if b"\0" in source or b"\f" in source or source.startswith(b"\xff\xfe"):
        return "it holds control characters"
    try:
        text = source.decode()
    except UnicodeDecodeError:
        return "it is not UTF-8"
    return "" if _plain_names(text) else "a name in it is not written in ASCII"


def _plain_names(text: str) -> bool:
    """Return whether every name is ASCII: Python reads others in normal form NFKC."""
    if text.isascii():
        return True
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError, ValueError, RecursionError):
        return True  # it will not parse either
    return all(token.string.isascii() for token in tokens if token.type == tokenize.NAME)


# -- units -----------------------------------------------------------------------------------


def units_of(tree: ast.Module) -> list[Unit]:
    """Return the pieces of a file: functions, methods, heads of classes, statements."""
    return list(_walk_units(tree.body, ""))


def _walk_units(body: Iterable[ast.stmt], owner: str) -> Iterator[Unit]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{owner}{statement.name}()"
            yield Unit(name, [statement], at_import=False, owner=owner)
        elif isinstance(statement, ast.ClassDef):
            name = f"{owner}{statement.name}."
            head = [*statement.decorator_list, *statement.bases, *statement.keywords]
            nodes: list[ast.AST] = [ast.Name(statement.name, ast.Store()), *head]
            yield Unit(f"{name}head", nodes, at_import=True, owner=owner)
            yield from _walk_units(statement.body, name)
        elif not _is_text(statement):
            yield Unit(f"{owner}statement", [statement], at_import=True, owner=owner)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str | bytes)
    )


# -- reading a unit --------------------------------------------------------------------------


@dataclass
class _Reader:
    """Reads one unit that is new."""

    unit: Unit
    aliases: Aliases
    context: SourceContext
    values: frozenset[str]
    """The classes of the file that are numbers, texts or the like, each with a dot."""
    findings: list[GateFinding] = field(default_factory=list)
    bases: set[int] = field(default_factory=set)
    """The nodes of which an attribute is taken."""

    def read(self) -> list[GateFinding]:
        """Return what is not understood in it."""
        self.local = _bound(self.unit.nodes)
        self.foreign = self._foreign_names()
        for node in self.unit.nodes:
            self.visit(node)
        return self.findings

    def report(self, node: ast.AST, reason: str) -> None:
        self.findings.append(_finding(self.context, getattr(node, "lineno", 0), reason))

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.stmt) and not isinstance(node, _STATEMENTS):
            self.report(node, f"it has a statement of an unknown kind ({type(node).__name__})")
            return
        handler = getattr(self, f"visit_{type(node).__name__}", None)
        if handler is not None:
            handler(node)
        for child in ast.iter_child_nodes(node):
            self.visit(child)

    # -- imports -------------------------------------------------------------------------

    def visit_Import(self, node: ast.Import) -> None:  # noqa: N802 - named by the node's type
        for alias in node.names:
            if not self._knows(alias.name):
                self.report(node, f"it imports {alias.name}, which the rule does not know")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:  # noqa: N802
        module = node.module or ""
        if any(alias.name == "*" for alias in node.names):
            self.report(node, f"it imports * from {module or '.'}")
        elif node.level == 0:
            for alias in node.names:
                if not self._knows(module, alias.name) and not self._knows(
                    f"{module}.{alias.name}"
                ):
                    reason = f"it imports {alias.name} from {module}, which the rule does not know"
                    self.report(node, reason)
        self._hidden_names(node, [alias.name for alias in node.names])

    def _hidden_names(self, node: ast.AST, names: Iterable[str]) -> None:
        for name in names:
            if name in vocabulary.HIDDEN and name not in {"sys", "os", "importlib"}:
                self.report(node, f"it takes {name} from another module")

    def _knows(self, module: str, name: str = "") -> bool:
        return understood(
            module, name, test=self.context.test, own=self.context.own, used=self.context.used
        )

    # -- names and attributes ------------------------------------------------------------

    def visit_Name(self, node: ast.Name) -> None:  # noqa: N802
        name = node.id
        if isinstance(node.ctx, ast.Store | ast.Del):
            if self.unit.at_import:
                self._set_at_import(node, name)
            return
        if name == "get_ipython":
            self.report(node, "it uses IPython, which builds code at run time")
            return
        if name in self.local or name in self.aliases.defined:
            self._own_name(node, name)
            return
        if name in self.aliases.modules:
            self._imported_name(node, name)
            return
        if name in vocabulary.BUILTINS or name in _EXCEPTIONS or not hasattr(builtins, name):
            if name.startswith("__") and name not in vocabulary.DUNDERS | vocabulary.BUILTINS:
                self.report(node, f"it reads {name}")
            return
        if not (name == "vars" and self._asked_of_local(node)):
            self.report(node, f"it uses the builtin {name}")

    def _set_at_import(self, node: ast.Name, name: str) -> None:
        """Look at a name that a module or a class sets."""
        if not self.unit.owner and hasattr(builtins, name):
            self.report(node, f"it gives the builtin {name} another meaning")
        special = name.startswith("__") and name.endswith("__")
        if (special and name not in _STORED) or _HOOKS.fullmatch(name):
            self.report(node, f"it sets {name}")

    def _own_name(self, node: ast.Name, name: str) -> None:
        """Report a name of the unit's own that hides a builtin which opens everything."""
        if name in vocabulary.DOORS:
            self.report(node, f"it gives the builtin {name} another meaning")

    def _asked_of_local(self, node: ast.Name) -> bool:
        """Return whether `vars` is called with a name that the unit binds: no module, no class."""
        return any(
            call.func is node and len(call.args) == 1 and self._is_local(call.args[0])
            for root in self.unit.nodes
            for call in ast.walk(root)
            if isinstance(call, ast.Call)
        )

    def _is_local(self, node: ast.expr) -> bool:
        return isinstance(node, ast.Name) and node.id in self.local - self.foreign

    def _imported_name(self, node: ast.Name, name: str) -> None:
        """Report a name that was imported from a module, by `main` perhaps, and is not known."""
        dotted = self.aliases.modules[name]
        module, _, last = dotted.rpartition(".")
        if name not in self.aliases.whole:
            if not self._knows(module, last):
                self.report(node, f"it uses {dotted}, which the rule does not know")
        elif id(node) not in self.bases and dotted.partition(".")[0] not in self.context.own:
            # Somebody else could change the module that is passed on.
            self.report(node, f"it passes the module {dotted} on")

    def visit_Attribute(self, node: ast.Attribute) -> None:  # noqa: N802
        self._attribute(node, node.attr, node.value)
        self.bases.add(id(node.value))
        if isinstance(node.ctx, ast.Store | ast.Del):
            self._store(node, node.attr, node.value)
            return
        dotted = self._dotted(node)
        if dotted is None:
            return
        module, name = dotted
        if not self._knows(module, name) and not self._knows(f"{module}.{name}"):
            self.report(node, f"it uses {module}.{name}, which the rule does not know")

    def _attribute(self, node: ast.AST, name: str, value: ast.AST | None) -> None:
        if name.startswith("__") and name.endswith("__"):
            if name == "__class__" and self._names_class(node):
                return
            if name == "__setattr__" and self._is_called(node):
                return  # `_set_on_self` looks at its calls
            if name not in vocabulary.DUNDERS:
                self.report(node, f"it reads the special attribute {name}")
        elif name in vocabulary.HIDDEN and not self._is_module(value, name):
            self.report(node, f"it reads {name} of something")
        else:
            for library, names in vocabulary.HIDDEN_WITH.items():
                if name in names and library in self.aliases.roots:
                    self.report(node, f"it calls {name}, which {library} runs as code")

    def _is_called(self, node: ast.AST) -> bool:
        calls = (n for root in self.unit.nodes for n in ast.walk(root) if isinstance(n, ast.Call))
        return any(call.func is node for call in calls)

    def _names_class(self, node: ast.AST) -> bool:
        """Return whether `x.__class__` is only asked for its name."""
        return any(
            isinstance(parent, ast.Attribute)
            and parent.value is node
            and parent.attr in {"__name__", "__qualname__"}
            for root in self.unit.nodes
            for parent in ast.walk(root)
        )

    def _is_module(self, value: ast.AST | None, name: str) -> bool:
        """Return whether this is a module by its own name, as `importlib.metadata` has it."""
        return False if value is None else self.aliases.resolve(value) == name

    def _dotted(self, node: ast.Attribute) -> tuple[str, str] | None:
        """Return the module and the name that an attribute of an imported module is."""
        module = self.aliases.resolve(node.value) if self._imported(node.value) else ""
        return (module, node.attr) if module else None

    def _imported(self, node: ast.AST) -> bool:
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id not in self.local

    # -- what is set ---------------------------------------------------------------------

    def _store(self, node: ast.AST, name: str, value: ast.expr) -> None:
        if name in vocabulary.OVERRIDDEN or (name.startswith("__") and name != "__doc__"):
            self.report(node, f"it sets {name}")
        elif not self._ours(value):
            self.report(node, _FOREIGN_STORE.format(name))

    def visit_Subscript(self, node: ast.Subscript) -> None:  # noqa: N802
        if isinstance(node.ctx, ast.Store | ast.Del) and not self._ours(node.value):
            self.report(node, _FOREIGN_STORE.format("an item"))

    def _ours(self, node: ast.expr) -> bool:
        """Return whether what is changed begins with a name of the unit or the module itself."""
        while isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id in {"super", "cast"}
        if not isinstance(node, ast.Name):
            return False
        if node.id in self.foreign:
            return False
        return node.id in self.local or node.id not in self.aliases.modules

    def _foreign_names(self) -> frozenset[str]:
        """Return the names that the unit binds to something imported, without calling it."""
        names: set[str] = set()
        for root in self.unit.nodes:
            for node in ast.walk(root):
                if isinstance(node, ast.Assign | ast.AnnAssign | ast.NamedExpr) and node.value:
                    value = node.value
                    while isinstance(value, ast.Attribute | ast.Subscript):
                        value = value.value
                    if isinstance(value, ast.Name) and value.id in self.aliases.modules:
                        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                        names |= {t.id for t in targets if isinstance(t, ast.Name)}
        return frozenset(names)

    # -- calls and text ------------------------------------------------------------------

    def visit_Call(self, node: ast.Call) -> None:  # noqa: N802
        called = node.func.id if isinstance(node.func, ast.Name) else ""
        if called in {"getattr", "setattr", "delattr", "hasattr"} and called not in self.local:
            self._by_name(node, called)
        if called == "type" and len(node.args) > 1:
            self.report(node, "it makes a class at run time")
        if called == "open" and node.args and _is_number(node.args[0]):
            self.report(node, "it opens a descriptor by its number")
        if self.unit.at_import and _writes(node, called):
            self.report(node, "it writes a file when it is imported")
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        elif self.aliases.modules.get(called) == "operator.attrgetter":
            self._text_names(node, node.args)

    def _by_name(self, node: ast.Call, called: str) -> None:
        if len(node.args) < 2:  # noqa: PLR2004
            self.report(node, f"it calls {called} in an unknown way")
            return
        name = node.args[1]
        if not isinstance(name, ast.Constant) or not isinstance(name.value, str):
            if called != "hasattr":
                self.report(node, f"it calls {called} with a name that is made at run time")
            return
        self._attribute(node, name.value, node.args[0])
        if called in {"setattr", "delattr"}:
            self._store(node, name.value, node.args[0])

    def _method(self, node: ast.Call, func: ast.Attribute) -> None:
        root = func.value
        if func.attr in _CHANGES and isinstance(root, ast.Attribute) and self._is_foreign(root):
            self.report(node, f"it calls {func.attr} of something that it did not make")
        if self.unit.at_import and func.attr in _MOVES and self._dotted(func) == ("os", func.attr):
            self.report(node, "it writes a file when it is imported")
        if func.attr in {"__setattr__", "__delattr__"}:
            self._set_on_self(node, func)
        if isinstance(root, ast.Name) and root.id == "operator" and func.attr == "attrgetter":
            self._text_names(node, node.args)
        if func.attr in {"setattr", "delattr", "setitem", "delitem"}:
            self._patched(node)
        if func.attr == "patch" or (isinstance(root, ast.Attribute) and root.attr == "patch"):
            self._patched(node)

    def _is_foreign(self, node: ast.AST) -> bool:
        """Return whether this is a part of a module that is not the repository's own."""
        while isinstance(node, ast.Attribute):
            node = node.value
        if not isinstance(node, ast.Name) or node.id in self.local - self.foreign:
            return False
        module = self.aliases.modules.get(node.id, "").partition(".")[0]
        return bool(module) and module not in self.context.own

    def _set_on_self(self, node: ast.Call, func: ast.Attribute) -> None:
        """Look at `object.__setattr__(self, "name", value)`, as frozen classes have it."""
        plain = isinstance(func.value, ast.Name) and func.value.id == "object"
        on_self = node.args and isinstance(node.args[0], ast.Name) and node.args[0].id == "self"
        if plain and on_self and len(node.args) > 1 and isinstance(node.args[1], ast.Constant):
            self._by_name(node, "setattr")
        else:
            self.report(node, f"it calls {func.attr}")

    def _patched(self, node: ast.Call) -> None:
        """Look at what `monkeypatch.setattr` or `mock.patch` changes: only the repository's own."""
        target = node.args[0] if node.args else None
        root = target
        while isinstance(root, ast.Attribute):
            root = root.value
        if isinstance(target, ast.Constant) and isinstance(target.value, str):
            module = target.value.partition(".")[0]
        elif isinstance(root, ast.Name) and root.id in self.aliases.modules:
            module = self.aliases.modules[root.id].partition(".")[0]
        elif isinstance(root, ast.Name) and root.id in self.local - self.foreign:
            return
        else:
            module = ""
        if module not in self.context.own:
            self.report(node, "it replaces a part of something that is not the repository's own")

    def _text_names(self, node: ast.Call, names: Iterable[ast.expr]) -> None:
        for name in names:
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                for part in name.value.split("."):
                    self._attribute(node, part, None)
            else:
                self.report(node, "it reads an attribute whose name is made at run time")

    def visit_Constant(self, node: ast.Constant) -> None:  # noqa: N802
        text = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(text, str) and (match := _HIDDEN_TEXT.search(text)):
            self.report(node, f"a text in it names {match.group()}")
        elif isinstance(text, str) and _JUDGING_TEXT.search(text):
            self.report(node, f"a text in it names {text[-40:]}, which judges or runs by itself")

    def visit_FormattedValue(self, node: ast.FormattedValue) -> None:  # noqa: N802
        del node

    # -- definitions ---------------------------------------------------------------------

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: N802
        self._definition(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:  # noqa: N802
        self._definition(node)

    def _definition(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        name = node.name
        special = name.startswith("__") and name.endswith("__")
        if special and (name not in vocabulary.DUNDERS or not self.unit.owner):
            self.report(node, f"it defines {name}")
        self._hook(node, name, special=special)
        if not self.unit.owner and hasattr(builtins, name) and node in self.unit.nodes:
            self.report(node, f"it gives the builtin {name} another meaning")
        if name in vocabulary.OVERRIDDEN - {"run", "fail", "debug", "outcome"}:
            self.report(node, f"it defines {name}, as test frameworks do")
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        for text in [a.annotation for a in arguments] + [node.returns]:
            self._annotation(text)

    def _hook(self, node: ast.AST, name: str, *, special: bool) -> None:
        """Look at a name that Python or a test framework calls by itself."""
        if special and self.unit.owner in self.values and name not in _MADE:
            self.report(node, f"it defines {name} for something that compares as a builtin does")
        if not self.unit.owner and _HOOKS.fullmatch(name) and not self._may_set_up(name):
            self.report(node, f"it defines {name}, which test frameworks call")

    def _may_set_up(self, name: str) -> bool:
        """Return whether a new test module defines what is called before and after its tests."""
        return self.context.test and name in {"setUpModule", "tearDownModule"}

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        self._annotation(node.annotation)

    def _annotation(self, node: ast.expr | None) -> None:
        """Read an annotation that is written as text: libraries evaluate it."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                tree = ast.parse(node.value.strip(), mode="eval")
            except UNPARSABLE:
                self.report(node, "an annotation in it cannot be parsed")
                return
            if any(isinstance(part, ast.Call) for part in ast.walk(tree)):
                self.report(node, "an annotation in it calls something")
            self.visit(tree.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        for keyword in node.keywords:
            self.visit_keyword(keyword)
        for statement in node.body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                owner, self.unit.owner = self.unit.owner, f"{node.name}."
                self._definition(statement)
                self.unit.owner = owner

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg == "allow_pickle":
            self.report(node.value, "it lets data be loaded that run code")
        if node.arg == "metaclass":
            name = node.value.id if isinstance(node.value, ast.Name) else ""
            if name not in {"ABCMeta", "EnumMeta", "EnumType"} and not (
                isinstance(node.value, ast.Attribute) and node.value.attr in {"ABCMeta", "EnumMeta"}
            ):
                self.report(node.value, "it gives a class another metaclass")


def _value_classes(tree: ast.Module) -> frozenset[str]:
    """Return the classes, each with a dot, that derive from a builtin value, however far."""
    values: set[str] = set()
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in classes:
        size = len(values)
        for node in classes:
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            if bases & (_VALUES | values):
                values.add(node.name)
        if len(values) == size:
            break
    return frozenset(f"{name}." for name in values)


def _writes(node: ast.Call, called: str) -> bool:
    """Return whether a call writes to the disk."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr in _WRITES
    if called != "open":
        return False
    modes = [*node.args[1:2], *[k.value for k in node.keywords if k.arg == "mode"]]
    return any(
        not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") for mode in modes
    )


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def _stored(target: ast.AST) -> set[str]:
    """Return the names that a target binds; `math.pi` binds none."""
    names = [node for node in ast.walk(target) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def _bound(nodes: Iterable[ast.AST]) -> frozenset[str]:
    """Return the names that functions of a unit bind, in whatever way."""
    names: set[str] = set()
    for root in nodes:
        inside = isinstance(root, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(root):
            if isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and inside:
                names.add(node.id)
            elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
                names.add(node.name)
            elif isinstance(node, ast.comprehension):
                names |= _stored(node.target)
            elif node is not root and isinstance(
                node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
            ):
                names.add(node.name)
    return frozenset(names)
