"""Which program a command line of Python runs, where that can be read off it. Pure.

The guard covers what is given as `argv` as well as `code`, so it has to know where the source is.
A form that is not listed here (a shell, `-i`, several letters behind one dash) is not read.

>>> read_argv(("python", "-u", "-c", "print(1)"))
PythonProgram(kind='code', text='print(1)')
>>> read_argv(("python3", "-m", "study.check", "--all"))
PythonProgram(kind='module', text='study.check')
>>> read_argv(("sh", "-c", "python")) is None
True
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from angelos.core.errors import InvalidInput
from angelos.core.paths import safe_path
from angelos.core.task_files import INPUTS

_FLAGS = frozenset({"-B", "-E", "-I", "-O", "-OO", "-P", "-s", "-S", "-u", "-v"})
"""They change nothing of what is run."""
TOOLS = frozenset({"bandit", "pytest", "ruff", "unittest"})
"""Modules of the node that run or read the files of a checkout, and no text of their own."""
_WORK = "/work"


class PythonProgram(NamedTuple):
    """What is run: the code itself, standard input, a file, or a module."""

    kind: Literal["code", "stdin", "file", "module"]
    text: str = ""


def read_argv(argv: tuple[str, ...]) -> PythonProgram | None:
    """Return the program of a command line, None if it cannot be told."""
    if not argv or argv[0] not in {"python", "python3"}:
        return None
    words = list(argv[1:])
    while words and words[0] in _FLAGS:
        words.pop(0)
    match words:
        case [] | ["-", *_]:
            return PythonProgram("stdin")
        case ["-c", code, *_]:
            return PythonProgram("code", code)
        case ["-m", module, *_] if all(part.isidentifier() for part in module.split(".")):
            return PythonProgram("module", module)
        case [file, *_] if file.endswith(".py") and not file.startswith("-"):
            return PythonProgram("file", file)
    return None


def sources(program: PythonProgram, *, checkout: bool) -> tuple[tuple[bool, str], ...]:
    """Return where the source of a file or module may lie, in the order in which Python looks.

    Args:
        program: A file or a module.
        checkout: The task starts in a checkout, else where links to its inputs are.

    Returns:
        Pairs: whether it is in the checkout (else among the inputs), and its path there.
    """
    path = program.text
    if program.kind == "module":
        base = path.replace(".", "/")
        return ((checkout, f"{base}/__main__.py"), (checkout, f"{base}.py"))
    for root, inside in ((_WORK, True), (INPUTS, False)):
        if path.startswith(f"{root}/"):
            checkout, path = inside, path.removeprefix(f"{root}/")
    try:
        return ((checkout, safe_path(path.removeprefix("./"))),)
    except InvalidInput:
        return ()


def readable(
    argv: tuple[str, ...],
    inputs: Collection[str],
    checkout: Collection[str] | None,
) -> bool:
    """Return whether a guard can read the program of a command line before it runs.

    Args:
        argv: The command line.
        inputs: The paths of the task's input files.
        checkout: The paths of its checkout, if it has one.
    """
    program = read_argv(argv)
    if program is None:
        return False
    if program.kind in {"code", "stdin"} or program.text in TOOLS:
        return True
    places = sources(program, checkout=checkout is not None)
    return any(path in (checkout or () if inside else inputs) for inside, path in places)
