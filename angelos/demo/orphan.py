"""Run `angelos up` for a demo, and end it when the demo ends, even by `kill -9`.

    python -m angelos.demo.orphan DEMO_PID DATA_DIR [--temporary]

Started by `adapters/host/exec_child.py`, so the kernel sends it SIGTERM when the demo is gone, and
`up` then ends all that it started in good order. A temporary data directory, which nobody else
would remove now, is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from angelos.adapters.host import exec_child
from angelos.adapters.host.trees import remove_tree


def argv(data_dir: str, *, temporary: bool) -> list[str]:
    """Return the command with which the running process starts it."""
    me = [sys.executable, "-m", "angelos.demo.orphan", str(os.getpid()), data_dir]
    order = {
        "parent": os.getpid(),
        "signal": int(signal.SIGTERM),
        "uid": 0,
        "binds": [],
        "argv": [*me, "--temporary"] if temporary else me,
    }
    return [sys.executable, "-I", "-S", exec_child.__file__, json.dumps(order)]


def main(demo: int, data_dir: str, *, temporary: bool) -> int:
    """Run `angelos up --json`, and remove the data directory if the demo cannot.

    Returns:
        The exit code of `angelos up`.
    """
    order = {
        "parent": os.getpid(),
        "signal": int(signal.SIGTERM),
        "uid": 0,
        "binds": [],
        "argv": [sys.executable, "-m", "angelos", "up", "--json", "--data-dir", data_dir],
    }
    # SIGTERM is blocked until it can be passed on: one that comes earlier is not lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with subprocess.Popen(
            [sys.executable, "-I", "-S", exec_child.__file__, json.dumps(order)],
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM}),  # noqa: PLW1509 - one thread
        ) as up:
            signal.signal(signal.SIGTERM, lambda *_: up.terminate())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return up.wait()
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if temporary and os.getppid() != demo:
            with contextlib.suppress(OSError):
                remove_tree(Path(data_dir))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], temporary="--temporary" in sys.argv[3:]))
