"""`angelos up` that ends with the demo which started it, also when that was killed (`kill -9`).

    python -m angelos.cli.demo.orphan DEMO_PID DATA_DIR [--temporary]

Started by `adapters/host/exec_child.py`, so the kernel sends it SIGTERM when the demo is gone, and
`up` then ends all that it started in good order. A temporary data directory, which nobody else
would remove now, is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path

from angelos.adapters.host import exec_child
from angelos.adapters.host.trees import remove_tree


def argv(data_dir: str, *, temporary: bool) -> list[str]:
    """Return the command with which the running process starts it."""
    me = [sys.executable, "-m", "angelos.cli.demo.orphan", str(os.getpid()), data_dir]
    order = {
        "parent": os.getpid(), "signal": int(signal.SIGTERM), "uid": 0, "binds": [],
        "argv": [*me, "--temporary"] if temporary else me,
    }  # fmt: skip
    return [sys.executable, "-I", "-S", exec_child.__file__, json.dumps(order)]


def main(demo: int, data_dir: str, *, temporary: bool) -> None:
    """Run `angelos up --json`, and remove the data directory if the demo cannot."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # until `up` listens itself
    try:
        from angelos.cli import main as angelos

        angelos(["up", "--json", "--data-dir", data_dir])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if temporary and os.getppid() != demo:
            with contextlib.suppress(OSError):
                remove_tree(Path(data_dir))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], temporary="--temporary" in sys.argv[3:])
