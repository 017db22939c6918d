"""What the hub serves on its two ports: TLS contexts, routes and WebSockets.

For example:

    listeners = bind(pki, config)               # the addresses are known from here on
    async with Hub(HubParts(listeners=listeners, ...)) as hub:
        serve(hub, routes)                      # `routes` are the other planes'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Application, RequestHandler

from angelos.adapters.identity.authority import Pki
from angelos.adapters.net.http import (
    NoSuchRoute,
    PrincipalOf,
    mount,
    mount_at_root,
    refusal_of,
)
from angelos.adapters.net.websocket import CHANNEL_PATH
from angelos.core.openapi import openapi_route
from angelos.core.permissions import Permission, Principal
from angelos.core.routes import PREFIX, Route
from angelos.hub.config import HubConfig
from angelos.hub.handlers import ChannelSocket, EventsSocket
from angelos.hub.listener import Listener, Listeners
from angelos.hub.routes import enrol_routes, hub_routes, peer_routes
from angelos.hub.service import Hub

_PING_S = 20.0


def bind(pki: Pki, config: HubConfig) -> Listeners:
    """Return both listeners, their ports taken; raise `Unavailable` where that is impossible."""
    ways = {"public": config.public, "fixed": config.fixed}
    peers = Listener(config.host, config.port, pki.server_context(), **ways)
    try:
        enrolment = Listener(config.host, config.enrol_port, pki.enrolment_context(), **ways)
    except BaseException:
        peers.release()
        raise
    return Listeners(peers, enrolment)


def serve(hub: Hub, routes: Sequence[Route] = (), at_root: Sequence[Route] = ()) -> None:
    """Accept connections of nodes and agents, and serve them these routes and the hub's own.

    Args:
        hub: The hub.
        routes: The other planes', below `/angelos/api`.
        at_root: For monitoring; the enrolment listener has those that anyone may read.
    """

    async def principal_of(request: HTTPServerRequest) -> Principal:
        principal = (await hub.peer_of(request)).principal
        hub.count_request(principal.id)
        return principal

    def record(handler: RequestHandler) -> None:
        refusal = refusal_of(handler, "hub")
        if refusal is not None:
            hub.refusals.record(refusal)

    served = [*routes, *hub_routes(hub), *peer_routes(hub)]
    served.append(openapi_route([*served, *enrol_routes(hub)]))
    rules = [
        (CHANNEL_PATH, ChannelSocket, {"hub": hub}),
        (f"{PREFIX}/events", EventsSocket, {"hub": hub}),
        *mount(served, principal_of),
        *mount_at_root(at_root, principal_of),
    ]
    hub.listeners.peers.serve(_application(rules, principal_of, record))
    public = [route for route in at_root if route.permission is Permission.anyone]
    open_rules = [*mount(enrol_routes(hub), _nobody), *mount_at_root(public, _nobody)]
    hub.listeners.enrolment.serve(_application(open_rules, _nobody, record))


def _application(
    rules: list[Any], principal_of: PrincipalOf, record: Callable[[RequestHandler], None]
) -> Application:
    return Application(
        rules,
        default_handler_class=NoSuchRoute,
        default_handler_args={"principal_of": principal_of},
        websocket_ping_interval=_PING_S,
        log_function=record,  # the journal and the problems' traces say more
    )


async def _nobody(request: HTTPServerRequest) -> None:
    del request
