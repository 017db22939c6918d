"""Control's part of the API: thin, typed, each route with its permission.

For example:

    server_routes = routes(control)
"""

from __future__ import annotations

from angelos.control import explaining
from angelos.control.identity import routes as people
from angelos.control.proposals import routes as proposals
from angelos.control.service import Control
from angelos.control.tasks import routes as tasks
from angelos.core.api import (
    NodeList,
    Rollback,
    RolledBack,
    StatusView,
)
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route


def routes(control: Control) -> list[Route]:
    """Return the routes of the control plane."""
    return [
        *_system(control),
        *tasks.routes(control),
        *proposals.routes(control),
        *people.routes(control),
        *explaining.routes(control),
    ]


def _system(control: Control) -> list[Route]:
    async def status(_: Call[Nothing]) -> StatusView:
        return await control.status()

    async def nodes(_: Call[Nothing]) -> NodeList:
        return NodeList(nodes=control.nodes())

    async def rollback(call: Call[Rollback]) -> RolledBack:
        revision = await control.rollout.rollback(
            call.principal, call.params["repo"], call.body, call.trace
        )
        return RolledBack(revision=revision)

    return [
        Route(
            "GET",
            "/status",
            Permission.status_read,
            status,
            response=StatusView,
            summary="The system at a glance",
        ),
        Route(
            "GET", "/nodes", Permission.nodes_read, nodes, response=NodeList, summary="All nodes"
        ),
        Route(
            "POST",
            "/repos/{repo}/rollback",
            Permission.revisions_rollback,
            rollback,
            request=Rollback,
            response=RolledBack,
            summary="Take main back by a new commit",
        ),
    ]
