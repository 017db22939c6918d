"""What is run for a Python task (SHAMSHEL).

Code goes to the box's interpreter over a socket, never on a command line. It is started as
`python -I`: no PYTHON* variables, no user site, output line by line, no byte code written. A
program (`argv`) is run as it is, and `python` means the node's interpreter with its packages.
"""

from __future__ import annotations

from pathlib import Path

from angelos.core.errors import InvalidInput
from angelos.core.messages import RunTask
from angelos.core.ports import RunSpec
from angelos.node.layout import TMP, WORK
from angelos.node.runtimes.python.guard import Finding, check


def refused(task: RunTask) -> Finding | None:
    """Return why the guard refuses a task's code, if it does."""
    return check(task.code) if task.guard and task.code else None


def spec_for(task: RunTask, checkout: Path | None) -> RunSpec:
    """Return what the sandbox is to run; with a checkout, in it. Raises `InvalidInput`."""
    if bool(task.code) == bool(task.argv):
        raise InvalidInput("A task has either code or argv.")
    return RunSpec(
        argv=task.argv,
        code=task.code or None,
        stdin=task.stdin,
        limits=task.limits,
        read_only={WORK: str(checkout)} if checkout is not None else {},
        chdir=WORK if checkout is not None else TMP,
    )
