"""Step 7: code that misbehaves is stopped, each kind with a status of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from angelos.core.messages import Limits, Status
from angelos.demo.world import World, expect

_SMALL = Limits(wall_s=10, cpu_s=10, memory_mb=128, pids=32, output_bytes=100_000)

_END_S = 120
"""Every task ends within this time."""

_READS = """\
import os

for path in ("/etc/shadow", "/root", "/home"):
    print(open(path).read() if os.path.isfile(path) else os.listdir(path))
"""

ATTACKS: tuple[tuple[str, str, Limits, Status], ...] = (
    (
        "reads outside its box",
        _READS,
        _SMALL,
        Status.error,
    ),
    (
        "opens a socket",
        "import socket\nsocket.create_connection(('127.0.0.1', 22), timeout=1)\n",
        _SMALL,
        Status.error,
    ),
    (
        "forks without bound",
        "import os, time\nwhile True:\n    if os.fork() == 0:\n        time.sleep(60)\n",
        _SMALL,
        Status.pids,
    ),
    (
        "allocates without bound",
        "held = []\nwhile True:\n    held.append(bytearray(8_000_000))\n",
        _SMALL,
        Status.oom,
    ),
    (
        "floods its output",
        "while True:\n    print('x' * 4000)\n",
        _SMALL,
        Status.output,
    ),
    (
        "sleeps for ever",
        "import time\nwhile True:\n    time.sleep(1)\n",
        Limits(wall_s=1.0, memory_mb=128),
        Status.timeout,
    ),
    (
        "computes for ever",
        "while True:\n    pass\n",
        Limits(wall_s=10, cpu_s=0.5, memory_mb=128),
        Status.cpu,
    ),
)

GUARDED_LINE = 2
GUARDED = "import math\nimport ctypes\nprint('never reached')\n"


async def stop_attacks(world: World) -> dict[str, Any]:
    """Run each attack, then an honest task on the same node, then what the guard refuses."""
    runs: dict[str, Any] = {}
    for name, code, limits, status in ATTACKS:
        task = await world.angelos.tasks.start(code, limits=limits, guard=False)
        async with asyncio.timeout(_END_S):
            result = await task.result()
        expect(
            result.status == status,
            f"code that {name} ends as {status}: {result.status} {result.evidence} "
            f"{result.stderr[-300:]}",
        )
        expect("root:" not in result.stdout, f"code that {name} sees nothing of the host")
        honest = await world.angelos.tasks.run("print(6 * 7)")
        expect(honest.stdout == "42\n", f"the node serves the next task: {honest}")
        runs[name] = {"task": task.id, "status": result.status, "evidence": result.evidence}
    task = await world.angelos.tasks.start(GUARDED)
    async with asyncio.timeout(_END_S):
        refused = await task.result()
    guard = refused.evidence
    expect(
        refused.status == Status.denied and guard.get("line") == GUARDED_LINE,
        f"the guard: {refused}",
    )
    expect("never" not in refused.stdout, "nothing was started")
    runs["the guard refuses"] = {"task": task.id, "status": refused.status, "evidence": guard}
    return {"tier": refused.tier, "runs": runs}
