"""Find the commit at which a command began to fail, by ordinary tasks.

done = await bisect(angelos, "study", ["python", "-m", "pytest", "-q"], good=old, bad="main")
done.first.id
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.history import CommitSummary
from angelos.core.ids import Revision, is_revision
from angelos.core.messages import Status

if TYPE_CHECKING:
    from angelos.client.angelos import Angelos

MAX_COMMITS = 100_000
_PAGE = 200


class Bisected(msgspec.Struct, frozen=True):
    """How a search ended."""

    first: CommitSummary | None
    """The first bad commit, None where skipped ones lie between."""
    candidates: tuple[CommitSummary, ...]
    """What it may be, oldest first."""
    tried: int


async def bisect(
    angelos: Angelos,
    repo: str,
    command: Sequence[str],
    *,
    good: str,
    bad: str = "main",
    on_step: Callable[[str], None] = lambda _: None,
) -> Bisected:
    """Return the first commit after `good` at which a command fails.

    Args:
        angelos: A client.
        repo: The repository's name.
        command: Program and arguments; they run in a checkout of each commit.
        good: A commit at which it works.
        bad: A branch or commit behind it at which it fails.
        on_step: Called with a sentence before each run.

    Raises:
        InvalidInput: `good` is not in the first-parent history of `bad`, the command works at
            `bad` or fails at `good`, or a commit of the range is only in git.
    """
    line = await _line(angelos, repo, good, bad)

    async def fails(commit: CommitSummary) -> bool | None:
        on_step(f"trying {commit.id[:12]}: {' '.join(commit.message.split())[:50]}")
        result = await angelos.tasks.run(
            argv=tuple(command), repo=repo, revision=Revision(commit.id), label="bisect"
        )
        verdicts = {Status.ok: False, Status.error: True}
        return verdicts.get(result.status)

    if await fails(line[-1]) is not True:
        raise InvalidInput(f"The command does not fail at {line[-1].id[:12]}.")
    if await fails(line[0]) is not False:
        raise InvalidInput(f"The command does not work at {line[0].id[:12]}.")
    return await search(line, fails)


async def search(
    line: Sequence[CommitSummary], fails: Callable[[CommitSummary], Awaitable[bool | None]]
) -> Bisected:
    """Return where a line of commits, good first and bad last, becomes bad."""
    low, high, tried = 0, len(line) - 1, 2
    skipped: set[int] = set()
    while True:
        open_ = [i for i in range(low + 1, high) if i not in skipped]
        if not open_:
            break
        middle = min(open_, key=lambda i: abs(2 * i - low - high))
        verdict = await fails(line[middle])
        tried += 1
        if verdict is None:
            skipped.add(middle)
        elif verdict:
            high = middle
        else:
            low = middle
    candidates = tuple(line[low + 1 : high + 1])
    return Bisected(candidates[0] if len(candidates) == 1 else None, candidates, tried)


async def _line(angelos: Angelos, repo: str, good: str, bad: str) -> list[CommitSummary]:
    """Return the commits from good to bad, oldest first."""
    handle = angelos.repos[repo]
    (first,) = (await handle.log(good, 1)).commits
    line: list[CommitSummary] = []
    async for commit in handle.history(bad):
        line.append(commit)
        if commit.id == first.id:
            break
        if len(line) > MAX_COMMITS:
            break
    if line[-1].id != first.id:
        raise InvalidInput(f"{good} is not in the history of {bad}.")
    if only := next((c.id for c in line if not is_revision(c.id)), None):
        raise InvalidInput(f"{only[:12]} is only in git; bisect begins at what was imported.")
    if len(line) < 2:  # noqa: PLR2004
        raise InvalidInput("Nothing lies between the good and the bad commit.")
    return line[::-1]
