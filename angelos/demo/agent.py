"""An agent of the demo: a process of its own, with its own certificate, driven by JSON lines.

It reads one request a line from standard input and answers with one line:

    {"op": "propose", "repo": "study", "base": "main", "edits": [...], "message": "..."}
    {"op": "approve", "proposal": "prop-...", "digest": "..."}
    {"op": "run", "code": "print(1)"}

    {"ok": true, "answer": {...}}     or     {"ok": false, "problem": {...}}

It also keeps a connection for events open, and says `{"event": "cut", "problem": {...}}` when the
hub ends it for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from angelos.client import Angelos
from angelos.core.errors import AngelError, Forbidden, InvalidInput, Unauthenticated
from angelos.core.ids import START
from angelos.core.repository import Edit


def say(line: dict[str, Any]) -> None:
    """Print one line of JSON."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def answer(angelos: Angelos, request: dict[str, Any]) -> Any:
    """Carry out one request and return what the API answered."""
    match request.get("op"):
        case "propose":
            edits = msgspec.convert(request["edits"], type=list[Edit])
            proposal = await angelos.proposals.create(
                request["repo"], edits, base=request["base"], message=request["message"]
            )
            return await proposal.view()
        case "approve":
            return await angelos.proposals[request["proposal"]].approve(request["digest"])
        case "run":
            return await angelos.tasks.run(request["code"])
        case op:
            raise InvalidInput(f"This agent does not know {op!r}.")


async def watch(angelos: Angelos) -> None:
    """Follow the events until the hub refuses us, and say so."""
    try:
        async for _ in angelos.events(after=START, kinds=("principal.quarantined",)):
            pass
    except (Unauthenticated, Forbidden) as error:
        say({"event": "cut", "problem": error.problem()})


async def main(folder: Path) -> None:
    """Serve requests from standard input until it ends."""
    loop = asyncio.get_running_loop()
    async with Angelos.with_certificate(folder) as angelos:
        watcher = asyncio.create_task(watch(angelos))
        try:
            say({"ready": True})
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                try:
                    reply = msgspec.to_builtins(await answer(angelos, json.loads(line)))
                    say({"ok": True, "answer": reply})
                except AngelError as error:
                    say({"ok": False, "problem": error.problem()})
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
