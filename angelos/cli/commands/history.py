"""Commands of `angelos repo` about history, and about branches of one's own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from angelos.cli.commands.proposal import BAD, describe
from angelos.cli.commands.proposal import revert as revert_proposal
from angelos.cli.lookup import only_repo
from angelos.cli.options import common, quiet
from angelos.cli.output import FAILED, Out, printable, table, when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from angelos.client import Angelos
    from angelos.core.api import ProposalView
    from angelos.core.history import (
        BlamedLines,
        BlameView,
        CommitMade,
        CommitSummary,
        FileDiff,
        HistoryPage,
    )
    from angelos.core.repository import BranchHead

_repo = click.option("--repo", metavar="NAME", help="The repository, where there are several.")


@click.command()
@_repo
@click.option("--branch", metavar="REV", default="main", help="A branch or revision [main].")
@click.option("--path", metavar="PATH", default="", help="Only commits that change this file.")
@click.option("--after", metavar="NEXT", default="", help="The next page: what --json names next.")
@click.option("-n", "--limit", type=click.IntRange(1, 500), default=20, show_default=True)
@click.option("--merges", is_flag=True, help="Follow all parents of merges.")
@quiet
@common
def log(  # noqa: PLR0913 - click passes each option
    out: Out,
    *,
    repo: str | None,
    branch: str,
    path: str,
    after: str,
    limit: int,
    merges: bool,
    quiet: bool,
) -> None:
    """List the commits of main, or of another branch, newest first.

    Of a merge only the first parent is followed, or with --merges all of them.
    """

    async def look(angelos: Angelos) -> HistoryPage:
        repository = angelos.repos[await only_repo(angelos, repo)]
        return await repository.log(branch, limit, after=after, path=path, merges=merges)

    page = out.ask(look)
    if quiet:
        out.ids(commit.id for commit in page.commits)
        return
    rows = [
        (c.id[:12], when(c.at / 1000), c.authors[0], _origin(c), c.message[:60])
        for c in page.commits
    ]
    text = table(("revision", "time", "author", "origin", "message"), rows)
    more = f"\nMore: --after {page.next}" if page.next else ""
    out.show(page, text + more)


@click.command()
@click.argument("before", metavar="BEFORE", required=False)
@click.argument("after", metavar="AFTER", required=False)
@click.option("--path", metavar="PATH", default="", help="Only this file or folder.")
@_repo
@common
def diff(out: Out, before: str | None, after: str | None, path: str, repo: str | None) -> None:
    """Show how AFTER differs from BEFORE: files by line, notebooks by cell.

    Each is a branch, a revision or its unique beginning. Without AFTER it is what BEFORE itself
    changed; without both what dev has that main has not.
    """

    async def look(angelos: Angelos) -> tuple[FileDiff, ...]:
        repository = angelos.repos[await only_repo(angelos, repo)]
        if before is None:
            return await repository.diff("main", "dev", path)
        if after is not None:
            return await repository.diff(before, after, path)
        (commit,) = (await repository.log(before, 1)).commits
        return await repository.diff(commit.parents[0] if commit.parents else "", commit.id, path)

    changes = out.ask(look)
    shown = [line for change in changes for line in _shown(change)]
    out.show({"changes": changes}, "\n".join(map(printable, shown)) or "Nothing differs.")


@click.command()
@click.argument("path", metavar="PATH")
@click.option("--revision", metavar="REV", default="main", help="A branch or revision [main].")
@_repo
@common
def blame(out: Out, path: str, revision: str, repo: str | None) -> None:
    """Show who wrote each line of the file PATH: person or agent, proposal or task.

    Lines keep their writer through merges, renames and cherry-picks.
    """

    async def look(angelos: Angelos) -> BlameView:
        return await angelos.repos[await only_repo(angelos, repo)].blame(path, revision)

    view = out.ask(look)
    commits = {commit.id: commit for commit in view.commits}
    lines = [line for group in view.groups for line in _blamed(group, commits[group.commit])]
    out.show(view, table(("revision", "author", "origin", "line", "text"), lines))


@click.command()
@click.argument("name", metavar="NAME", required=False)
@click.option("--at", metavar="REV", help="Make it at REV, or move it there [main].")
@click.option("-d", "--delete", is_flag=True, help="Delete it.")
@click.option("-f", "--force", is_flag=True, help="Move it although it is there already.")
@_repo
@quiet
@common
def branch(
    out: Out,
    *,
    name: str | None,
    at: str | None,
    delete: bool,
    force: bool,
    repo: str | None,
    quiet: bool,
) -> None:
    """List branches, or make, move or delete your own branch NAME.

    main moves to what was tested and dev by acceptance; every other branch is moved by whoever made
    it, and by nobody else.
    """
    if name is None:
        if at or delete or force:
            raise click.UsageError("Name the branch.")
        _list_branches(out, repo, quiet=quiet)
        return

    async def change(angelos: Angelos) -> BranchHead | None:
        repository = angelos.repos[await only_repo(angelos, repo)]
        heads = {head.name: head for head in await repository.branches()}
        head = heads.get(name)  # pyright: ignore[reportArgumentType] - a name, or none of them
        if head is None or not (delete or force):
            return None if delete else await repository.create_branch(name, at or "main")
        if delete:
            await repository.delete_branch(name, expected=head.revision)
            return head
        return await repository.move_branch(name, at or "main", expected=head.revision)

    head = out.ask(change)
    if head is None:
        out.show({"deleted": None}, f"There is no branch {name}.")
    elif delete:
        out.show({"deleted": head}, f"{name} was at {head.revision}, and is deleted.")
    else:
        out.show(head, f"{name} is at {head.revision}.")


def _list_branches(out: Out, repo: str | None, *, quiet: bool) -> None:
    async def look(angelos: Angelos) -> tuple[BranchHead, ...]:
        return await angelos.repos[await only_repo(angelos, repo)].branches()

    heads = out.ask(look)
    if quiet:
        out.ids(head.name for head in heads)
        return
    rows = [(head.name, head.revision[:12], head.owner or "") for head in heads]
    out.table(("branch", "revision", "owner"), rows, {"branches": heads})


@click.command("cherry-pick")
@click.argument("revision", metavar="REV")
@click.option("--onto", metavar="BRANCH", default="main", help="Your own branch, or main [main].")
@_repo
@common
def cherry_pick(out: Out, revision: str, onto: str, repo: str | None) -> None:
    """Do again what the commit REV changed, on main or on a branch of your own.

    For main it is proposed, and tested and approved like any change. Blame still names who wrote
    it.
    """

    async def pick(angelos: Angelos) -> ProposalView | CommitMade:
        repository = angelos.repos[await only_repo(angelos, repo)]
        if onto == "main":
            return await (await repository.cherry_pick(revision)).view()
        return await repository.pick(revision, onto)

    answer = out.ask(pick)
    if hasattr(answer, "branch"):
        out.show(answer, f"{answer.branch} is at {answer.revision}.")  # pyright: ignore[reportAttributeAccessIssue]
        return
    out.show(answer, describe(answer))  # pyright: ignore[reportArgumentType]
    sys.exit(FAILED if answer.state in BAD else 0)  # pyright: ignore[reportAttributeAccessIssue]


def _origin(commit: CommitSummary) -> str:
    """Return the proposal, task or commit from which a commit comes."""
    keys = ("Proposal", "Task", "Picked-From", "Rollback-To")
    return next((value[:18] for key in keys if (value := commit.trailer(key))), "")


def _blamed(group: BlamedLines, commit: CommitSummary) -> Iterator[tuple[str, ...]]:
    for number, line in enumerate(group.lines, group.start):
        place = f"{group.cell}:{number}" if group.cell else str(number)
        # The table would fold blanks; indentation matters here.
        text = line.rstrip("\n").replace(" ", "\N{NO-BREAK SPACE}")
        yield (commit.id[:12], commit.authors[0], _origin(commit), place, text)


def _shown(change: FileDiff) -> list[str]:
    """Return the lines that show one file."""
    what = "added" if change.before is None else "removed" if change.after is None else "changed"
    lines = [f"{what} {change.path}"]
    if change.to:
        lines = [f"moved {change.path} -> {change.to}"]
    if all(change.modes):
        lines.append(f"  mode {change.modes[0]} -> {change.modes[1]}")
    lines += change.diff.splitlines()
    if change.cut:
        lines.append("  (the rest of the difference is not shown)")
    return lines


COMMANDS = (log, diff, blame, branch, cherry_pick, revert_proposal)
