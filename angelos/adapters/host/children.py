"""Child processes that are known by id and start time, never by name.

The kernel may give a process id to another program later; together with the start time of
`/proc/<pid>/stat` it names one process for ever.

    child = spawn([binary, "--option"], log=path, end_with=signal.SIGTERM)
    record = (child.pid, start_ticks(child.pid))
    await end_recorded(*record)     # also in a later run, after a `kill -9` of this one
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from angelos.adapters.host import exec_child
from angelos.core.errors import Unavailable

IDENTITY = "ANGELOS_SYSTEM_ID"
"""In the environment of each process of a system: the id of its data directory."""
_STAT_START_TIME = 19  # field 22 of /proc/<pid>/stat, counted after the command's name


def start_ticks(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot; None if it ended or is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in {b"Z", b"X"} else int(fields[_STAT_START_TIME])


def belongs_to(pid: int, identity: str) -> bool:
    """Return whether a process was started for the data directory with this id.

    A copy of a data directory has the records of the original's processes, which must live.
    """
    try:
        environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"{IDENTITY}={identity}".encode() in environ


async def ended(pid: int) -> None:
    """Wait until a process has ended, our child or not (`pidfd_open(2)`)."""
    loop = asyncio.get_running_loop()
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    done = asyncio.Event()
    loop.add_reader(handle, done.set)
    try:
        await done.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def end_recorded(
    pid: int,
    ticks: int,
    how: signal.Signals = signal.SIGTERM,
    timeout_s: float = 10.0,
    identity: str = "",
) -> bool:
    """End the process that was recorded as (pid, ticks), with `how`, then SIGKILL.

    With `identity`, only if it was started for that data directory.

    Returns False, and signals nothing, if that process has ended already. Raises `Unavailable` if
    it does not even end when killed: the files that it has open must not be opened twice.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # A pidfd is bound to one process, so after this check it cannot mean another.
        if start_ticks(pid) != ticks or (identity and not belongs_to(pid, identity)):
            return False
        for sign, wait_s in ((how, timeout_s), (signal.SIGKILL, timeout_s)):
            try:
                signal.pidfd_send_signal(handle, sign)
            except ProcessLookupError:
                return True
            if await _ended(handle, pid, ticks, wait_s):
                return True
        raise Unavailable(
            f"Process {pid}, left by an earlier run, does not end.",
            hint="It may wait for a disk; end it, then try again.",
        )
    finally:
        os.close(handle)


async def _ended(handle: int, pid: int, ticks: int, wait_s: float) -> bool:
    # A zombie has ended: only its parent's wait() is missing.
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        ready = await asyncio.to_thread(select.select, [handle], [], [], 0.25)
        if ready[0] or start_ticks(pid) != ticks:
            return True
    return False


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    end_with: signal.Signals,
    uid: int = 0,
    binds: Sequence[tuple[str, str]] = (),
    cwd: str = "/",
    identity: str = "",
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, with an almost empty environment.

    When the *thread* that calls this ends, the kernel sends the child `end_with`: call it from
    the thread that runs the loop. `uid` 0 means the present user; see `exec_child.py` for `binds`.
    `identity` is the id of the data directory that it works for.
    Output is appended to `log`.
    """
    order = {
        "parent": os.getpid(),
        "signal": int(end_with),
        "uid": uid,
        "binds": [list(bind) for bind in binds],
        "argv": list(argv),
    }
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", exec_child.__file__, json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", IDENTITY: identity},
            start_new_session=True,
        )
