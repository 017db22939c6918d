"""Runs programs without namespaces, for trusted code only: Landlock, seccomp and limits.

Used where user namespaces are missing and the operator has set `allow_unsandboxed`. Landlock
protects files (the task reads the system and its own folders, and writes in a scratch folder of
its own), but processes, network addresses and host names are those of the host.
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
from angelos.node.sandbox.launch import NOBODY, LaunchedBox, link, reachable
from angelos.node.sandbox.layout import Bind, BoxShape
from angelos.node.sandbox.scratch import ScratchFolders

_CREATE_RULESET, _VERSION_FLAG = 444, 1


def landlock_abi() -> int:
    """Return the kernel's Landlock version, 0 if there is none (landlock_create_ruleset(2))."""
    return max(ctypes.CDLL(None).syscall(_CREATE_RULESET, 0, 0, _VERSION_FLAG), 0)


class UnsandboxedLauncher:
    """Starts `shim.py` as a plain process; has the methods of `Launcher`."""

    def __init__(self, folders: ScratchFolders) -> None:
        """Give each task one of `folders`; as root, run as nobody where nobody can reach Python."""
        self._folders = folders
        self._shim = str(Path(__file__).with_name("shim.py"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="angelos-unsandboxed")
        needed = (sys.executable, sys.prefix, sys.base_prefix, self._shim)
        self._drop = os.geteuid() == 0 and all(reachable(p, NOBODY, NOBODY) for p in needed)

    async def start(self, binds: tuple[Bind, ...], shape: BoxShape) -> LaunchedBox:
        """Start one process in a scratch folder of its own; without namespaces nothing is bound."""
        del binds, shape
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

    def _start(self) -> LaunchedBox:
        try:
            scratch = self._folders.make()
        except OSError as error:
            raise Unavailable(f"There is no room for the program's files: {error}") from error
        node_end, shim_end = link()
        user = NOBODY if self._drop else None
        if self._drop:
            os.chown(scratch, NOBODY, NOBODY)
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", self._shim, str(shim_end.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"LANG": "C.UTF-8"},
                pass_fds=(shim_end.fileno(),),
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )
        except OSError as error:
            node_end.close()
            self._folders.remove(scratch)
            raise Unavailable(f"The program cannot be started: {error}") from error
        finally:
            shim_end.close()
        return LaunchedBox(process, node_end, (str(scratch),), str(scratch))
