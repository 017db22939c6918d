"""Asks a new checkout whether it works: its health command, in the sandbox, in its folder."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec

from angelos.core.errors import Unavailable
from angelos.core.messages import Checkout, Status
from angelos.core.ports import Sandbox
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.sandbox.layout import WORK

_TAIL = 4096


class Health(msgspec.Struct, frozen=True):
    """What came of the health command; `detail` is the last part of its output."""

    status: Status
    detail: str
    evidence: dict[str, Any]


async def check(sandbox: Sandbox, folder: Path, wish: Checkout) -> Health:
    """Run the health command; without one a verified revision is healthy."""
    if not wish.health:
        return Health(Status.ok, "", {})
    spec = RunSpec(argv=wish.health, limits=wish.limits, read_only={WORK: str(folder)}, chdir=WORK)
    tail, end = b"", None
    async with aclosing(cast("Any", sandbox.run(spec))) as events:
        async for event in events:
            match event:
                case Output(data=data):
                    tail = (tail + data)[-_TAIL:]
                case Exit():
                    end = event
    if end is None:
        raise Unavailable("The sandbox ended without a word.")
    if end.status is Status.denied and end.evidence.get("source") == "node":
        # Says something about this node and nothing about the revision.
        raise Unavailable(str(end.evidence.get("reason", "The sandbox refused the command.")))
    return Health(end.status, tail.decode(errors="replace"), dict(end.evidence))
