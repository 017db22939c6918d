"""What the node asks of whoever keeps the files of tasks."""

from __future__ import annotations

from typing import Protocol

from angelos.core.errors import Unavailable
from angelos.core.ids import TaskId


class TaskFiles(Protocol):
    """Fetches the inputs of this node's tasks and keeps what they leave; the server, by HTTP."""

    async def fetch(self, task: TaskId, digest: str) -> bytes:
        """Return the content of an input; raise `NotFound`, `Forbidden` or `Unavailable`."""
        ...

    async def keep(self, task: TaskId, content: bytes) -> None:
        """Keep an output; raise `Busy`, `Forbidden` or `Unavailable`."""
        ...


class NoFiles:
    """A node that nobody keeps files for."""

    async def fetch(self, task: TaskId, digest: str) -> bytes:
        """Refuse."""
        raise Unavailable(f"This node has nobody to ask for {digest[:12]} of {task}.")

    async def keep(self, task: TaskId, content: bytes) -> None:
        """Refuse."""
        raise Unavailable(f"This node has nobody to keep {len(content)} bytes of {task}.")
