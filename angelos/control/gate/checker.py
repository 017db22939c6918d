"""Inspects a patch in a process of its own: code may be written so that it cannot be parsed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import DEVNULL, PIPE

import msgspec

from angelos.control.gate.inspect import Patch, inspect
from angelos.core.findings import GateFinding, GateRule

INLINE = 16_384
"""A patch of fewer bytes is checked here: that takes some hundredths of a second at most."""
MAX_PATCH_BYTES = 16_000_000
TIMEOUT_S = 60.0


async def check_patch(patch: Patch) -> tuple[GateFinding, ...]:
    """Return what a person has to look at: also a patch that cannot be checked."""
    if sum(len(file.before or b"") + len(file.after or b"") for file in patch.files) <= INLINE:
        try:
            return inspect(patch)
        except (RecursionError, MemoryError) as error:
            return _unchecked(f"its rules ended with {type(error).__name__}")
    body = msgspec.msgpack.encode(patch)
    if len(body) > MAX_PATCH_BYTES:
        return _unchecked(f"it has more than {MAX_PATCH_BYTES} bytes")
    output = await _check_in_child(body)
    if isinstance(output, str):
        return _unchecked(output)
    try:
        return msgspec.msgpack.decode(output, type=tuple[GateFinding, ...])
    except msgspec.MsgspecError:
        return _unchecked("its rules gave no answer")


async def _check_in_child(body: bytes) -> bytes | str:
    """Return the child's answer, or why there is none."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-m",
        "angelos.control.gate.inspect",
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        cwd="/",
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate(body)
    except TimeoutError:
        return f"its rules took more than {TIMEOUT_S:g} s"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return "its rules ended at their limits" if process.returncode else output


def _unchecked(reason: str) -> tuple[GateFinding, ...]:
    return (GateFinding(rule=GateRule.unchecked, reason=f"the patch was not checked: {reason}"),)
