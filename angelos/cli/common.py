"""What every command shares: options, a client, output, errors and exit codes.

    @click.command()
    @common
    def nodes(out: Out) -> None:
        with out.errors():
            views = out.ask(lambda angelos: angelos.nodes())
            out.table(("node", "role"), [(v.id, v.role) for v in views], views)

An error is one line on standard error (what happened, what to do next); with `--json` it is a
problem object as the last line of standard output.
"""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from angelos.cli import give_up_stdout

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.errors import AngelError

T = TypeVar("T")
FAILED, USAGE = 1, 2
_FEW = 4
"""So many characters name a thing, as in git; fewer could name it by chance."""
_INPUT_CODES = frozenset({"invalid-input", "not-found", "too-large"})


class Out:
    """Where the system is and how to print."""

    def __init__(self, data_dir: str | None, *, as_json: bool, token: str = "") -> None:
        """Take the options that every command has."""
        self.data_dir = data_dir
        self.token = token
        self.as_json = as_json

    def ask(self, question: Callable[[Angelos], Awaitable[T]]) -> T:
        """Return the answer of the running system."""

        async def asked() -> T:
            from angelos.client import Angelos

            async with Angelos.connect(self.data_dir, self.token) as angelos:
                return await question(angelos)

        return asyncio.run(asked())

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
        """End the program as an error or Ctrl-C inside demands."""
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


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json`, `--data-dir` and `--token`, and pass them as `out`."""

    @click.option("--data-dir", metavar="DIR", help="Data directory [env: ANGELOS_DATA_DIR].")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option(
        "--token",
        "person_token",
        envvar="ANGELOS_TOKEN",
        default="",
        metavar="TOKEN",
        help="Act as the person with this token [env: ANGELOS_TOKEN; the owner].",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any, data_dir: str | None, as_json: bool, person_token: str, **kwargs: Any
    ) -> None:
        out = Out(data_dir, as_json=as_json, token=person_token)
        with out.errors():
            command(*args, out=out, **kwargs)

    return wrapped


def ending_signals() -> tuple[signal.Signals, ...]:
    """Return the signals that ask a program to end, less a SIGHUP that `nohup` has it ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    both = (signal.SIGINT, signal.SIGTERM)
    return both if ignored else (*both, signal.SIGHUP)


def read_text(file: str, *, stdin: bool = False) -> str:
    """Return a file's text, of "-" that of standard input if `stdin`.

    Raises `InvalidInput` when it cannot be read or is not UTF-8, and `TooLarge` when no request
    could hold it; of an endless one no more is read than that.
    """
    from angelos.core.errors import InvalidInput, TooLarge
    from angelos.core.routes import MAX_BODY_BYTES

    try:
        if stdin and file == "-":
            raw = sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
        else:
            with Path(file).open("rb") as source:
                raw = source.read(MAX_BODY_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from error
    if len(raw) > MAX_BODY_BYTES:
        raise TooLarge(f"{file} has more than {MAX_BODY_BYTES} bytes; nothing was sent.")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text.") from error


def evidence(error: AngelError) -> list[str]:
    """Return what an error brought along for people: a log's end, or both texts of a conflict."""
    lines = str(error.extra.get("log", "")).splitlines()
    conflicts = error.extra.get("conflicts", [])
    for conflict in conflicts if isinstance(conflicts, list) else []:
        if isinstance(conflict, dict):
            lines.append(f"{conflict.get('path', '')} from line {conflict.get('start', '?')}:")
            for side in ("base", "theirs", "yours"):
                lines += [f"  {side:<6} | {t}" for t in str(conflict.get(side, "")).splitlines()]
    return ["".join(c if c.isprintable() else "?" for c in line) for line in lines]


def one_line(error: AngelError) -> str:
    """Return what happened and what to do next, in one line."""
    return " ".join(str(error).split())


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


def pick(prefix: str, ids: Iterable[str], what: str, hint: str = "") -> str:
    """Return the one id that is or starts with `prefix`, given with or without its `prop-`.

    Raises `NotFound` with `hint` when there is none and `InvalidInput` when there are several.
    """
    from angelos.core.errors import InvalidInput, NotFound

    known = sorted(set(ids))
    if prefix in known:
        return prefix
    if len(_tail(prefix) if "-" in prefix else prefix) < _FEW or prefix == what[:_FEW]:
        raise InvalidInput(f"{prefix!r} is too short to name a {what}.", hint="Type more.")
    found = [i for i in known if prefix and (i.startswith(prefix) or _tail(i).startswith(prefix))]
    if not found:
        raise NotFound(f"There is no {what} {prefix!r}.", hint=hint)
    if len(found) > 1:
        some = ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")  # noqa: PLR2004 - a few
        raise InvalidInput(
            f"{prefix!r} stands for {len(found)} {what}s: {some}.", hint="Type more."
        )
    return found[0]


def _tail(identifier: str) -> str:
    return identifier.partition("-")[2]


def _cell(value: object) -> str:
    text = " ".join(str(value).split())
    return "".join(c if c.isprintable() else "?" for c in text)  # no escape codes from strangers
