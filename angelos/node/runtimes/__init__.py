"""One room for each language: how a task's code becomes a program in the box.

A runtime is a module with the two functions of `Runtime`; `RUNTIMES` names it by its language.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from angelos.core.messages import RunTask
from angelos.core.runs import RunSpec
from angelos.node.runtimes.python import runtime as python
from angelos.node.runtimes.python.guard import Finding


class Runtime(Protocol):
    """What a node needs to know of a language."""

    async def refused(self, task: RunTask) -> Finding | None:
        """Return why the language's guard refuses a task's code, or None."""
        ...

    def spec_for(self, task: RunTask, checkout: Path | None) -> RunSpec:
        """Return the run of a task, in its checkout if there is one.

        Raises:
            InvalidInput: the task has neither code nor a program, or both.
        """
        ...


RUNTIMES: Mapping[str, Runtime] = {"python": python}
