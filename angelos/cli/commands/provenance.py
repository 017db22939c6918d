"""`angelos provenance`: where a state of main comes from, verified from an export alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, printable

if TYPE_CHECKING:
    from angelos.control.proposals.replay import ProvenanceReplay
    from angelos.governance.log.verify import Report

_SHORTEST = 8


@click.group(cls=NounGroup)
def provenance() -> None:
    """Verify where a state of main comes from."""


@provenance.command()
@click.argument("revision", metavar="REV")
@click.option("--export", "file", metavar="FILE", required=True, help="An export of the audit log.")
@click.option("--keys", metavar="FILE", help="The log's keys, as `audit keys` prints.")
@click.option("--signer", metavar="HEX", help="The key that must have signed the statements.")
@common
def verify(out: Out, *, revision: str, file: str, keys: str | None, signer: str | None) -> None:
    """Verify the provenance of REV: a revision of main, or the commit of one proposal.

    Nothing but the export is needed (`angelos audit export FILE`). The log is verified first; then
    each statement is made again from its facts: who proposed it, on which base, which tests ran on
    which node with which results, by which rule of which policy it landed, and who approved it.
    Exit code 1 if anything differs, or the log was tampered with, or holds no such revision.
    """
    if len(revision) < _SHORTEST or set(revision) - set("0123456789abcdef"):
        raise click.UsageError(f"REV is {_SHORTEST} to 64 hex digits of a revision.")
    report, replay = _replayed(revision, Path(file), keys, signer)
    problems = [p.detail for p in report.problems] + replay.problems
    if not replay.statements:
        problems.append(f"The log holds no merge of {revision}.")
    shown = {
        "ok": not problems,
        "revision": revision,
        "log": report.origin,
        "problems": problems,
        "statements": replay.statements,
    }
    out.show(shown, "\n".join(map(printable, _lines(replay, problems))))
    sys.exit(FAILED if problems else 0)


def _replayed(
    revision: str, file: Path, keys: str | None, signer: str | None
) -> tuple[Report, ProvenanceReplay]:
    import msgspec

    from angelos.control.proposals.replay import ProvenanceReplay
    from angelos.core.audit import fact_of
    from angelos.core.errors import InvalidInput
    from angelos.core.signing import VerifyKey
    from angelos.governance.log.export import ExportEntry
    from angelos.governance.log.notes import parse_vkey_lines
    from angelos.governance.log.verify import Trust
    from angelos.governance.log.verify import verify as check

    try:
        key = VerifyKey(bytes.fromhex(signer)) if signer else None
        epochs = parse_vkey_lines(Path(keys).read_text(encoding="utf-8")) if keys else ()
        replay = ProvenanceReplay(revision, key)
        with file.open("rb") as lines:
            report = check(lines, Trust(epochs=epochs))
        with file.open("rb") as lines:
            for line in lines:
                if report.ok and line.startswith(b'{"index":'):
                    entry = msgspec.json.decode(line, type=ExportEntry)
                    replay.take(fact_of(bytes(entry.body), entry.data))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The export or a key cannot be read: {error}.") from error
    return report, replay


def _lines(replay: ProvenanceReplay, problems: list[str]) -> list[str]:
    lines = [f"NOT VERIFIED: {problem}" for problem in problems]
    for made in replay.statements:
        definition = made["predicate"]["buildDefinition"]
        asked, judged = definition["externalParameters"], definition["internalParameters"]
        lines.append(f"{asked['proposal']} by {asked['author']}, in {asked['repository']}")
        for step in made["predicate"]["runDetails"]["byproducts"]:
            notes = step["annotations"]
            lines.append(
                f"  {step['name']}: {notes['status']} on {notes['node']} ({notes['tier']}), "
                f"{notes['passed']} passed, result {step['digest']['sha256'][:12]}"
            )
        approvals = ", ".join(judged["approvals"]) or "the policy"
        lines.append(f"  approved by {approvals}: rule {judged['rule']}, {judged['policy'][:12]}")
    return lines if problems else ["verified", *lines]
