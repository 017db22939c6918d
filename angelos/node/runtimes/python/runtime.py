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
from angelos.core.python_argv import read_argv, sources
from angelos.core.runs import RunSpec
from angelos.node.runtimes.python import guard
from angelos.node.runtimes.python.guard import Finding, check, policy_for
from angelos.node.sandbox.layout import TMP, WORK

INLINE = 16_384
"""Longer code is checked in a process of its own; this much takes some hundredths of a second."""


async def refused(
    task: RunTask, checkout: Path | None = None, inputs: Path | None = None
) -> Finding | None:
    """Return why the guard refuses a task's program, or None.

    It reads code, and what a plain command line of python runs: code again, standard input, or a
    file of the task. What the policy has let through in another form runs unread.
    """
    if not task.guard:
        return None
    source = task.code or await asyncio.to_thread(_source, task, checkout, inputs)
    if not source:
        return None
    if len(source) <= INLINE:
        return check(source, policy_for(network=bool(task.network)))
    return await _check_in_child(source, network=bool(task.network))


def _source(task: RunTask, checkout: Path | None, inputs: Path | None) -> str | bytes:
    """Return the source of the program that a command line runs; empty if there is none."""
    program = read_argv(task.argv)
    if program is None or program.kind == "code":
        return program.text if program is not None else ""
    if program.kind == "stdin":
        return task.stdin
    for inside, path in sources(program, checkout=checkout is not None):
        folder = checkout if inside else inputs
        if folder is not None and (folder / path).is_file():
            with (folder / path).open("rb") as file:
                return file.read(guard.MAX_BYTES + 1)
    return ""


async def _check_in_child(code: str | bytes, *, network: bool) -> Finding | None:
    """Check long code in a process of its own; refuse code that cannot be checked within limits."""
    words = (type(code).__name__, "network" if network else "")
    command = (sys.executable, "-I", guard.__file__, *words)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, cwd="/"
    )
    try:
        output, _ = await process.communicate(
            code.encode("utf-8", "surrogatepass") if isinstance(code, str) else code
        )
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
