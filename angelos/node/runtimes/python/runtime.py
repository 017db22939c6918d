"""Builds the run of a Python task.

The box's interpreter receives code over a socket, never on a command line. It runs as `python -I`:
no PYTHON* variables, no user site, output line by line, no byte code written. A program (`argv`)
runs as it is; `python` means the node's interpreter with its packages.
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
"""Longer code is checked in a process of its own; this much takes some hundredths of a second."""


async def refused(task: RunTask) -> Finding | None:
    """Return why the guard refuses a task's code, or None."""
    if not (task.guard and task.code):
        return None
    if len(task.code) <= INLINE:
        return check(task.code)
    return await _check_in_child(task.code)


async def _check_in_child(code: str) -> Finding | None:
    """Check long code in a process of its own; refuse code that cannot be checked within limits."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", guard.__file__, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/"
    )
    try:
        output, _ = await process.communicate(code.encode("utf-8", "surrogatepass"))
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        return Finding(0, f"the code cannot be checked in {guard.MAX_CPU_S} s")
    return msgspec.json.decode(output, type=Finding | None)


def spec_for(task: RunTask, checkout: Path | None) -> RunSpec:
    """Return the run of a task, in its checkout if there is one; raise `InvalidInput`."""
    if not task.code and not task.argv:
        raise InvalidInput("A task has code or argv.")
    return RunSpec(
        argv=task.argv,
        code=task.code or None,
        stdin=task.stdin,
        limits=task.limits,
        read_only={WORK: str(checkout)} if checkout is not None else {},
        chdir=WORK if checkout is not None else TMP,
    )
