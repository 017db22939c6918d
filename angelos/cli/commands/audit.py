"""`angelos audit`: what happened, and the proof that nobody has changed the record of it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from angelos.cli.commands.witness import witness
from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, printable, when

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Sequence,
    )

    from angelos.client import Angelos
    from angelos.core.api import AuditEntry
    from angelos.governance.log.acceptance import AcceptedDamage
    from angelos.governance.log.checkpoint import KeyEpoch
    from angelos.governance.log.notes import NoteKey
    from angelos.governance.log.store import AuditStore

T = TypeVar("T")

_PAGE = 500
_EXPORT_PAGE = 100


@click.group(cls=NounGroup)
def audit() -> None:
    """Verify, read, prove and export the audit log."""


audit.add_command(witness)


@audit.command()
@click.option("--export", "export_file", metavar="FILE", help="An export; by default a fresh one.")
@click.option("--proof", "proof_file", metavar="FILE", help="Verify a proof instead.")
@click.option("--key", "keys", metavar="VKEY", multiple=True, help="A key that must have signed.")
@click.option("--keys", "key_file", metavar="FILE", help="The log's keys, as `audit keys` prints.")
@click.option("--since", metavar="FILE", help="An older export that this one must continue.")
@click.option("--witness", "witnesses", metavar="VKEY", multiple=True, help="A witness's key.")
@click.option("--quorum", type=click.IntRange(0, 16), default=0, help="How many must have signed.")
@common
def verify(out: Out, **options: Any) -> None:
    """Verify the audit log; name each entry that was changed. Exit code 1 if there is any.

    With --export or --proof nothing but the file is needed. The keys that must have signed it are
    those of --key (all of them) or of the file --keys, else the data directory's, else those in
    the file (then only its own consistency is proven). A log that was rolled back and signed again
    is valid in itself: keep an export elsewhere and give it as --since, or let a witness cosign.

    Without a file the running system's log is verified; of a system that is down, what its
    database holds.
    """
    from angelos.governance.log.verify import Trust
    from angelos.governance.log.verify import verify as check

    epochs = _trusted(out, options["keys"], options["key_file"])
    if options["proof_file"]:
        _verify_proof(out, options["proof_file"], epochs)
        return
    witnesses = [_vkey(text) for text in options["witnesses"]]
    since = options["since"]
    trust = Trust(
        epochs=epochs,
        previous=_last_note(since) if since else "",
        witnesses=witnesses,
        quorum=options["quorum"],
    )
    if options["export_file"] is None:
        with tempfile.TemporaryFile() as file:
            _export_to(out, file)
            file.seek(0)
            report = check(file, trust)
    else:
        with _opened(options["export_file"]) as lines:
            report = check(lines, trust)
    text = report.lines()
    if not epochs:
        text.append("the keys are the export's own: compare them with ones that you trust")
    out.show(report, "\n".join(map(printable, text)))
    sys.exit(0 if report.ok else FAILED)


@audit.command()
@click.argument("index", type=click.IntRange(min=0))
@click.argument("file", metavar="[FILE]", required=False)
@common
def prove(out: Out, *, index: int, file: str | None) -> None:
    """Write the proof that entry INDEX is in the signed log, a C2SP tlog-proof.

    Whoever has the log's keys verifies it offline with `angelos audit verify --proof FILE`.
    """
    from angelos.core.errors import Unavailable

    try:
        proof = out.ask(lambda angelos: angelos.audit.prove(index)).proof
    except Unavailable:
        proof = _offline(out, lambda store: _stored_proof(store, index))
    if file is None or file == "-":
        click.echo(proof, nl=False)
        return
    place = _place(file)
    from angelos.adapters.host.datadir import private_file

    with private_file(place) as target:
        target.write(proof.encode())
    out.show({"file": file, "index": index}, f"The proof of entry {index} is in {file}.")


@audit.command()
@common
def keys(out: Out) -> None:
    """Print the log's verifier keys: what somebody elsewhere needs to verify an export or a proof.

    A line for each life of the signer; the keys of a line sign together.
    """
    from angelos.governance.log.notes import vkey_lines

    epochs = _kept_keys(out)
    lines = vkey_lines(epochs).decode()
    out.show([[key.vkey for key in epoch] for epoch in epochs], lines.rstrip("\n"))


@audit.command()
@click.option("-n", "--lines", type=click.IntRange(1, 10_000), default=20, show_default=True)
@click.option("-f", "--follow", is_flag=True, help="Keep printing new entries.")
@common
def tail(out: Out, *, lines: int, follow: bool) -> None:
    """Print the last entries; with --json one object per line."""

    async def show() -> None:

        async with out.connect() as angelos:
            size = (await angelos.audit.checkpoint()).size
            async for entry in _entries(angelos, max(-1, size - lines - 1), follow=follow):
                _print(out, entry)

    asyncio.run(show())


@audit.command("accept-damage")
@click.option("--reason", required=True, metavar="TEXT", help="Why; kept in the log for good.")
@common
def accept(out: Out, *, reason: str) -> None:
    """Go on after the log was damaged; the system must be down.

    The entries that are sound begin another log with another name, the damaged one stays in the
    database as evidence, and proposals may be promoted again. Look at the damage first: `angelos
    audit verify` names it, and a backup may be better.
    """
    from angelos.adapters.host.clock import SystemClock
    from angelos.governance.log.acceptance import accept_damage

    async def work() -> AcceptedDamage:
        from angelos.wiring.offline import open_audit_database
        from angelos.wiring.settings import load

        async with open_audit_database(load(data_dir=out.data_dir)) as database:
            return await accept_damage(database, reason, SystemClock().time())

    done = asyncio.run(work())
    out.show(
        done,
        f"{done.origin} goes on with {done.size} entries; {done.left_out} are left out.\n"
        f"The damaged log {done.previous} is in the table {done.evidence}.",
    )


@audit.command("export")
@click.argument("file", metavar="[FILE]", required=False)
@common
def export_log(out: Out, file: str | None) -> None:
    """Write the whole log as JSON lines.

    FILE is created with mode 0600; without it, or with -, the log goes to standard output. Of a
    system that is down, what its last checkpoint signs for is written.
    """
    if file is None or file == "-":
        _export_to(out, sys.stdout.buffer)
        return
    from angelos.adapters.host.datadir import private_file
    from angelos.core.errors import InvalidInput

    place = _place(file)
    try:
        with private_file(place) as target:
            size, lines = _export_to(out, target)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written: {error.strerror}.") from error
    out.show({"file": file, "bytes": size, "lines": lines}, f"{lines} lines are in {file}.")


def _place(file: str) -> Path:
    from angelos.core.errors import InvalidInput

    place = Path(file).resolve()  # a link stays one
    if place.exists() and not place.is_file():  # as root one would replace a device
        raise InvalidInput(
            f"{file} is not a regular file; nothing was written.", hint="For a pipe, leave it out."
        )
    return place


def _export_to(out: Out, file: IO[bytes]) -> tuple[int, int]:
    """Write an export into a file as it comes; return its bytes and lines."""
    from angelos.core.errors import Unavailable

    async def save(pieces: AsyncGenerator[bytes, None]) -> tuple[int, int]:
        size = lines = 0
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                file.write(piece)
                size, lines = size + len(piece), lines + piece.count(b"\n")
        file.flush()
        return size, lines

    async def stored(store: AuditStore) -> tuple[int, int]:
        from angelos.governance.log.pages import export

        origin, size = await store.extent()
        return await save(export(store, origin, size, _EXPORT_PAGE))

    try:
        return out.ask(lambda angelos: save(angelos.audit.export()))
    except Unavailable:
        return _offline(out, stored)


def _offline(out: Out, ask: Callable[[AuditStore], Awaitable[T]]) -> T:
    """Return the answer of the stored log of a system that is down."""

    async def answer() -> T:
        from angelos.wiring.offline import open_audit_store
        from angelos.wiring.settings import load

        async with open_audit_store(load(data_dir=out.data_dir)) as store:
            return await ask(store)

    return asyncio.run(answer())


async def _stored_proof(store: AuditStore, index: int) -> str:
    from angelos.core.errors import NotFound

    last = await store.last()
    if last is None:
        raise NotFound("The audit log has no checkpoint yet.")
    return (await store.prove(index, last)).encoded


def _verify_proof(out: Out, name: str, epochs: list[KeyEpoch]) -> None:
    from angelos.core.audit import read_leaf
    from angelos.core.errors import InvalidInput
    from angelos.governance.log.proof import MAX_PROOF_BYTES, parse_proof

    if not epochs:
        raise InvalidInput(
            "A proof is worth nothing without the log's keys.",
            hint="Give them with --key or --keys; `angelos audit keys` prints them.",
        )
    with _opened(name) as file:
        text = b"".join(itertools.islice(file, 1_000))[: MAX_PROOF_BYTES + 1]
    proof = parse_proof(text.decode(errors="replace"))
    checkpoint = proof.verify(epochs)
    leaf = read_leaf(proof.body)
    shown = f"ok: entry {proof.index} of {checkpoint.size} in {checkpoint.origin}"
    body = printable(proof.body.decode())
    out.show(
        {"ok": True, "index": proof.index, "size": checkpoint.size, "leaf": leaf},
        f"{shown}\n{body}",
    )


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


def _last_note(name: str) -> str:
    from angelos.governance.log.verify import last_note

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


def _trusted(out: Out, given: Sequence[str], file: str | None) -> list[KeyEpoch]:
    from angelos.core.errors import InvalidInput
    from angelos.governance.log.notes import parse_vkey_lines

    if given:
        return [tuple(map(_vkey, given))]
    if file is None:
        return _kept_keys(out, missing_ok=True)
    try:
        return parse_vkey_lines(Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file} cannot be read.") from error


def _kept_keys(out: Out, *, missing_ok: bool = False) -> list[KeyEpoch]:
    from angelos.adapters.host.datadir import DataDir
    from angelos.client.settings import find_data_dir
    from angelos.core.errors import NotFound
    from angelos.governance.log.notes import parse_vkey_lines

    path = DataDir(out.data_dir or find_data_dir()).log_vkeys
    if path.exists():
        return parse_vkey_lines(path.read_text(encoding="utf-8"))
    if missing_ok:
        return []
    raise NotFound(f"{path.parent.parent} holds no audit log.", hint="Name one with --data-dir.")


def _vkey(text: str) -> NoteKey:
    from angelos.governance.log.notes import NoteKey

    return NoteKey.parse(text.strip())
