"""Measure the language of the code: `python -m tools.vocabulary [--json] [--all]`.

Each rule looks at the syntax trees of the packages (angelos, jupyter_ext, llm) and has a budget.
A rule that is over its budget prints one `path:line: rule: what` for each finding, and the program
ends with 1. `--all` prints also the findings that the budgets allow.

| rule | finding | budget |
|---|---|---|
| class | a public class name that stands in two packages (llm apart) | 0 |
| word | a name assigned or taken as an argument that says nothing | 5 in 1,000 names |
| skip | a line that the formatter must leave alone | 20 |
| length | a function of more than 50 lines | 0 |
| complexity | a function of more than 15 paths that `COMPLEX` does not list | 0 |
| prose | a branch on the text of a message that `PROSE` does not list | 0 |
| table | an entry of `COMPLEX` or `PROSE` that nothing needs any more | 0 |
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("angelos", "jupyter_ext", "llm")

EMPTY = """
    found known told said gone mine theirs who whom stood made seen kept wanted asked left there
    then thing things what whole other others
"""
WORDS = frozenset(EMPTY.split())
WORDS_IN_1000 = 5
SKIPS = 20
LINES = 50
PATHS = 15

Reasons = Mapping[str, str]  # "package:qualified name" -> why

COMPLEX: Reasons = {
    "angelgit:apply_diff": "a strict parser: one refusal for each way in which a diff can be wrong",
    "angelgit:_hunks": "a strict parser: one refusal for each way in which a hunk can be wrong",
    "llm:GPTDecoder.stream": "the loop of generation, with its cache and its stop string",
    "llm:train": "the loop of training, to be read from top to bottom",
}

PROSE: Reasons = {}


@dataclass(frozen=True)
class Finding:
    """One place that breaks a rule."""

    path: str
    line: int
    rule: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.text}"


@dataclass(frozen=True)
class Module:
    """One source file, read once."""

    path: str
    package: str  # the name below angelos, or the top-level package
    source: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, source: str) -> Module:
        """Return the module at `path`, relative to the root, with this source."""
        first, *rest = Path(path).with_suffix("").parts
        package = rest[0] if first == "angelos" and rest else first
        return cls(path, package, source, ast.parse(source))

    def functions(self) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
        """Yield every function with its "package:qualified name"."""
        yield from _functions(self.tree, f"{self.package}:")


@dataclass(frozen=True)
class Figure:
    """How a rule stands."""

    rule: str
    count: int
    budget: int
    of: int = 0  # how many names there are, for a rule that is a rate
    per_1000: float | None = None

    @property
    def holds(self) -> bool:
        """Return whether the budget is kept."""
        return (self.count if self.per_1000 is None else self.per_1000) <= self.budget

    def __str__(self) -> str:
        rate = "" if self.per_1000 is None else f" of {self.of} names, {self.per_1000} in 1,000"
        verdict = "ok" if self.holds else "OVER"
        return f"{self.rule:<12}{self.count:>5}{rate} (at most {self.budget}) {verdict}"


@dataclass(frozen=True)
class Report:
    """What all rules say of a set of modules."""

    figures: tuple[Figure, ...]
    findings: tuple[Finding, ...]

    @property
    def holds(self) -> bool:
        """Return whether every budget is kept."""
        return all(figure.holds for figure in self.figures)

    def over(self) -> list[Finding]:
        """Return the findings of the rules that are over their budget."""
        rules = {figure.rule for figure in self.figures if not figure.holds}
        return [finding for finding in self.findings if finding.rule in rules]


def measure(
    modules: Iterable[Module], *, complex_: Reasons = COMPLEX, prose: Reasons = PROSE
) -> Report:
    """Return the report of every rule; `complex_` and `prose` are the tables of exceptions."""
    modules = list(modules)
    names = sum(len(list(assigned(module.tree))) for module in modules)
    complicated = dict(_keyed_complexity(modules))
    worded = list(_keyed_prose(modules))
    findings = [
        *shared_classes(modules),
        *empty_words(modules),
        *skips(modules),
        *long_functions(modules),
        *(finding for key, finding in complicated.items() if key not in complex_),
        *(finding for key, finding in worded if key not in prose),
        *unused("COMPLEX", complex_, complicated),
        *unused("PROSE", prose, {key for key, _ in worded}),
    ]
    counts = Counter(finding.rule for finding in findings)
    classes = len({f.text for f in findings if f.rule == "class"})
    rate = round(1000 * counts["word"] / names, 2) if names else 0.0
    figures = (
        Figure("class", classes, 0),
        Figure("word", counts["word"], WORDS_IN_1000, names, rate),
        Figure("skip", counts["skip"], SKIPS),
        *(Figure(rule, counts[rule], 0) for rule in ("length", "complexity", "prose", "table")),
    )
    return Report(figures, tuple(findings))


def shared_classes(modules: Iterable[Module]) -> Iterator[Finding]:
    """Yield each definition of a public class whose name another package uses too."""
    places: dict[str, list[tuple[Module, int]]] = defaultdict(list)
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append((module, node.lineno))
    for name, here in sorted(places.items()):
        packages = sorted({module.package for module, _ in here} - {"llm"})
        if len(packages) > 1:
            text = f"{name} is a public class in {', '.join(packages)}"
            for module, line in here:
                if module.package in packages:
                    yield Finding(module.path, line, "class", text)


def assigned(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield (name, line) of every name that is assigned or taken as an argument."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.ExceptHandler(name=str(name)):
                yield name, node.lineno
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name, node.lineno
            case ast.MatchMapping(rest=str(name)):
                yield name, node.lineno


def empty_words(modules: Iterable[Module]) -> Iterator[Finding]:
    """Yield every assigned name that is one of `WORDS`; a leading underscore changes nothing."""
    for module in modules:
        for name, line in assigned(module.tree):
            if name.strip("_") in WORDS:
                yield Finding(module.path, line, "word", f"the name {name} says nothing")


def skips(modules: Iterable[Module]) -> Iterator[Finding]:
    """Yield every comment that switches the formatter off."""
    for module in modules:
        for token in tokenize.generate_tokens(io.StringIO(module.source).readline):
            marks = ("fmt: skip", "fmt: off")
            if token.type == tokenize.COMMENT and any(mark in token.string for mark in marks):
                yield Finding(module.path, token.start[0], "skip", token.string)


def long_functions(modules: Iterable[Module]) -> Iterator[Finding]:
    """Yield every function that is longer than `LINES`, from its `def` to its last line."""
    for module in modules:
        for key, node in module.functions():
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES:
                yield Finding(module.path, node.lineno, "length", f"{key} has {lines} lines")


def complexity(node: ast.AST) -> int:
    """Return McCabe's number, counted as radon does: boolean operators are paths too.

    What is defined within a function counts to it as well.
    """
    paths = 1
    for part in ast.walk(node):
        match part:
            case ast.BoolOp(values=values):
                paths += len(values) - 1
            case ast.comprehension(ifs=ifs):
                paths += 1 + len(ifs)
            case (
                ast.If()
                | ast.IfExp()
                | ast.For()
                | ast.AsyncFor()
                | ast.While()
                | ast.ExceptHandler()
                | ast.Assert()
                | ast.match_case()
            ):
                paths += 1
    return paths


def _keyed_complexity(modules: Iterable[Module]) -> Iterator[tuple[str, Finding]]:
    for module in modules:
        for key, node in module.functions():
            paths = complexity(node)
            if paths > PATHS:
                text = f"{key} has {paths} paths; split it, or list it with its reason"
                yield key, Finding(module.path, node.lineno, "complexity", text)


MESSAGES = ("reason", "detail", "message", "title")  # also `cancel_reason` and the like
TEXTS = (*MESSAGES, "text")  # keys of a fact's data, or of another dictionary
NAMES = ("reason", "detail")  # variables; a `message` is also the word for a frame
ERRORS = frozenset({"error", "exc", "err", "problem", "failure"})
LOOKS = ("startswith", "endswith", "find", "rfind", "index", "count", "partition", "rpartition")
SEARCHES = ("match", "search", "fullmatch", "findall", "finditer")
SHAPES = ("lower", "upper", "strip", "lstrip", "rstrip", "casefold", "decode")


def _keyed_prose(modules: Iterable[Module]) -> Iterator[tuple[str, Finding]]:
    for module in modules:
        for key, scope in _scopes(module):
            for node in _Prose.of(scope).branches(scope):
                text = f"{key} branches on a message: {ast.unparse(node)}"
                yield key, Finding(module.path, node.lineno, "prose", text)


@dataclass(frozen=True)
class _Prose:
    """What holds the text of a message in one function or module."""

    errors: frozenset[str]  # names of exceptions
    texts: frozenset[str] = frozenset()  # names to which the text of a message was assigned

    @classmethod
    def of(cls, scope: ast.AST) -> _Prose:
        caught = {
            node.name
            for node in _own(scope)
            if isinstance(node, ast.ExceptHandler) and node.name is not None
        }
        prose = cls(ERRORS | caught)
        for node in _own(scope):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if prose.holds(value):
                    prose = cls(prose.errors, prose.texts | {name})
        return prose

    def holds(self, node: ast.AST) -> bool:
        """Return whether an expression is the text of a message."""
        match node:
            case ast.Name(id=name):
                return name in self.texts
            case ast.BoolOp(values=values):
                return any(map(self.holds, values))
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]):
                return name in self.errors or name in self.texts
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[inner]):
                return self.holds(inner)
            case ast.Call(func=ast.Attribute(value=inner, attr=attr)) if attr in SHAPES:
                return self.holds(inner)
        return _field(node)

    def compares(self, node: ast.AST) -> bool:
        """Return whether an operand is a message, or a variable that is named like one."""
        return self.holds(node) or (isinstance(node, ast.Name) and _named(node.id, NAMES))

    def branches(self, scope: ast.AST) -> Iterator[ast.expr]:
        """Yield the expressions that read the text of a message to decide something."""
        for node in _own(scope):
            match node:
                case ast.Compare(left=left, ops=ops, comparators=right) if _equal(ops):
                    sides = [left, *right]
                    if any(map(self.compares, sides)) and not any(map(_no_text, sides)):
                        yield node
                case ast.Call(func=ast.Attribute(value=inner, attr=attr)) if attr in LOOKS:
                    if self.compares(inner):
                        yield node
                case ast.Call(func=ast.Attribute(attr=attr), args=args) if attr in SEARCHES:
                    if any(map(self.compares, args)):
                        yield node
                case ast.Match(subject=subject, cases=cases) if self.compares(subject):
                    if any(isinstance(case.pattern, ast.MatchValue) for case in cases):
                        yield subject


def _field(node: ast.AST) -> bool:
    """Return whether an expression reads a field that holds a message."""
    match node:
        case ast.Attribute(attr=attr):
            return _named(attr, MESSAGES)
        case ast.Subscript(value=ast.Attribute(attr="args")):
            return True
        case (
            ast.Subscript(slice=ast.Constant(value=str(key)))
            | ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(key)), *_])
        ):
            return _named(key, TEXTS)
    return False


def _named(name: str, words: Iterable[str]) -> bool:
    return any(name == word or name.endswith(f"_{word}") for word in words)


def _equal(ops: Iterable[ast.cmpop]) -> bool:
    return any(isinstance(op, ast.Eq | ast.NotEq | ast.In | ast.NotIn) for op in ops)


def _no_text(node: ast.AST) -> bool:
    """Return whether comparing with this is not about words: an enum's member, "", a number."""
    match node:
        case ast.Attribute(value=ast.Name(id=owner)):
            return owner[:1].isupper()
        case ast.Constant(value=value):
            return not value or not isinstance(value, str | bytes)
    return False


def _functions(
    node: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _functions(child, f"{prefix}{child.name}." if named else prefix)


def _scopes(module: Module) -> Iterator[tuple[str, ast.AST]]:
    yield f"{module.package}:{Path(module.path).stem}", module.tree
    yield from module.functions()


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a scope, without those of the functions within it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


def unused(table: str, reasons: Reasons, needed: Iterable[str]) -> Iterator[Finding]:
    """Yield the entries of a table that no function needs."""
    for key in sorted(reasons.keys() - set(needed)):
        text = f"{table} lists {key}, which needs it no more"
        yield Finding("tools/vocabulary.py", 1, "table", text)


def modules_of(root: Path, packages: Iterable[str] = PACKAGES) -> Iterator[Module]:
    """Yield the modules of the packages below `root`."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield Module.of(path.relative_to(root).as_posix(), path.read_text())


def main(args: list[str] | None = None) -> int:
    """Print the report of this repository; return 1 where a rule is over its budget."""
    parser = argparse.ArgumentParser(
        prog="vocabulary", description="Measure the language of the code."
    )
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
    parser.add_argument("--all", action="store_true", help="print also what the budgets allow")
    options = parser.parse_args(args)
    report = measure(modules_of(ROOT))
    if options.json:
        figures = [asdict(figure) | {"holds": figure.holds} for figure in report.figures]
        findings = [asdict(finding) for finding in report.findings]
        print(json.dumps({"figures": figures, "findings": findings, "holds": report.holds}))
    else:
        for finding in report.findings if options.all else report.over():
            print(finding)
        for figure in report.figures:
            print(figure)
    return 0 if report.holds else 1


if __name__ == "__main__":
    sys.exit(main())
