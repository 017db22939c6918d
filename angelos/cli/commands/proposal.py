"""`angelos proposal`: propose a change, look at it, and approve or reject it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from angelos.cli.groups import NounGroup
from angelos.cli.lookup import MANY, find_proposal, full_revision, only_repo
from angelos.cli.options import common, quiet, wait
from angelos.cli.output import FAILED, Out, printable, table, when
from angelos.cli.reading import read_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from angelos.client import Angelos
    from angelos.client.proposals import Proposal
    from angelos.core.api import CaseList, ProposalView
    from angelos.core.ids import HunkId
    from angelos.core.pending import PartChoice, Pending
    from angelos.core.repository import Edit

BAD = frozenset({"rejected", "refused", "rolled-back"})


@click.group(cls=NounGroup)
def proposal() -> None:
    """Propose changes, look at them, decide on them."""


@proposal.command()
@click.argument("file", metavar="FILE", required=False)
@click.option("--live", is_flag=True, help="Propose the live file FILE, or all that are changed.")
@click.option("--base", metavar="REV", help="What FILE is based on: main or a revision.")
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@click.option("--path", metavar="PATH", help="The path in the repository that FILE replaces.")
@click.option("-m", "--message", metavar="TEXT", help="What the change is for.")
@wait("for the decision")
@common
def create(  # noqa: PLR0913 - a parameter for each option
    out: Out,
    *,
    file: str | None,
    live: bool,
    base: str | None,
    repo: str | None,
    path: str | None,
    message: str | None,
    wait: float,
) -> None:
    """Propose FILE: the new text of PATH, or a .diff or .patch.

    A .diff or .patch may change several files, and names them itself. With --live it is what people
    have typed into the live documents: into FILE, a path in the repository, or into all of them.
    """
    if live:
        if base or path:
            raise click.UsageError("--live goes without --base and --path.")
        _create_live(out, file, repo, message, wait)
        return
    if file is None or base is None:
        raise click.UsageError("Give FILE and --base, or --live.")
    edits = _edits(file, path)
    text = message or f"Change {', '.join(edit.path for edit in edits)}"

    async def propose(angelos: Angelos) -> ProposalView:
        name = await only_repo(angelos, repo)
        revision = await full_revision(angelos, name, base)
        proposal = await angelos.repos[name].propose(edits, base=revision, message=text)
        return await _settled(proposal, wait)

    view = out.ask(propose)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in BAD else 0)


def _create_live(
    out: Out, path: str | None, repo: str | None, message: str | None, wait: float
) -> None:
    """Propose what is in live documents."""
    paths = (path,) if path else ()
    text = message or f"Change {path or 'what people have typed'}"

    async def propose(angelos: Angelos) -> ProposalView:
        name = await only_repo(angelos, repo)
        return await _settled(await angelos.repos[name].propose_live(paths, message=text), wait)

    view = out.ask(propose)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in BAD else 0)


@proposal.command("list")
@click.option("--state", default="", help="Only those in this state, such as waiting.")
@click.option("--repo", default="", help="Only those of this repository.")
@click.option("--author", default="", help="Only those of this principal, such as agent/ada.")
@click.option("--after", default="", metavar="ID", help="Only those older than proposal ID.")
@click.option("--limit", type=click.IntRange(1, MANY), default=50, show_default=True)
@quiet
@common
def list_proposals(out: Out, *, quiet: bool, **query: Any) -> None:
    """List proposals, newest first, and say how many there are in all."""
    page = out.ask(lambda angelos: angelos.proposals.page(**query))
    views = page.proposals
    if quiet:
        out.ids(view.id for view in views)
        return
    rows = [(v.id, v.state, v.author, v.repo, v.message[:48], v.reason[:60]) for v in views]
    text = table(("proposal", "state", "author", "repository", "message", "reason"), rows)
    if page.next:
        text += f"\n{len(rows)} of {page.total}; more with --after {page.next}"
    out.show(page, text if rows else "There are no such proposals.")


@proposal.command()
@click.argument("proposal", metavar="ID")
@common
def show(out: Out, proposal: str) -> None:
    """Show proposal ID: its changes line by line, however long they are, and its tests.

    The last line of a long one is what `approve --shown` takes. A unique prefix of the ID is
    enough.
    """

    async def look(angelos: Angelos) -> tuple[ProposalView, str]:
        handle = await find_proposal(angelos, proposal)
        view = await handle.view()
        return await _whole(handle, view) if view.long and view.commit else (view, "")

    view, shown = out.ask(look)
    parts = [describe(view), *(change.diff.rstrip("\n") for change in view.changes)]
    for step in view.steps:
        parts.append(f"step {step.name}: {step.status}, {step.seconds:.2f} s")
        if step.status != "ok" and step.output:
            parts.append(step.output.rstrip("\n"))
    if shown:
        parts.append(f"shown: {shown}")
    out.show(view, "\n".join(map(printable, "\n".join(parts).splitlines())))


async def _whole(handle: Proposal, view: ProposalView) -> tuple[ProposalView, str]:
    """Return a proposal with its whole change, and what an approval of it needs."""
    import msgspec

    from angelos.core.repository import Change

    texts: dict[str, Change] = {}
    shown = ""
    async for page in handle.diff():
        for change in page.changes:
            before = texts[change.path].diff if change.path in texts else ""
            texts[change.path] = msgspec.structs.replace(change, diff=before + change.diff)
        shown = page.shown
    return msgspec.structs.replace(view, changes=tuple(texts.values())), shown


_FILE = click.Path(dir_okay=False, writable=True, allow_dash=True)


@proposal.command()
@click.argument("proposal", metavar="ID")
@click.option("--junit", type=_FILE, help="Write the tests as JUnit XML; - for the screen.")
@click.option("--sarif", type=_FILE, help="Write the findings as SARIF 2.1.0; - likewise.")
@common
def tests(out: Out, proposal: str, junit: str | None, sarif: str | None) -> None:
    """Show each test of proposal ID, how it ended, and how it ended before, newest first.

    A unique prefix of the ID is enough.
    """
    if junit == sarif == "-":
        raise click.UsageError("One of --junit and --sarif may be -.")

    async def look(angelos: Angelos) -> tuple[CaseList, bytes, bytes]:
        handle = await find_proposal(angelos, proposal)
        return (
            await handle.tests(),
            await handle.junit() if junit else b"",
            await handle.sarif() if sarif else b"",
        )

    cases, xml, findings = out.ask(look)
    for name, content in ((junit, xml), (sarif, findings)):
        if name:
            with click.open_file(name, "wb") as file:
                file.write(content)
    if "-" not in {junit, sarif}:
        out.show(cases, case_table(cases))


def case_table(cases: CaseList) -> str:
    """Return tests for people to read."""
    rows = [
        (c.step, printable(c.case), c.outcome or "-", f"{c.seconds:.2f}", " ".join(c.history))
        for c in cases.cases
    ]
    text = table(("step", "test", "outcome", "seconds", "history"), rows)
    if cases.missing:
        text += f"\nOf {', '.join(cases.missing)} the single results are in the audit log only."
    return text if rows or cases.missing else "It has no tests yet."


_CELLS = click.option("--cell", "cells", multiple=True, metavar="CELL", help="Only this cell.")
_HUNKS = click.option("--hunk", "hunks", multiple=True, metavar="HUNK", help="Only this hunk.")


@proposal.command()
@click.argument("proposal", metavar="ID")
@common
def hunks(out: Out, proposal: str) -> None:
    """List the hunks of proposal ID, where they are in the live text, and what does not fit.

    The first column is what `accept --hunk` and `reject --hunk` take, or a unique prefix of it.
    """

    async def look(angelos: Angelos) -> Pending:
        return await (await find_proposal(angelos, proposal)).pending()

    pending = out.ask(look)
    lines = [printable(line) for line in hunk_lines(pending)]
    out.show(pending, "\n".join(lines))


@proposal.command()
@click.argument("proposal", metavar="ID")
@click.option("--comment", default="", help="A comment on it; kept in the audit log.")
@_CELLS
@_HUNKS
@common
def accept(
    out: Out, proposal: str, comment: str, cells: tuple[str, ...], hunks: tuple[str, ...]
) -> None:
    """Let proposal ID, exactly as it is now, into the live documents.

    People see it in their open notebooks at once. It becomes part of main after its tests, and is
    approved by this if you may approve it. With --cell or --hunk, each as often as needed, a part
    of it enters as a proposal of its own, and the rest stays open. A unique prefix of the ID is
    enough.
    """

    async def accept(angelos: Angelos) -> ProposalView:
        handle = await find_proposal(angelos, proposal)
        digest = (await handle.view()).digest
        return await handle.accept(digest, comment, part=await _part(handle, cells, hunks))

    view = out.ask(accept)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in BAD else 0)


@proposal.command()
@click.argument("proposal", metavar="ID")
@click.option("--reason", default="", help="Why; part of the new proposal's message.")
@common
def revert(out: Out, proposal: str, reason: str) -> None:
    """Propose to take proposal ID back, around everybody's later work.

    The answer is a new proposal, which is tested and approved like any other; reverting that one
    brings the edits back. A unique prefix of the ID is enough.
    """

    async def ask(angelos: Angelos) -> ProposalView:
        return await (await find_proposal(angelos, proposal)).revert(reason)

    view = out.ask(ask)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in BAD else 0)


@proposal.command()
@click.argument("proposal", metavar="ID")
@click.option("--comment", default="", help="A comment on it; kept in the audit log.")
@click.option("--whole", is_flag=True, help="Show the whole change first, however long it is.")
@click.option("--shown", default="", metavar="WORD", help="What `show` of a long one ended with.")
@wait("until it is part of main")
@common
def approve(out: Out, *, proposal: str, comment: str, whole: bool, shown: str, wait: float) -> None:
    """Approve proposal ID, exactly as it is now.

    One that is longer than what lists show is approved only by who was shown the whole of it: with
    --whole, or with the word that `angelos proposal show ID` ends with. A unique prefix of the ID
    is enough.
    """

    async def approve(angelos: Angelos) -> ProposalView:
        handle, word = await find_proposal(angelos, proposal), shown
        view = await handle.view()
        if whole and view.state == "waiting":
            read, word = await _whole(handle, view)
            text = "\n".join(change.diff.rstrip("\n") for change in read.changes)
            click.echo("\n".join(map(printable, text.splitlines())), err=True)
        view = await handle.approve(view.digest, comment, shown=word)
        return await _settled(handle, wait) if wait and view.state == "approved" else view

    view = out.ask(approve)
    out.show(view, describe(view))
    sys.exit(FAILED if view.state in BAD else 0)


@proposal.command()
@click.argument("proposal", metavar="ID")
@click.option("--comment", default="", help="Why; kept in the audit log.")
@_CELLS
@_HUNKS
@common
def reject(
    out: Out, proposal: str, comment: str, cells: tuple[str, ...], hunks: tuple[str, ...]
) -> None:
    """Reject proposal ID; a unique prefix of it is enough.

    With --cell or --hunk, each as often as needed, only that part of it; the rest is tested again,
    and approvals are asked for again.
    """

    async def reject(angelos: Angelos) -> ProposalView:
        handle = await find_proposal(angelos, proposal)
        digest = (await handle.view()).digest
        return await handle.reject(digest, comment, part=await _part(handle, cells, hunks))

    view = out.ask(reject)
    out.show(view, describe(view))


def describe(view: ProposalView) -> str:
    """Return a proposal for people to read."""
    lines = [f"{view.id}  {view.state}  {view.message}"]
    if view.reason:
        lines.append(f"  {view.reason}")
    if view.needs:
        lines.append(f"  needs {view.needs} more approval{'s' if view.needs > 1 else ''}")
    if view.revision:
        lines.append(f"  main is {view.revision}")
    lines += [f"  {change.path}" for change in view.changes]
    if view.steps:
        rows = [(s.name, s.status, f"{s.seconds:.1f} s", s.task) for s in view.steps]
        steps = table(("step", "status", "time", "task"), rows)
        lines += [f"  {line}" for line in steps.splitlines()]
    if view.at:
        lines.append(f"  {when(view.at)}, by {view.author}, digest {view.digest[:12]}")
    return "\n".join(lines)


def hunk_lines(pending: Pending) -> list[str]:
    """Return a proposal's hunks for people to read, one below the other."""
    lines: list[str] = []
    for hunk in pending.hunks:
        place = f"{hunk.path} cell {hunk.cell}" if hunk.cell else hunk.path
        where = f", line {hunk.at}" if hunk.at else ""
        lines.append(f"{hunk.id}  {hunk.state}  {hunk.kind}  {place}{where}")
        lines += [f"  - {row}" for row in hunk.before.splitlines()]
        lines += [f"  + {row}" for row in hunk.after.splitlines()]
    for conflict in pending.conflicts:
        place = f"{conflict.path} cell {conflict.cell}" if conflict.cell else conflict.path
        lines.append(f"does not fit any more: {place}, which is now")
        lines += [f"  | {row}" for row in conflict.current.splitlines()]
    return lines or ["It has no hunks."]


async def _part(
    handle: Proposal, cells: tuple[str, ...], hunks: tuple[str, ...]
) -> PartChoice | None:
    """Return the part that options name; None for the whole."""
    if not cells and not hunks:
        return None
    return part_named(await handle.pending(), cells, hunks)


def part_named(pending: Pending, cells: Sequence[str], hunks: Sequence[str]) -> PartChoice:
    """Return the part of a proposal that ids of cells and prefixes of hunks name."""
    from angelos.core.errors import InvalidInput
    from angelos.core.pending import PartChoice

    pairs: list[tuple[str, str]] = []
    for cell in cells:
        places = {(h.path, h.cell) for h in pending.hunks if cell and h.cell == cell}
        if len(places) != 1:
            problem = "is in several notebooks" if places else "is not in this proposal"
            raise InvalidInput(f"Cell {cell!r} {problem}.", hint="Name its hunks with --hunk.")
        pairs += places
    ids: list[HunkId] = []
    for prefix in hunks:
        matching = {h.id for h in pending.hunks if prefix and h.id.startswith(prefix)}
        if len(matching) != 1:
            raise InvalidInput(
                f"{prefix!r} names {len(matching)} hunks of this proposal.",
                hint="`angelos proposal hunks ID` lists them.",
            )
        ids += matching
    return PartChoice(cells=tuple(pairs), hunks=tuple(ids))


async def _settled(proposal: Proposal, wait: float) -> ProposalView:
    """Return a proposal once it is settled, or as it is after `wait` seconds."""
    if not wait:
        return await proposal.view()
    try:
        async with asyncio.timeout(wait):
            return await proposal.settled()
    except TimeoutError:
        return await proposal.view()


def _edits(file: str, path: str | None) -> tuple[Edit, ...]:
    from angelos.cli.patches import split
    from angelos.core.errors import InvalidInput
    from angelos.core.paths import safe_path
    from angelos.core.repository import NewText

    source = Path(file)
    text = read_text(file)
    if source.suffix in {".diff", ".patch"}:
        if path is not None:
            raise InvalidInput("A patch names its paths itself; leave --path out.")
        return split(text)
    if path is None and source.is_absolute():
        raise InvalidInput(f"Which file is {file} a new text of?", hint="Name it with --path.")
    return (NewText(path=safe_path(source.as_posix() if path is None else path), text=text),)
