"""A witness's HTTP interface (C2SP tlog-witness): `POST /add-checkpoint`.

async with WitnessServer(WitnessFolder(path), host, port, clock) as server:
print(server.url)
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from typing import Self

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from angelos.core.errors import Tampered
from angelos.core.ports import Clock
from angelos.governance.witness.folder import WitnessFolder
from angelos.governance.witness.state import (
    MAX_REQUEST_BYTES,
    WitnessStatus,
    parse_witness_request,
    witness_verdict,
)

log = logging.getLogger(__name__)


class WitnessServer:
    """Serves one witness.

    Args:
        folder: Its key and what it remembers; read at the start, the logs at each request.
        host: Address to listen on.
        port: 0 for any free one.
        clock: For the times of cosignatures.
    """

    def __init__(self, folder: WitnessFolder, host: str, port: int, clock: Clock) -> None:
        self.key = folder.key()
        self._folder = folder
        self._clock = clock
        self._sockets: Sequence[socket.socket] = bind_sockets(port, host)
        address, number = self._sockets[0].getsockname()[:2]
        self.url = f"http://{address}:{number}"
        """Where it listens."""
        self._server = HTTPServer(
            Application([("/add-checkpoint", _AddCheckpoint, {"witness": self})]),
            max_body_size=MAX_REQUEST_BYTES,
            idle_connection_timeout=60,
            body_timeout=20,
        )

    async def __aenter__(self) -> Self:
        """Start to answer."""
        self._server.add_sockets(self._sockets)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hang up."""
        self._server.stop()
        await self._server.close_all_connections()

    def answer(self, body: bytes) -> tuple[WitnessStatus, str]:
        """Return the status and the text of an answer; what it cosigns is on disk before.

        Nothing else runs between the look at the last checkpoint and its replacement.
        """
        try:
            request = parse_witness_request(body)
        except Tampered as error:
            return WitnessStatus.malformed, f"{error.detail}\n"
        logs = self._folder.logs()
        last = {
            origin: checkpoint
            for origin, epochs in logs.items()
            if (checkpoint := self._folder.last(origin, epochs)) is not None
        }
        verdict = witness_verdict(request, logs, last)
        if verdict.checkpoint is None:
            if verdict.status is WitnessStatus.conflict:
                origin = request.note.partition("\n")[0]
                size = last[origin].size if origin in last else 0
                return verdict.status, f"{size}\n"
            if verdict.status is WitnessStatus.inconsistent:
                log.warning("a log asks for a cosignature and does not continue its last tree")
            return verdict.status, f"{verdict.status.name}\n"
        self._folder.remember(verdict.checkpoint.origin, request.note)
        return verdict.status, self.key.cosign(verdict.checkpoint, int(self._clock.time())).line


class _AddCheckpoint(RequestHandler):
    def initialize(self, witness: WitnessServer) -> None:
        self._witness = witness

    def post(self) -> None:
        status, text = self._witness.answer(self.request.body)
        self.set_status(status)
        plain = "text/x.tlog.size" if status is WitnessStatus.conflict else "text/plain"
        self.set_header("Content-Type", f"{plain}; charset=utf-8")
        self.finish(text)
