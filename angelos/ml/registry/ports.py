"""What the registry needs of others: tasks in boxes, approved history, and what a role is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from angelos.core.ids import Revision, TaskId
from angelos.core.messages import Status
from angelos.core.permissions import Principal


class BoxedProgram(NamedTuple):
    """A program for a box, its inputs by path, and the file that it leaves."""

    argv: tuple[str, ...]
    inputs: Mapping[str, bytes]
    output: str
    label: str
    on_labs: bool = False
    """On the node that tries what is new first."""


class BoxedEnd(NamedTuple):
    """How a program ended, by what the node's kernel counted."""

    status: Status
    output: str = ""
    """SHA-256 of the file that it left; empty: none that could be taken."""
    said: str = ""
    """The end of its error output, for people to read; it decides nothing."""


class BoxedTasks(Protocol):
    """Ordinary tasks: policy, budget and box are those of every other."""

    async def start(self, caller: Principal, program: BoxedProgram) -> TaskId:
        """Submit a program as somebody's task.

        Raises:
            Forbidden: The policy does not let them run it.
            Unavailable: There is no node for it.
            Busy: Too many tasks are open.
        """
        ...

    async def end(self, task: TaskId, wait_s: float) -> BoxedEnd | None:
        """Return how a task ended, None if it runs on after so many seconds; raise `NotFound`."""
        ...

    async def read(self, sha256: str) -> bytes:
        """Return a file that a task left, with its hash checked; raise `NotFound`."""
        ...


class ApprovedText(NamedTuple):
    """Texts of one revision of `main`."""

    revision: Revision
    files: tuple[tuple[str, str], ...]
    """Paths and texts."""


class ApprovedHistory(Protocol):
    """What people have approved."""

    async def read(self, repo: str, revision: Revision | None) -> ApprovedText:
        """Return the texts of a revision that `main` has or had, by default of its head.

        Raises:
            NotFound: There is no such repository or revision.
            InvalidInput: `main` was never at this revision.
            TooLarge: There is more text than a run may learn from.
        """
        ...

    async def recent(self, limit: int) -> tuple[str, ...]:
        """Return the added text of the newest patches, decided or not: what a role is asked."""
        ...
