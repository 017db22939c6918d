"""The clock of a running system jumps; its own nodes are back within a minute (libfaketime)."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from pathlib import Path

import pytest

from angelos.adapters.identity.enrolment import Identity
from angelos.client import Angelos
from angelos.core.errors import AngelError
from angelos.testing import need
from tests.acceptance.up_process import Up

LIBRARY = Path(f"/usr/lib/{platform.machine()}-linux-gnu/faketime/libfaketime.so.1")
BACK_S = 60.0
HOUR = 3600
JUMPS = (13, 48, -1)
"""Hours, one after the other: to be renewed, expired, and set back."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    """A file with the offset of the system's clock."""
    need(LIBRARY.exists(), "libfaketime (Debian's package faketime)")
    return tmp_path_factory.mktemp("clock") / "offset"


@pytest.fixture(scope="module")
def system(clock, tmp_path_factory):
    """A system all of whose Python processes have the clock of the file."""
    clock.write_text("+0\n")
    # libfaketime 0.9.10 makes clock_nanosleep(2) of an absolute time fail: Python's time.sleep.
    site = clock.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import select, time\ntime.sleep = lambda s: select.select([], [], [], s)\n"
    )
    prefix = (
        "env", f"LD_PRELOAD={LIBRARY}", f"FAKETIME_TIMESTAMP_FILE={clock}",
        "FAKETIME_DONT_FAKE_MONOTONIC=1", "FAKETIME_CACHE_DURATION=1", f"PYTHONPATH={site}",
    )  # fmt: skip
    up = Up(tmp_path_factory.mktemp("system") / "data", prefix=prefix)
    try:
        up.until("ready")
        yield up
    finally:
        up.close()


def _renewed(up, offset):
    """Return whether the certificate of each node has half of its life before it."""
    now = time.time() + offset
    folders = [up.data.node(name) for name in ("exec1", "labs1")]
    return all(Identity.load(folder).not_after > now + 11 * HOUR for folder in folders)


async def _until_all_work(up, offset):
    """Wait until both nodes have new certificates and are connected, and a task has run."""
    while True:
        with contextlib.suppress(AngelError, TimeoutError):
            async with Angelos.connect(up.data.root) as angelos, asyncio.timeout(5):
                nodes = await angelos.nodes.list()
                if all(node.connected for node in nodes) and _renewed(up, offset):
                    result = await angelos.tasks.run("print('on time')")
                    if result.stdout == "on time\n":
                        return
        await asyncio.sleep(0.2)


@pytest.mark.slow
async def test_its_own_nodes_are_back_within_a_minute_of_each_jump(system, clock):
    offset = 0
    await _until_all_work(system, offset)
    for hours in JUMPS:
        offset += hours * HOUR
        clock.with_suffix(".new").write_text(f"{offset:+d}\n")
        clock.with_suffix(".new").replace(clock)
        async with asyncio.timeout(BACK_S):
            await _until_all_work(system, offset)
    assert system.process.poll() is None
