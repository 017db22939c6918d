"""Runs without namespaces, for trusted code only: Landlock, seccomp and limits, nothing more.

Used where user namespaces are missing and the operator has set `allow_unsandboxed`. Files are
protected by Landlock (the task sees the system and its own folders, and writes in a scratch
folder of its own), but processes, the network's addresses and host names are the host's.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from angelos.core.errors import Unavailable
from angelos.node.sandbox.launch import NOBODY, Started, link, reachable
from angelos.node.sandbox.layout import Bind
from angelos.node.sandbox.scratch import Leftovers

_CREATE_RULESET, _ASK_VERSION = 444, 1


def landlock_abi() -> int:
    """Return the kernel's Landlock version, 0 if there is none (landlock_create_ruleset(2))."""
    return max(ctypes.CDLL(None).syscall(_CREATE_RULESET, 0, 0, _ASK_VERSION), 0)


class BareLauncher:
    """Starts `shim.py` as a plain process; the same methods as `Launcher`."""

    bare = True

    def __init__(self, folders: Leftovers) -> None:
        """Take who makes scratch folders; as root, be nobody where he can reach Python."""
        self._folders = folders
        self._shim = str(Path(__file__).with_name("shim.py"))
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
            await loop.run_in_executor(self._thread, self._folders.remove, Path(folder))

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True)

    def _start(self) -> Started:
        try:
            scratch = self._folders.make()
        except OSError as error:
            raise Unavailable(f"There is no room for the program's files: {error}") from error
        ours, theirs = link()
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
            self._folders.remove(scratch)
            raise Unavailable(f"The program cannot be started: {error}") from error
        finally:
            theirs.close()
        return Started(process, ours, (str(scratch),), str(scratch))
