"""Keeps the promise of the embedded Valkey's append-only file, in a thread of its owner.

    keeper = AofKeeper(Path("valkey/appendonlydir"), Path("valkey.sock"))
    keeper.start()
    ...
    keeper.stop()

Once a second it calls `fdatasync` (decision 4), and while the disk is nearly full it has the server
refuse writes: Valkey acknowledges the write that fills a disk, from memory, and then loses it.
"""

from __future__ import annotations

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
"""Bytes. What our own writers put on the disk in a second is less."""
_ANSWER_S = 5.0


def free_bytes(folder: Path) -> int:
    """Return how much may still be written where `folder` lies."""
    return shutil.disk_usage(folder).free


def sync(path: Path) -> None:
    """Put a file's content on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fdatasync(fd)
    finally:
        os.close(fd)


class AofKeeper:
    """One thread for one server; `start` once, `stop` once."""

    def __init__(
        self,
        folder: Path,
        server: Path,
        *,
        sync: Callable[[Path], None] = sync,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        """Take the folder of the append-only files and the server's socket."""
        self._folder = folder
        self._server = server
        self._sync = sync
        self._free = free
        self._refusing: bool | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="valkey-aof", daemon=True)

    def start(self) -> None:
        """Begin; the server may still be starting."""
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for that."""
        self._stopping.set()
        self._thread.join()

    def _keep(self) -> None:
        while True:
            try:
                self._look()
                for path in self._folder.glob("*.incr.aof"):
                    self._put(path)
            except OSError as error:  # tried again in a second
                log.warning("what Valkey has written may not be on the disk: %s", error)
            if self._stopping.wait(EVERY_S):
                return

    def _put(self, path: Path) -> None:
        try:
            self._sync(path)
        except FileNotFoundError:  # rewritten meanwhile
            return

    def _look(self) -> None:
        """Have the server refuse writes, or take them again, as the disk has room."""
        refuse = self._free(self._folder.parent) < MIN_FREE
        if refuse == self._refusing or not self._server.exists():
            return
        # There is no switch for it, but a server that misses replicas takes no writes.
        command = f"CONFIG SET min-replicas-to-write {int(refuse)}\r\n"
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_ANSWER_S)
                link.connect(str(self._server))
                link.sendall(command.encode())
                taken = link.recv(64) == b"+OK\r\n"
        except OSError:  # not started yet, or gone
            return
        if taken:
            if refuse:
                log.error("The disk of %s is nearly full; no facts are taken.", self._folder)
            elif self._refusing:
                log.warning("The disk of %s has room again.", self._folder)
            self._refusing = refuse
