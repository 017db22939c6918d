"""Runs without namespaces, for trusted code only: Landlock, seccomp and limits, nothing more.

Used where user namespaces are missing and the operator has set `allow_unsandboxed`. Files are
protected by Landlock (the task sees the system and its own folders, and writes in a scratch
folder of its own), but processes, the network's addresses and host names are the host's.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from angelos.core.errors import Unavailable
from angelos.node.launch import NOBODY, Started, link, reachable
from angelos.node.layout import Bind

_CREATE_RULESET, _ASK_VERSION = 444, 1


def landlock_abi() -> int:
    """Return the kernel's Landlock version, 0 if there is none (landlock_create_ruleset(2))."""
    return max(ctypes.CDLL(None).syscall(_CREATE_RULESET, 0, 0, _ASK_VERSION), 0)


class BareLauncher:
    """Starts `inside.py` as a plain process; the same methods as `Launcher`."""

    bare = True

    def __init__(self) -> None:
        """As root, be nobody where he can reach the interpreter."""
        self._shim = str(Path(__file__).with_name("inside.py"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="angelos-bare")
        needed = (sys.executable, sys.prefix, sys.base_prefix, self._shim)
        self._drop = os.geteuid() == 0 and all(reachable(p, NOBODY, NOBODY) for p in needed)

    async def start(self, binds: tuple[Bind, ...], own: tuple[Bind, ...], disk_mb: int) -> Started:
        """Start one process in a scratch folder of its own; nothing is bound, nothing sized."""
        del binds, own, disk_mb
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._start)

    async def release(self, staged: tuple[str, ...]) -> None:
        """Remove the scratch folder."""
        loop = asyncio.get_running_loop()
        for folder in staged:
            with contextlib.suppress(FileNotFoundError):
                await loop.run_in_executor(self._thread, shutil.rmtree, folder)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _start(self) -> Started:
        ours, theirs = link()
        scratch = tempfile.mkdtemp(prefix="angelos-task-")
        user = NOBODY if self._drop else None
        if self._drop:
            os.chown(scratch, NOBODY, NOBODY)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", self._shim, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"LANG": "C.UTF-8"},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except OSError as error:
            ours.close()
            shutil.rmtree(scratch)
            raise Unavailable(f"The program cannot be started: {error}") from error
        finally:
            theirs.close()
        return Started(process, ours, (scratch,), scratch)
