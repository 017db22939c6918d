"""What a command reads: files, standard input, and tokens, which never stand on a command line."""

from __future__ import annotations

import os
import select
import stat
import sys
from pathlib import Path

import click

_QUIET_S = 1.0
_SHOWN = 40
"""So much of a file's name is repeated in an error: it may be a token put in its place."""


def read_text(file: str, *, stdin: bool = False) -> str:
    """Return a file's text, of `-` that of standard input if `stdin`.

    No more is read than a request could hold, since a file may be endless.

    Raises:
        InvalidInput: It cannot be read or is not UTF-8.
        TooLarge: No request could hold it.
    """
    from angelos.core.errors import InvalidInput

    try:
        return _read_bytes(file, stdin=stdin).decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} is not UTF-8 text.") from error


def read_source(file: str) -> str:
    """Return the text of a Python program, in the encoding that its first lines name (PEP 263).

    Raises:
        InvalidInput: It cannot be read, or is not in that encoding.
        TooLarge: No request could hold it.
    """
    import io
    import tokenize

    from angelos.core.errors import InvalidInput

    raw = _read_bytes(file, stdin=True)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        return raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        raise InvalidInput(
            f"{file} is not text in UTF-8, or in the encoding that it names."
        ) from error


def is_piped() -> bool:
    """Return whether standard input is a file, or a pipe or socket on which something comes.

    Shells and services hand down pipes into which nobody writes: one that stays silent for a moment
    is taken as none, and that is said.
    """
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
            return stat.S_ISREG(mode)
        ready, _, _ = select.select([sys.stdin], [], [], _QUIET_S)
    except (AttributeError, OSError, ValueError):  # it is closed
        return False
    if not ready:
        click.echo("angelos: nothing comes on standard input; --input - waits for it.", err=True)
    return bool(ready)


def _read_bytes(file: str, *, stdin: bool) -> bytes:
    """Return what a file holds, of `-` what standard input holds if `stdin`."""
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
    return raw


def read_token(file: str | None) -> str:
    """Return the token that a person acts by: that of `file`, else that of the environment.

    Empty means the owner, whose token is in the data directory.
    """
    from angelos.client.settings import find_token

    return find_token() if file is None else read_secret(file)


def read_secret(file: str) -> str:
    """Return the first line of a file, of `-` that of standard input.

    On a terminal `-` asks for it without showing what is typed.

    Raises:
        InvalidInput: There is nothing in it, or it cannot be read.
    """
    from angelos.core.errors import InvalidInput

    if file == "-" and sys.stdin.isatty():
        return click.prompt("Token", hide_input=True, err=True).strip()
    try:
        if file == "-":
            line = sys.stdin.readline(_MAX_LINE)
        else:
            with Path(file).open(encoding="utf-8") as source:
                line = source.readline(_MAX_LINE)
    except (OSError, ValueError) as error:  # also what is not UTF-8
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(
            f"No token can be read from {file[:_SHOWN]!r}: {reason}.",
            hint="Name a file that holds it, or give - and it on standard input.",
        ) from error
    if not line.strip():
        raise InvalidInput(f"There is no token in {file[:_SHOWN]!r}.")
    return line.strip()


_MAX_LINE = 65_536
