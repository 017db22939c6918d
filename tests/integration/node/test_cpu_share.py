"""A program that has one session has its part of the processors beside one that has fifty."""

from __future__ import annotations

import asyncio

import pytest

from angelos.core.messages import Limits, Status
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, RunSpec
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import need

SINGLE = "while True: pass"
CROWD = """
import os, time
for _ in range(50):
    if os.fork() == 0:
        os.setsid()
        while True: pass
while True: pass
"""
PART = 15
"""Of how many times its own part the crowd must stay below; by sessions it would have fifty."""


async def _spend(sandbox: BubblewrapSandbox, code: str, cpu_s: float) -> Status:
    limits = Limits(wall_s=120, cpu_s=cpu_s, pids=64)
    async for event in run_session(sandbox, RunSpec(argv=(), code=code, limits=limits)):
        if isinstance(event, Exit):
            return event.status
    raise AssertionError("it has no end")


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroup", "sampler"])
async def test_one_session_beside_fifty_has_its_part(*, cgroups: bool) -> None:
    """Both lose alike to whatever else this machine does, so they are compared with each other."""
    async with BubblewrapSandbox(SandboxConfig(use_cgroups=cgroups, ready_boxes=0)) as sandbox:
        need(sandbox.tier in ("full", "reduced"), f"no boxes here: {sandbox.reasons}")
        need(not cgroups or sandbox.tier == "full", "no control groups here")
        crowd = asyncio.create_task(_spend(sandbox, CROWD, PART))
        single = asyncio.create_task(_spend(sandbox, SINGLE, 1))
        try:
            done, _ = await asyncio.wait({crowd, single}, return_when=asyncio.FIRST_COMPLETED)
            assert done == {single}
            assert single.result() is Status.cpu
        finally:
            for run in (crowd, single):
                run.cancel()
            await asyncio.gather(crowd, single, return_exceptions=True)
