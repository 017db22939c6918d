r"""Puts paths and arguments into the command lines of a language's definition. Pure.

    {node}      a tool's path            {main}      the program's first file
    {out}       where a build writes     {sources}   it and its neighbours of the language
    {built}     what a build has left    {project}   the folder of both
    {seeded}    a filled build cache     {args}      the program's arguments

>>> places = ProgramPaths(main="/in/main.go", sources=("/in/main.go",), project="/in")
>>> filled(("{go}", "build", "-o", "{out}/program", "{sources}"), {"go": "/usr/bin/go"}, places)
('/usr/bin/go', 'build', '-o', '/out/program', '/in/main.go')
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from angelos.node.runtimes.models import Diagnostic
from angelos.node.sandbox.layout import OUT

BUILT, SEEDED = "/run/angelos/built", "/run/angelos/seeded"
_MAX_DIAGNOSTICS, _MAX_MESSAGE = 50, 500
_WORD = re.compile(r"\{([a-z]+)\}")


@dataclass(frozen=True, slots=True)
class ProgramPaths:
    """Where a program lies in the box."""

    main: str
    sources: tuple[str, ...]
    project: str
    args: tuple[str, ...] = ()


def filled(words: Sequence[str], tools: dict[str, str], places: ProgramPaths) -> tuple[str, ...]:
    """Return a command line with everything put in; lists take the place of a whole word."""
    lists = {"{sources}": places.sources, "{args}": places.args}
    single = {
        **tools,
        "main": places.main,
        "project": places.project,
        "out": OUT,
        "built": BUILT,
        "seeded": SEEDED,
    }
    line: list[str] = []
    for word in words:
        if word in lists:
            line += lists[word]
        else:
            line.append(_WORD.sub(lambda match: single.get(match[1], match[0]), word))
    return tuple(line)


def diagnostics(pattern: str, text: str, project: str) -> tuple[Diagnostic, ...]:
    """Return what a compiler complains about, errors first, with paths inside the project.

    The text is the compiler's own and quotes the program; nothing is decided by it.
    """
    rows: list[Diagnostic] = []
    if not pattern:
        return ()
    for match in re.finditer(pattern, text[:200_000], re.MULTILINE):
        groups = {name: value or "" for name, value in match.groupdict().items()}
        column = groups.get("column") or str(len(groups.get("caret", "")) + 1)
        rows.append(
            Diagnostic(
                file=groups["file"].removeprefix(f"{project}/").removeprefix("./"),
                line=int(groups["line"][:9]),
                column=int(column[:9]),
                message=groups["message"].strip()[:_MAX_MESSAGE],
                severity="warning" if groups.get("severity") == "warning" else "error",
                code=groups.get("code", "").strip(),
            )
        )
        if len(rows) >= _MAX_DIAGNOSTICS:
            break
    return tuple(sorted(rows, key=lambda row: row.severity != "error"))
