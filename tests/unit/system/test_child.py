"""Child processes: logged within bounds, ended for sure, restarted a bounded number of times."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

from angelos.adapters.host.children import ended, start_ticks
from angelos.system.child import BoundedLog, Child

STUBBORN = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\ntime.sleep(600)\n"
)


def _child(tmp_path, code: str) -> Child:
    return Child("child", [sys.executable, "-c", code], dict(os.environ), tmp_path / "child.log")


async def _said(child: Child, text: str) -> None:
    async with asyncio.timeout(30):
        while text not in child.tail():  # noqa: ASYNC110 - a file says nothing
            await asyncio.sleep(0.01)


async def test_what_it_says_is_in_the_log(tmp_path):
    child = _child(tmp_path, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)")
    await child.start()
    assert await child.wait() == 3
    assert sorted(child.tail().split()) == ["err", "out"]
    assert (tmp_path / "child.log").stat().st_mode & 0o077 == 0
    await child.stop()
    assert not child.running


async def test_it_is_in_a_session_of_its_own_and_can_start_again(tmp_path):
    child = _child(tmp_path, "import os\nprint(os.getsid(0) == os.getpid())")
    for _ in range(2):
        await child.start()
        assert await child.wait() == 0
        assert child.tail() == "True"
        await child.stop()


async def test_one_that_does_not_listen_is_killed(tmp_path):
    child = _child(tmp_path, STUBBORN)
    record = await child.start()
    await _said(child, "up")
    await child.stop(grace_s=0.1)
    assert start_ticks(record.pid) is None


async def test_a_grandchild_that_holds_the_pipe_delays_nobody(tmp_path):
    code = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(p.pid, flush=True)\n"
    )
    child = _child(tmp_path, code)
    await child.start()
    await child.wait()
    grandchild = int(child.tail())
    await child.stop()
    os.kill(grandchild, 9)


def test_it_ends_with_its_parent_even_if_that_is_killed(tmp_path):
    code = (
        "import asyncio, os\nfrom pathlib import Path\n"
        "from angelos.system.child import Child\nimport sys\n"
        "async def main():\n"
        "    child = Child('c', [sys.executable, '-c', 'import time; time.sleep(600)'],"
        f" dict(os.environ), Path({str(tmp_path / 'c.log')!r}))\n"
        "    print((await child.start()).pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        parent.kill()
    asyncio.run(asyncio.wait_for(ended(pid), 30))


async def test_ended_waits_for_a_process_and_not_for_one_that_is_gone(tmp_path):
    child = _child(tmp_path, STUBBORN)
    record = await child.start()
    waiting = asyncio.create_task(ended(record.pid))
    await _said(child, "up")
    assert not waiting.done()
    await child.stop(grace_s=0)
    await asyncio.wait_for(waiting, 30)
    await ended(record.pid)


def test_a_log_stays_within_bounds(tmp_path):
    path = tmp_path / "x.log"
    log = BoundedLog(path, limit=1000)
    for n in range(500):
        log.write(f"line {n:03}\n".encode())
    log.close()
    sizes = [p.stat().st_size for p in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) <= 2000
    assert path.read_text().endswith("line 499\n")
    assert log.tail(2) == "line 498\nline 499"


def test_a_log_on_a_full_disk_keeps_its_writer_going(tmp_path):
    path = tmp_path / "x.log"
    path.symlink_to("/dev/full")
    log = BoundedLog(path)
    log.write(b"unheard\n")
    assert log.tail() == "unheard"
    log.close()


def test_a_log_that_cannot_be_turned_goes_on_on_its_page(tmp_path):
    path = tmp_path / "x.log"
    log = BoundedLog(path, limit=10)
    (tmp_path / "x.log.1").mkdir()  # in the way
    for line in (b"first\n", b"second\n", b"third\n"):
        log.write(line)
    assert log.tail() == "first\nsecond\nthird"
    log.close()
