"""`angelos audit`: what happened, and the proof that nobody has changed the record of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, when

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator

    from angelos.client import Angelos
    from angelos.core.api import AuditEntry
    from angelos.governance.verify import Report

_PAGE = 500
_KEY = re.compile(r"[0-9A-Fa-f]{64}")


@click.group(cls=NounGroup)
def audit() -> None:
    """Verify, read and export the audit log."""


@audit.command()
@click.option("--export", "export_file", metavar="FILE", help="An export; by default a fresh one.")
@click.option("--key", metavar="HEX", help="The log's public key, as you know it from elsewhere.")
@click.option("--since", metavar="FILE", help="An older export that this one must continue.")
@common
def verify(out: Out, *, export_file: str | None, key: str | None, since: str | None) -> None:
    """Verify the audit log; name each entry that was changed. Exit code 1 if there is any.

    With --export nothing but the file is needed. The key that must have signed it is --key, else
    the data directory's, else the one in the file (then only its own consistency is proven).
    A log that was rolled back and signed again is valid in itself: keep an export elsewhere, and
    give it as --since.
    """
    from angelos.governance.verify import verify as check

    trusted = _key(out, key)
    note = _last_note(since) if since else ""
    if export_file is None:
        with tempfile.TemporaryFile() as file:
            out.ask(lambda angelos: _save(angelos, file))
            file.seek(0)
            report = check(file, trusted, note)
    else:
        report = _verify_file(export_file, trusted, note)
    lines = report.lines()
    if trusted is None:
        lines.append("the key is the export's own: compare its id with one you trust")
    out.show(report, "\n".join(lines))
    sys.exit(0 if report.ok else FAILED)


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new entries.")
@common
def tail(out: Out, *, lines: int, follow: bool) -> None:
    """Print the last entries; with --json one object per line."""

    async def show() -> None:
        from angelos.client import Angelos

        async with Angelos.connect(out.data_dir, out.token) as angelos:
            size = (await angelos.audit.checkpoint()).size
            async for entry in _entries(angelos, max(-1, size - lines - 1), follow=follow):
                _print(out, entry)

    asyncio.run(show())


@audit.command("export")
@click.argument("file", metavar="[FILE]", required=False)
@common
def export_log(out: Out, file: str | None) -> None:
    """Write the whole log as JSON lines.

    FILE is created with mode 0600; without it, or with -, the log goes to standard output.
    """
    if file is None or file == "-":
        out.ask(lambda angelos: _save(angelos, sys.stdout.buffer))
        return
    from angelos.adapters.host.datadir import private_file
    from angelos.core.errors import InvalidInput

    place = Path(file).resolve()  # a link stays one
    if place.exists() and not place.is_file():  # as root one would replace a device
        raise InvalidInput(
            f"{file} is not a regular file; nothing was written.", hint="For a pipe, leave it out."
        )
    try:
        with private_file(place) as target:
            size, lines = out.ask(lambda angelos: _save(angelos, target))
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}.") from error
    out.show({"file": file, "bytes": size, "lines": lines}, f"{lines} lines are in {file}.")


async def _save(angelos: Angelos, file: IO[bytes]) -> tuple[int, int]:
    """Write an export into a file as it comes; return its bytes and lines."""
    size = lines = 0
    async with contextlib.aclosing(angelos.audit.export()) as pieces:
        async for piece in pieces:
            file.write(piece)
            size, lines = size + len(piece), lines + piece.count(b"\n")
    file.flush()
    return size, lines


async def _entries(angelos: Angelos, after: int, *, follow: bool) -> AsyncIterator[AuditEntry]:
    pause = 0.2
    while True:
        page = await angelos.audit.entries(after=after, limit=_PAGE)
        for entry in page:
            after = entry.index
            yield entry
        if not page:
            if not follow:
                return
            await asyncio.sleep(pause)


def _print(out: Out, entry: AuditEntry) -> None:
    if out.as_json:
        out.json(entry)
        return
    fact = entry.fact
    outcome = f" ({fact['outcome']})" if fact.get("outcome") else ""
    at = when(float(fact.get("at", 0)))
    click.echo(
        f"{entry.index:>6}  {at}  {fact.get('kind', ''):<22} {fact.get('subject', '')}"
        f"{outcome}  by {fact.get('actor', '')}"
    )


def _verify_file(name: str, key: bytes | None, note: str) -> Report:
    from angelos.governance.verify import verify as check

    with _opened(name) as lines:
        return check(lines, key, note)


def _last_note(name: str) -> str:
    from angelos.governance.verify import last_note

    with _opened(name) as lines:
        return last_note(lines)


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Iterable[bytes]]:
    from angelos.core.errors import InvalidInput

    try:
        with Path(name).open("rb") as file:
            yield file
    except OSError as error:
        raise InvalidInput(f"{name} cannot be read: {error.strerror}.") from error


def _key(out: Out, given: str | None) -> bytes | None:
    from angelos.adapters.host.datadir import DataDir
    from angelos.adapters.identity.keys import load_or_create
    from angelos.client.settings import find_data_dir
    from angelos.core.errors import InvalidInput

    if given is not None:
        if not _KEY.fullmatch(given):
            raise InvalidInput(f"{given!r:.80} is not a key: 64 hex digits.")
        return bytes.fromhex(given)
    path = DataDir(out.data_dir or find_data_dir()).keys / "log.key"
    return load_or_create(path).public.raw if path.exists() else None
