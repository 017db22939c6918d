"""Runs the health command of a new checkout, in the sandbox, in the checkout's folder."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Checkout, Status
from angelos.core.ports import SessionSandbox
from angelos.core.run_session import run_session
from angelos.core.runs import EvidenceSource, Exit, Output, RunSpec
from angelos.node.sandbox.layout import WORK

_TAIL = 4096


class HealthResult(msgspec.Struct, frozen=True):
    """How the health command ended; `detail` is the last part of its output."""

    status: Status
    detail: str
    evidence: dict[str, Any]


async def check(sandbox: SessionSandbox, folder: Path, checkout: Checkout) -> HealthResult:
    """Run the health command; without one a verified revision is healthy."""
    if not checkout.health:
        return HealthResult(Status.ok, "", {})
    spec = RunSpec(
        argv=checkout.health, limits=checkout.limits, read_only={WORK: str(folder)}, chdir=WORK
    )
    tail, end = b"", None
    async with aclosing(cast("Any", run_session(sandbox, spec))) as events:
        async for event in events:
            match event:
                case Output(data=data):
                    tail = (tail + data)[-_TAIL:]
                case Exit():
                    end = event
    if end is None:
        raise Unavailable("The sandbox ended without reporting how.")
    if end.status is Status.denied and end.evidence.get("source") == EvidenceSource.node:
        # No box could be made: that says something about this node, nothing about the revision.
        raise Unavailable(str(end.evidence.get("reason", "The sandbox refused the command.")))
    return HealthResult(end.status, tail.decode(errors="replace"), dict(end.evidence))
