"""Endless work ends only by its owner, and no task of ours runs without one."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path

import pytest

from angelos.adapters.host import endless as module
from angelos.adapters.host.endless import FAILURES, endless
from angelos.testing import eventually

ROOT = Path(module.__file__).parents[3]


async def test_work_that_fails_or_returns_is_said_and_done_again(monkeypatch, caplog):
    monkeypatch.setattr(module, "PAUSES_S", (0.0, 0.0))
    before, calls = FAILURES["sweeping"], []

    async def sweep():
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a fault of ours")
        if len(calls) > 2:
            await asyncio.Event().wait()

    task = endless("sweeping", sweep)
    await eventually(lambda: len(calls) == 3, "a third start")
    assert FAILURES["sweeping"] == before + 2
    said = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert len(said) == 2
    assert "a fault of ours" in caplog.text
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(calls) == 3


async def test_the_cancellation_of_what_it_waits_for_is_no_order_to_end(monkeypatch):
    monkeypatch.setattr(module, "PAUSES_S", (0.0,))
    before, calls = FAILURES["waiting"], []

    async def wait():
        calls.append(1)
        shared = asyncio.get_running_loop().create_future()
        if len(calls) == 1:
            shared.cancel()  # by another of those who wait for it
        await shared

    task = endless("waiting", wait)
    await eventually(lambda: len(calls) == 2 or task.done(), "a second start")
    assert FAILURES["waiting"] == before + 1
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


OWNED = {
    "angelos/adapters/host/embedded.py": "awaited by the start that began it",
    "angelos/adapters/host/endless.py": "the one that says so",
    "angelos/adapters/host/supervision.py": "awaited by the keeper, which looks at how it ended",
    "angelos/adapters/net/dial.py": "awaited; Tornado ignores cancellations",
    "angelos/adapters/net/frame_loop.py": "the connection waits for it",
    "angelos/adapters/net/websocket.py": "its end ends the channel, which its readers see",
    "angelos/adapters/stores/gather.py": "its callers have futures that it always settles",
    "angelos/angelgit/service.py": "of a task group",
    "angelos/cli/commands/hub.py": "the first that ends, ends the command",
    "angelos/cli/commands/top.py": "the first that ends, ends the command",
    "angelos/cli/commands/up.py": "the first that ends, ends the command",
    "angelos/client/angelos.py": "of a client: it is asked for again with the next call",
    "angelos/client/download.py": "awaited by the reader",
    "angelos/client/rooms.py": "its end ends the room, which its reader sees",
    "angelos/client/tasks.py": "awaited by the caller",
    "angelos/control/effect_runner.py": "an effect: retried, and of a task group",
    "angelos/dashboard/service.py": "of a notebook: it shows its own end",
    "angelos/demo/agent.py": "of the demo, which ends with it",
    "angelos/demo/world.py": "of the demo, which ends with it",
    "angelos/governance/log/service.py": "guarded: its end is said, and ends the log where it must",
    "angelos/hub/background.py": "of one connection: its failure is logged and ends it",
    "angelos/ml/registry/canary.py": "of a task group",
    "angelos/ml/registry/tuning.py": "of a task group",
    "angelos/ml/scoring.py": "of a version: it is loaded again for the next score",
    "angelos/node/broker/proxy.py": "its request waits for it",
    "angelos/node/commands/jobs.py": "of one command, whose end is reported",
    "angelos/node/commands/pauses.py": "of one run, which waits for it",
    "angelos/node/environments/store.py": "of one build, which it ends where it cannot measure",
    "angelos/node/kernels/host.py": "of one kernel, which ends with it",
    "angelos/node/sandbox/sandbox.py": "a box that is not ready is made when it is needed",
    "angelos/node/witness/service.py": "awaited by the run that it is a part of",
    "angelos/system/child.py": "copies a log until the child has closed it",
    "angelos/system/hub_bench.py": "of a benchmark",
    "angelos/system/parts.py": "awaited by the keeper",
    "angelos/system/system.py": "awaited by the start that began it",
    "angelos/testing/sandbox.py": "of tests",
    "angelos/wiring/node.py": "the first that ends, ends the node; its supervisor starts it again",
    "jupyter_ext/api/events.py": "of one reader, whose connection it closes",
    "jupyter_ext/extension.py": "the life of the system; its end is shown and probed",
    "jupyter_ext/kernels/api_socket.py": "of one reader, whose connection it closes",
    "jupyter_ext/kernels/service.py": "of one kernel, whose caller waits for it",
    "jupyter_ext/rooms/handler.py": "of one room",
    "jupyter_ext/rooms/room.py": "of one room, whose readers wait for it",
}
"""Where tasks are made without a task group, and who notices their end."""
_MAKERS = {"create_task", "ensure_future"}


def makers(source: Path) -> list[int]:
    """Return the lines on which a task is made that no task group owns."""
    lines = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            grouped = isinstance(owner, ast.Name) and owner.id in {"group", "tasks"}
            if node.func.attr in _MAKERS and not grouped:
                lines.append(node.lineno)
    return lines


def test_no_task_is_made_whose_end_nobody_notices():
    unnamed, used = [], set()
    for package in ("angelos", "jupyter_ext"):
        for source in sorted((ROOT / package).rglob("*.py")):
            name = source.relative_to(ROOT).as_posix()
            if lines := makers(source):
                used.add(name)
                if name not in OWNED:
                    unnamed.append((name, lines))
    assert unnamed == [], "use angelos.adapters.host.endless, a task group, or say who notices"
    assert OWNED.keys() == used
