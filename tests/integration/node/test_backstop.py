"""A box ends at its wall limit although its node is stopped, and with a node that is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

NODE = """
import asyncio, os, signal
from angelos.core.messages import Limits
from angelos.core.runs import RunSpec
from angelos.core.sessions import SessionSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox


async def main():
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        run = RunSpec(
            argv=(), code="import time; time.sleep(300)", limits=Limits(wall_s={wall_s})
        )
        async with await sandbox.start(SessionSpec(run=run)) as session:
            print(session._box.task, sandbox._backstop._process.pid, flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
            print((await session.wait()).status, flush=True)


asyncio.run(main())
"""
_PATIENCE_S = 30


def ended(pidfd: int) -> bool:
    return bool(select.select([pidfd], [], [], _PATIENCE_S)[0])


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def node(request: pytest.FixtureRequest):
    code = NODE.replace("{wall_s}", str(request.param))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        box, backstop = map(int, process.stdout.readline().split())
        pidfds = os.pidfd_open(box), os.pidfd_open(backstop)
        try:
            yield process, *pidfds
        finally:
            process.kill()
            for pidfd in pidfds:
                os.close(pidfd)


@pytest.mark.parametrize("node", [1], indirect=True)
def test_a_box_ends_in_time_although_its_node_is_stopped(node) -> None:
    process, box, _ = node
    assert ended(box)
    assert state(process.pid) == "T", "the node has had no part in it"
    process.send_signal(signal.SIGCONT)
    assert process.stdout.read() == "timeout\n"
    assert process.wait() == 0


@pytest.mark.parametrize("node", [600], indirect=True)
def test_the_backstop_ends_with_a_node_that_is_killed(node) -> None:
    process, box, backstop = node
    process.kill()
    assert ended(box)
    assert ended(backstop)
