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
    """What a language needs."""

    async def refused(self, task: RunTask) -> Finding | None:
        """Return why the language's guard refuses the code, if it does."""
        ...

    def spec_for(self, task: RunTask, checkout: Path | None) -> RunSpec:
        """Return what the sandbox is to run; with a checkout, in it.

        Raises:
            InvalidInput: The task cannot be run so.
        """
        ...


RUNTIMES: Mapping[str, Runtime] = {"python": python}
