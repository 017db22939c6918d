"""Keeps the promise of the embedded Valkey's append-only file, in a thread of its owner.

    keeper = AofKeeper(Path("valkey/appendonlydir"), Path("valkey.sock"))
    keeper.start()
    ...
    keeper.stop()

Once a second it calls `fdatasync` (decision 4), and while the disk is nearly full it has the server
refuse writes: Valkey acknowledges the write that fills a disk, from memory, and then loses it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)
EVERY_S = 1.0
MIN_FREE = 64 << 20
"""Bytes; more than our own writers put on the disk in a second."""
_ANSWER_S = 5.0


def free_bytes(folder: Path) -> int:
    """Return how many bytes are free on the file system of `folder`."""
    return shutil.disk_usage(folder).free


def sync(path: Path) -> None:
    """Flush a file's content to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


def stamp_of(server: Path) -> Path:
    """Return the file beside a server's socket whose time is that of the last flush.

    It lies in the directory for sockets, which is memory on most machines, and says to other
    processes how long ago the last second was safe.

    >>> stamp_of(Path("/run/user/1000/angelos/valkey.sock"))
    PosixPath('/run/user/1000/angelos/valkey.synced')
    """
    return server.with_suffix(".synced")


class AofKeeper:
    """One thread for one server; `start` once, `stop` once.

    Args:
        folder: where the append-only files lie.
        server: the server's Unix socket.
        sync: flushes one file; tests pass their own.
        free: returns the free bytes of a folder's file system.
    """

    def __init__(
        self,
        folder: Path,
        server: Path,
        *,
        sync: Callable[[Path], None] = sync,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._folder = folder
        self._server = server
        self._sync = sync
        self._free = free
        self._stamp = stamp_of(server)
        self._refusing: bool | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="valkey-aof", daemon=True)

    def start(self) -> None:
        """Begin; the server may still be starting."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            try:
                self._check_space()
                paths = list(self._folder.glob("*.incr.aof"))
                for path in paths:
                    self._flush(path)
                if paths:
                    with contextlib.suppress(OSError):  # the directory for sockets was removed
                        self._stamp.touch()
            except OSError as error:  # tried again in a second
                log.warning("what Valkey has written may not be on the disk: %s", error)
            if self._stopping.wait(EVERY_S):
                return

    def _flush(self, path: Path) -> None:
        try:
            self._sync(path)
        except FileNotFoundError:  # rewritten meanwhile
            return

    def _check_space(self) -> None:
        """Have the server refuse writes while the disk is nearly full, and accept them after."""
        refuse = self._free(self._folder.parent) < MIN_FREE
        if refuse == self._refusing or not self._server.exists():
            return
        # Valkey has no switch for it, but a server that misses replicas refuses writes with the
        # code NOREPLICAS.
        command = f"CONFIG SET min-replicas-to-write {int(refuse)}\r\n"
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_ANSWER_S)
                link.connect(str(self._server))
                link.sendall(command.encode())
                accepted = link.recv(64) == b"+OK\r\n"
        except OSError:  # not started yet, or ended
            return
        if accepted:
            if refuse:
                log.error("The disk of %s is nearly full; no facts are accepted.", self._folder)
            elif self._refusing:
                log.warning("The disk of %s has room again.", self._folder)
            self._refusing = refuse
