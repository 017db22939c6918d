"""Sockets that a boxed kernel makes, as the server may connect to them.

ZeroMQ follows symbolic links, and a link in the kernel's folder could lead it to any socket of the
host. So the server connects in a folder of its own, into which each socket of the kernel is linked
(link(2) follows no link) and looked at where the kernel can no longer exchange it.

    box                          server
    /run/angelos/s/k-1  -------> dialed/k-1     if it is a socket of the box's user
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

_FIRST_S, _LATER_S = 0.01, 0.2
_FIRST_TRIES = 1000


def clear(names: Iterable[str], *folders: Path) -> None:
    """Remove what an earlier kernel left; there is no kernel at present."""
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for name in names:
                with contextlib.suppress(OSError):  # a folder stays, and is no socket
                    os.unlink(name, dir_fd=descriptor)
        finally:
            os.close(descriptor)


def take(name: str, sockets: int, dialed: int, owner: int) -> bool | None:
    """Link one socket of a kernel into the server's folder.

    Args:
        name: The socket.
        sockets: A descriptor of the kernel's folder.
        dialed: A descriptor of the server's folder.
        owner: The user of the box.

    Returns:
        Whether it is a socket of the box's user; None while there is nothing.
    """
    try:
        os.link(name, name, src_dir_fd=sockets, dst_dir_fd=dialed, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError:  # a folder, something on another file system
        return False
    info = os.stat(name, dir_fd=dialed, follow_symlinks=False)
    if stat.S_ISSOCK(info.st_mode) and info.st_uid == owner:
        return True
    os.unlink(name, dir_fd=dialed)
    return False


async def take_all(
    names: Sequence[str], sockets: Path, dialed: Path, owner: int, refused: set[str]
) -> None:
    """Link the sockets as they appear; return once all are there.

    Args:
        names: The sockets.
        sockets: The kernel's folder.
        dialed: The server's folder.
        owner: The user of the box.
        refused: Takes the names at which there is something else.
    """
    folders = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (sockets, dialed)]
    try:
        missing, tries = list(names), 0
        while missing:
            outcomes = {name: take(name, folders[0], folders[1], owner) for name in missing}
            refused.update(name for name, outcome in outcomes.items() if outcome is False)
            missing = [name for name, outcome in outcomes.items() if not outcome]
            tries += 1
            await asyncio.sleep(_FIRST_S if tries < _FIRST_TRIES else _LATER_S)
    finally:
        for descriptor in folders:
            os.close(descriptor)
