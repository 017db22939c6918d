"""What a node says of itself over HTTP, where its operator gives it an address to listen on.

    async with NodeListener("127.0.0.1:9464", monitor) as listener:
        ...                                # GET /metrics, /healthz, /readyz

It has no sign-in: it holds numbers and the version. Without an address it does not exist.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self

from tornado.httpserver import HTTPServer
from tornado.web import Application, RequestHandler

from angelos import __version__
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.facts import NodeLoad
from angelos.core.messages import Tier
from angelos.wiring.monitoring.families import MEDIA_TYPE, Sample, exposition

if TYPE_CHECKING:
    from types import TracebackType

_LAST_PORT = 65_535
_HEADER_BYTES = 16_384


class Address(NamedTuple):
    """Where to listen."""

    host: str
    port: int


def parse_address(text: str) -> Address:
    """Return the address in `HOST:PORT`.

    Raises:
        InvalidInput: It has another form.

    >>> parse_address("[::1]:9464")
    Address(host='::1', port=9464)
    """
    host, colon, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdecimal() and len(port) < 6 else -1  # noqa: PLR2004
    if not (colon and host and 0 <= number <= _LAST_PORT):
        raise InvalidInput(
            f"{text[:80]!r} is no address to serve metrics at.", hint="Write HOST:PORT."
        )
    return Address(host.strip("[]"), number)


class NodeMonitor:
    """One node's metrics.

    Args:
        measure: Returns the present load.
        connected: Whether the node is connected to the hub.
        tier: Of its boxes.
        runs: Whether it takes code in this tier.
    """

    def __init__(
        self,
        measure: Callable[[], NodeLoad],
        connected: Callable[[], bool],
        tier: Tier,
        *,
        runs: bool,
    ) -> None:
        self._measure = measure
        self._connected = connected
        self._tier = tier
        self._runs = runs

    def ready(self) -> dict[str, str]:
        """Return the parts, each `ok` or `unavailable`."""
        parts = {"hub": self._connected(), "boxes": self._runs}
        return {name: "ok" if up else "unavailable" for name, up in parts.items()}

    def metrics(self) -> bytes:
        """Return the text for Prometheus."""
        from prometheus_client import REGISTRY

        load = self._measure()
        return exposition(
            {
                "angelos_info": [Sample((__version__,), 1)],
                "angelos_hub_connected": [Sample((), int(self._connected()))],
                "angelos_isolation_tier": [Sample((self._tier,), 1)],
                "angelos_node_cpu_ratio": [Sample(("self",), load.cpu)],
                "angelos_node_memory_bytes": [Sample(("self",), load.memory_bytes)],
                "angelos_node_disk_free_bytes": [Sample(("self",), load.disk_free_bytes)],
                "angelos_node_slots": [
                    Sample(("self", "busy"), load.slots_busy),
                    Sample(("self", "free"), max(0, load.slots - load.slots_busy)),
                ],
                "angelos_node_slots_waiting": [Sample(("self",), load.slots_waiting)],
                "angelos_boxes": [
                    Sample(("self", "ready"), load.boxes_ready),
                    Sample(("self", "open"), load.boxes_open),
                ],
            },
            [REGISTRY],
        )


class _Answers(RequestHandler):
    def initialize(self, monitor: NodeMonitor) -> None:
        self.monitor = monitor

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")


class _Health(_Answers):
    def get(self) -> None:
        self.finish({"status": "ok"})


class _Ready(_Answers):
    def get(self) -> None:
        parts = self.monitor.ready()
        up = all(state == "ok" for state in parts.values())
        self.set_status(200 if up else 503)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"status": "ok" if up else "unavailable", "parts": parts}))


class _Metrics(_Answers):
    def get(self) -> None:
        self.set_header("Content-Type", MEDIA_TYPE)
        self.finish(self.monitor.metrics())


class NodeListener:
    """Serves a `NodeMonitor` at an address; `async with` owns the port.

    Raises:
        InvalidInput: The address has another form.
        Unavailable: It cannot listen there.
    """

    def __init__(self, address: str, monitor: NodeMonitor) -> None:
        self._address = parse_address(address)
        rules = [
            (path, handler, {"monitor": monitor})
            for path, handler in (
                ("/healthz", _Health),
                ("/readyz", _Ready),
                ("/metrics", _Metrics),
            )
        ]
        application = Application(rules, log_function=lambda _: None)
        self._server = HTTPServer(
            application, max_body_size=0, max_header_size=_HEADER_BYTES, idle_connection_timeout=60
        )
        self.port = 0

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        try:  # not Tornado's `bind_sockets`, which leaves a socket open when it fails
            listening = socket.create_server(self._address, family=family)
        except OSError as error:
            raise Unavailable(
                f"Metrics cannot be served at {self._address.host}, port {self._address.port}: "
                f"{error.strerror or error}."
            ) from error
        listening.setblocking(False)  # noqa: FBT003 - the standard library's
        self.port = listening.getsockname()[1]
        self._server.add_sockets([listening])
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.stop()
        await self._server.close_all_connections()
