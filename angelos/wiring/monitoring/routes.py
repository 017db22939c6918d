"""What monitoring asks for: `/metrics`, `/healthz`, `/readyz` at the root, `/load` in the API.

| path | who may read it | answer |
|---|---|---|
| `/healthz` | anyone | 200: the process lives and its event loop runs |
| `/readyz` | anyone | 200, or 503 with the names of the stores that do not answer |
| `/metrics` | `status:read` | Prometheus's text format |

None of them holds a secret, a person's name or anything that a person or agent wrote.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from angelos.core.api import LoadView
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route
from angelos.wiring.monitoring.families import MEDIA_TYPE


class Monitored(Protocol):
    """What these routes ask: a server or a node."""

    async def metrics(self) -> bytes:
        """Return the text for Prometheus."""
        ...

    async def ready(self) -> dict[str, str]:
        """Return the parts; raise `Unavailable` if one does not answer."""
        ...


class HealthAnswer(msgspec.Struct, frozen=True):
    """It lives."""

    status: str = "ok"


class ReadyAnswer(msgspec.Struct, frozen=True):
    """It is ready."""

    parts: dict[str, str]
    status: str = "ok"


def health_route() -> Route:
    """Return `/healthz`, which needs nothing that runs but this process."""

    async def healthz(call: Call[Nothing]) -> HealthAnswer:
        del call
        return HealthAnswer()

    return Route("GET", "/healthz", Permission.anyone, healthz, response=HealthAnswer)


def root_routes(monitor: Monitored) -> list[Route]:
    """Return the routes that lie at the root of a listener."""

    async def readyz(call: Call[Nothing]) -> ReadyAnswer:
        del call
        return ReadyAnswer(await monitor.ready())

    async def metrics(call: Call[Nothing]) -> bytes:
        del call
        return await monitor.metrics()

    return [
        health_route(),
        Route("GET", "/readyz", Permission.anyone, readyz, response=ReadyAnswer),
        Route("GET", "/metrics", Permission.status_read, metrics, media_type=MEDIA_TYPE),
    ]


class Loaded(Protocol):
    """What `/load` asks."""

    async def load(self) -> LoadView:
        """Return how busy the system is now."""
        ...


def routes(monitor: Loaded) -> list[Route]:
    """Return the routes of the control API."""

    async def load(call: Call[Nothing]) -> LoadView:
        del call
        return await monitor.load()

    return [
        Route(
            "GET",
            "/load",
            Permission.nodes_read,
            load,
            response=LoadView,
            summary="How busy the system is now",
        )
    ]
