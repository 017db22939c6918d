"""`angelos proposals|approve|reject|rollback`: what a reviewer and an operator do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.common import Out, common, pick, table, when

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.core.api import ProposalView

_MANY = 500
_WHERE = "List them: angelos log."


@click.command()
@click.option("--state", default="", help="Only those in this state, such as waiting.")
@click.option("--repo", default="", help="Only those of this repository.")
@click.option("--limit", type=click.IntRange(1, _MANY), default=50, show_default=True)
@common
def proposals(out: Out, state: str, repo: str, limit: int) -> None:
    """List proposals, newest first."""
    views = out.ask(lambda angelos: angelos.proposals(state=state, repo=repo, limit=limit))
    rows = [
        (v.id, v.state, v.author, v.repo, v.message[:48], v.reason[:60]) for v in views
    ]  # fmt: skip
    text = table(("proposal", "state", "author", "repository", "message", "reason"), rows)
    out.show({"proposals": views}, text if rows else "There are no such proposals.")


@click.command()
@click.argument("proposal", metavar="ID")
@common
def show(out: Out, proposal: str) -> None:
    """Show proposal ID: what it changes, line by line, and how its tests went."""
    view = out.ask(lambda angelos: _find(angelos, proposal))
    parts = [describe(view), *(change.diff.rstrip("\n") for change in view.changes)]
    for step in view.steps:
        parts.append(f"step {step.name}: {step.status}, {step.seconds:.2f} s")
        if step.status != "ok" and step.output:
            parts.append(step.output.rstrip("\n"))
    lines = "\n".join(parts).splitlines()
    text = "\n".join("".join(c if c.isprintable() or c == "\t" else "?" for c in x) for x in lines)
    out.show(view, text)


@click.command()
@click.argument("proposal", metavar="ID")
@click.option("--comment", default="", help="Your words on it; kept in the audit log.")
@common
def approve(out: Out, proposal: str, comment: str) -> None:
    """Approve proposal ID (a unique beginning of it is enough), exactly as it is now."""
    _review(out, proposal, "approve", comment)


@click.command()
@click.argument("proposal", metavar="ID")
@click.option("--comment", default="", help="Why; kept in the audit log.")
@common
def reject(out: Out, proposal: str, comment: str) -> None:
    """Reject proposal ID (a unique beginning of it is enough)."""
    _review(out, proposal, "reject", comment)


@click.command()
@click.argument("revision", metavar="REV")
@click.option("--repo", metavar="NAME", help="The repository, where there are several.")
@click.option("--reason", default="", help="Why; becomes part of the commit.")
@common
def rollback(out: Out, revision: str, repo: str | None, reason: str) -> None:
    """Take main back to the files of REV (a unique beginning is enough) by a new commit."""

    async def back(angelos: Angelos) -> dict[str, str]:
        name = await only_repo(angelos, repo)
        to = await full_revision(angelos, name, revision)
        return {"repo": name, "to": to, "revision": await angelos.rollback(name, to, reason)}

    done = out.ask(back)
    out.show(done, f"main of {done['repo']} is now {done['revision']}, as it was at {done['to']}.")


async def only_repo(angelos: Angelos, name: str | None) -> str:
    """Return `name`, or the only repository; raise `InvalidInput` when there are several."""
    from angelos.core.errors import InvalidInput, NotFound

    if name:
        return name
    names = [repo.name for repo in await angelos.repos()]
    if not names:
        raise NotFound("There is no repository yet.", hint="See `angelos demo` or the tutorial.")
    if len(names) > 1:
        raise InvalidInput(f"There are several: {', '.join(names)}.", hint="Name one with --repo.")
    return names[0]


async def full_revision(angelos: Angelos, repo: str, beginning: str) -> str:
    """Return the whole revision of `main`'s history that starts with `beginning`."""
    from angelos.core.ids import is_revision

    if beginning in {"main", "dev"} or is_revision(beginning):
        return beginning
    return pick(beginning, await angelos.log(repo, "main", limit=_MANY), "revision", _WHERE)


async def _find(angelos: Angelos, beginning: str) -> ProposalView:
    from angelos.core.ids import is_id

    if is_id(beginning):  # a whole one may be older than those that are listed
        return await angelos.proposal(beginning)
    known = {str(v.id): v for v in await angelos.proposals(limit=_MANY)}
    return known[pick(beginning, known, "proposal", "List them: angelos proposals.")]


def _review(out: Out, beginning: str, word: str, comment: str) -> None:
    async def review(angelos: Angelos) -> ProposalView:
        view = await _find(angelos, beginning)
        do = angelos.approve if word == "approve" else angelos.reject
        return await do(view.id, view.digest, comment)

    view = out.ask(review)
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
