"""A plain run over any sandbox that has sessions."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.messages import Status
from angelos.core.ports import SandboxSession, SessionSandbox
from angelos.core.runs import EvidenceSource, Exit, Output, RunSpec
from angelos.core.sessions import SessionSpec


async def run_session(
    sandbox: SessionSandbox,
    spec: SessionSpec | RunSpec,
    ended: Callable[[SandboxSession], Awaitable[None]] | None = None,
    beside: Callable[[SandboxSession], AbstractAsyncContextManager[None]] | None = None,
) -> AsyncIterator[Output | Exit]:
    """Start a program that nobody talks to; yield output as it comes and one `Exit` last.

    Closing the iterator ends the program. Where no box can be had the only event is an `Exit` that
    says `denied` and why.

    Args:
        sandbox: Where to run it.
        spec: What to run; not `interactive`, since nothing could end its input.
        ended: Called when the program has ended and its box is still there.
        beside: What is done while the program runs; it is left before the box is.

    Raises:
        InvalidInput: The spec is wrong.
        Busy: The sandbox has no room now.
    """
    if isinstance(spec, RunSpec):
        spec = SessionSpec(run=spec)
    if spec.interactive:
        raise InvalidInput("A run has nobody who would end its input.")
    try:
        session = await sandbox.start(spec)
    except Unavailable as error:
        evidence: dict[str, object] = {"source": EvidenceSource.node, "reason": str(error)}
        evidence |= {"hint": error.hint} if error.hint else {}
        yield Exit(
            status=Status.denied,
            exit_code=None,
            duration_s=0.0,
            tier=sandbox.tier,
            evidence=evidence,
        )
        return
    async with session, contextlib.AsyncExitStack() as stack:
        if beside is not None:
            await stack.enter_async_context(beside(session))
        async for output in session.output():
            yield output
        end = await session.wait()
        if ended is not None:
            await ended(session)
        yield end
