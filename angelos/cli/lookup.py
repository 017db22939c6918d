"""What a command names by a prefix of its id, or leaves out where there is only one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from angelos.client import Angelos
    from angelos.client.proposals import Proposal
    from angelos.client.tasks import Task

MANY = 500
_FEW = 4
"""So many characters name something, as in git; fewer could name it by chance."""
_SHOWN = 4


def pick(prefix: str, ids: Iterable[str], kind: str, hint: str = "") -> str:
    """Return the one id that is or starts with `prefix`, given with or without its `prop-`.

    Raises:
        NotFound: There is none; with `hint`.
        InvalidInput: There are several, or `prefix` is too short.
    """
    from angelos.core.errors import InvalidInput, NotFound

    candidates = sorted(set(ids))
    if prefix in candidates:
        return prefix
    if len(_tail(prefix) if "-" in prefix else prefix) < _FEW or prefix == kind[:_FEW]:
        raise InvalidInput(f"{prefix!r} is too short to name a {kind}.", hint="Type more.")
    matches = [i for i in candidates if i.startswith(prefix) or _tail(i).startswith(prefix)]
    if not matches:
        raise NotFound(f"There is no {kind} {prefix!r}.", hint=hint)
    if len(matches) > 1:
        some = ", ".join(matches[:_SHOWN]) + (", ..." if len(matches) > _SHOWN else "")
        raise InvalidInput(
            f"{prefix!r} stands for {len(matches)} {kind}s: {some}.", hint="Type more."
        )
    return matches[0]


def _tail(identifier: str) -> str:
    return identifier.partition("-")[2]


async def only_repo(angelos: Angelos, name: str | None) -> str:
    """Return `name`, or the only repository; raise `InvalidInput` when there are several."""
    from angelos.core.errors import InvalidInput, NotFound

    if name:
        return name
    names = [repo.name for repo in await angelos.repos.list()]
    if not names:
        raise NotFound("There is no repository yet.", hint="Make one: angelos repo import DIR.")
    if len(names) > 1:
        raise InvalidInput(f"There are several: {', '.join(names)}.", hint="Name one with --repo.")
    return names[0]


async def full_revision(angelos: Angelos, repo: str, name: str) -> str:
    """Return the revision that a branch, or the unique beginning of a revision, stands for."""
    from angelos.core.ids import is_revision

    if name in {"main", "dev"} or is_revision(name):
        return name
    page = await angelos.repos[repo].log(name, 1)
    return page.commits[0].id


async def find_proposal(angelos: Angelos, beginning: str) -> Proposal:
    """Return the proposal whose id starts with `beginning`."""
    from angelos.core.ids import is_id

    if is_id(beginning):  # a whole one may be older than those that are listed
        return angelos.proposals[beginning]
    newest = [view.id for view in await angelos.proposals.list(limit=MANY)]
    return angelos.proposals[pick(beginning, newest, "proposal", "See angelos proposal list.")]


async def find_task(angelos: Angelos, beginning: str) -> Task:
    """Return the task whose id starts with `beginning`."""
    from angelos.core.ids import is_id

    if is_id(beginning):
        return angelos.tasks[beginning]
    newest = [view.id for view in await angelos.tasks.list(limit=MANY)]
    return angelos.tasks[pick(beginning, newest, "task", "See angelos task list.")]
