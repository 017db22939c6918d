"""How a command prints: tables or JSON, errors and exit codes.

An error is one line on standard error (what happened, what to do next); with `--json` it is a
problem object as the last line of standard output.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from angelos.cli import give_up_stdout

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.errors import AngelError

T = TypeVar("T")
FAILED, USAGE = 1, 2
_INPUT_CODES = frozenset({"invalid-input", "not-found", "too-large"})


class Out:
    """Where the system is and how to print."""

    def __init__(
        self, data_dir: str | None, *, as_json: bool, token: str = "", url: str = ""
    ) -> None:
        self.data_dir = data_dir
        self.url = url
        self.token = token
        self.as_json = as_json
        self.log_format = ""
        """As the command line says, if it does."""

    def ask(self, question: Callable[[Angelos], Awaitable[T]]) -> T:
        """Return the answer of the running system."""

        async def answer() -> T:
            async with self.connect() as angelos:
                return await question(angelos)

        return asyncio.run(answer())

    def connect(self) -> Angelos:
        """Return a client of the system; raise `InvalidInput` without a token for `--url`."""
        from angelos.client import Angelos
        from angelos.core.errors import InvalidInput

        if self.url and not self.token:
            raise InvalidInput(
                "An address needs a person's token.",
                hint="Name its file with --token-file, or set ANGELOS_TOKEN.",
            )
        return Angelos.connect(self.data_dir, self.token, url=self.url)

    def json(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        import msgspec

        line = msgspec.json.encode(value, enc_hook=str).decode()
        click.echo(line)

    def show(self, value: Any, text: str) -> None:
        """Print `value` with `--json`, `text` without."""
        if self.as_json:
            self.json(value)
        else:
            click.echo(text)

    def ids(self, ids: Iterable[str]) -> None:
        """Print only ids, one per line, to be arguments of another command."""
        for identifier in ids:
            click.echo(identifier)

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]], value: Any) -> None:
        """Print `value` with `--json`, else a table."""
        self.show(value, table(head, rows))

    def fail(self, error: AngelError) -> None:
        """Print an error."""
        if self.as_json:
            click.echo(json.dumps(error.problem(), default=str))
        for line in evidence(error):
            click.echo(line, err=True)
        click.echo(f"angelos: {one_line(error)}", err=True)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """End the program with the exit code that an error or Ctrl-C inside asks for."""
        from angelos.core.errors import AngelError, Unavailable

        try:
            yield
        except AngelError as error:
            self.fail(error)
            sys.exit(USAGE if error.code in _INPUT_CODES else FAILED)
        except KeyboardInterrupt:
            click.echo("angelos: interrupted.", err=True)
            sys.exit(FAILED)
        except BrokenPipeError:
            sys.stderr.close()  # else the interpreter complains once more at its end
            sys.exit(FAILED)
        except OSError as error:  # a disk that is full, a folder that may not be read
            place = f"{error.filename}: " if error.filename else ""
            self.fail(Unavailable(f"{place}{error.strerror or error}."))
            give_up_stdout()
            sys.exit(FAILED)


def evidence(error: AngelError) -> list[str]:
    """Return what an error brought along for people: a log's end, or both texts of a conflict."""
    lines = str(error.extra.get("log", "")).splitlines()
    conflicts = error.extra.get("conflicts", [])
    for conflict in conflicts if isinstance(conflicts, list) else []:
        if isinstance(conflict, dict):
            lines.append(f"{conflict.get('path', '')} from line {conflict.get('start', '?')}:")
            for side in ("base", "theirs", "yours"):
                lines += [f"  {side:<6} | {t}" for t in str(conflict.get(side, "")).splitlines()]
    changed = error.extra.get("changed", [])
    for hunk in changed if isinstance(changed, list) else []:
        if isinstance(hunk, dict):
            cell = f" cell {hunk.get('cell')}" if hunk.get("cell") else ""
            lines.append(f"{hunk.get('path', '')}{cell} has changed since ({hunk.get('kind')}):")
            lines += [f"  - {t}" for t in str(hunk.get("before", "")).splitlines()]
            lines += [f"  + {t}" for t in str(hunk.get("after", "")).splitlines()]
    return [printable(line) for line in lines]


def one_line(error: AngelError) -> str:
    """Return what happened and what to do next, in one line."""
    return " ".join(str(error).split())


def printable(text: str) -> str:
    """Return a line without the escape codes that a stranger may have put into it."""
    return "".join(c if c.isprintable() or c == "\t" else "?" for c in text)


def masked(data: bytes) -> bytes:
    r"""Return a stranger's output for a terminal: control codes are shown, not obeyed.

    Line feeds, tabs and carriage returns pass; so do all printable characters.

    >>> masked(b"\x1b[2Jred")
    b'\\x1b[2Jred'
    """
    text = data.decode("utf-8", "replace")
    safe = (
        c if c.isprintable() or c in "\n\t\r" else c.encode("unicode_escape").decode() for c in text
    )
    return "".join(safe).encode()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a plain table, columns two spaces apart.

    >>> print(table(("id", "state"), [("task-1", "ok")]))
    id      state
    task-1  ok
    """
    lines = [tuple(head), *(tuple(map(_cell, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def when(at: float) -> str:
    """Return Unix seconds as local time."""
    from datetime import datetime

    return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(value: object) -> str:
    return printable(" ".join(str(value).split()))
