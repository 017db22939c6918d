"""What is run for a Python task (SHAMSHEL).

Code goes to the box's interpreter over a socket, never on a command line. It is started as
`python -I`: no PYTHON* variables, no user site, output line by line, no byte code written. A
program (`argv`) is run as it is, and `python` means the node's interpreter with its packages.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.messages import RunTask
from angelos.core.runs import RunSpec
from angelos.node.runtimes.python import guard
from angelos.node.runtimes.python.guard import Finding, check
from angelos.node.sandbox.layout import TMP, WORK

INLINE = 16_384
"""Characters that are looked through in the node itself: at most some hundredths of a second."""


async def refused(task: RunTask) -> Finding | None:
    """Return why the guard refuses a task's code, if it does."""
    if not (task.guard and task.code):
        return None
    if len(task.code) <= INLINE:
        return check(task.code)
    return await _apart(task.code)


async def _apart(code: str) -> Finding | None:
    """Look through long code in a process of its own; refuse what even that cannot."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", guard.__file__, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/"
    )
    try:
        said, _ = await process.communicate(code.encode("utf-8", "surrogatepass"))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        return Finding(0, f"the code cannot be looked through in {guard.MAX_CPU_S} s")
    return msgspec.json.decode(said, type=Finding | None)


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
