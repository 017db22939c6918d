"""Ports of the loopback.

For example:

    port = free_port(8888)      # 8888, or another if that is taken
"""

from __future__ import annotations

import socket

from angelos.core.errors import Unavailable

LOOPBACK = "127.0.0.1"


def free_port(preferred: int = 0) -> int:
    """Return `preferred` if it is free on the loopback, otherwise (or for 0) any free port.

    Another program may take the port before the caller does.
    """
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise Unavailable(f"No port is free on {LOOPBACK}.")
