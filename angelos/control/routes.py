"""Control's part of the API: thin, typed, each route with its permission.

For example:

    server_routes = routes(control)
"""

from __future__ import annotations

from typing import Any

from angelos.control import explaining
from angelos.control.identity import routes as people
from angelos.control.proposals import routes as proposals
from angelos.control.service import Control
from angelos.control.tasks import routes as tasks
from angelos.core.api import (
    NodeList,
    Ok,
    QuarantineView,
    Reason,
    Release,
    Released,
    Rollback,
    RolledBack,
    StatusView,
)
from angelos.core.errors import NotFound
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import ALL_AGENTS, Permission
from angelos.core.routes import Call, Nothing, Route


def routes(control: Control) -> list[Route]:
    """Return the routes of the control plane."""
    return [
        *_system(control),
        *_pausing(control),
        *_quarantines(control),
        *tasks.routes(control),
        *proposals.routes(control),
        *people.routes(control),
        *explaining.routes(control),
    ]


def _pausing(control: Control) -> list[Route]:
    def agent(call: Call[Reason]) -> PrincipalId:
        name = call.params.get("name")
        return ALL_AGENTS if name is None else PrincipalId(f"agent/{name}")

    async def pause(call: Call[Reason]) -> Ok:
        await control.pauses.pause(call.principal, agent(call), call.body.reason, call.trace)
        return Ok()

    async def resume(call: Call[Reason]) -> Ok:
        await control.pauses.resume(call.principal, agent(call), call.body.reason, call.trace)
        return Ok()

    may = Permission.principals_quarantine
    return [
        Route("POST", path, may, handler, request=Reason, response=Ok, summary=summary)
        for path, handler, summary in (
            ("/agents/{name}/pause", pause, "Stop what runs for an agent where it is"),
            ("/agents/{name}/resume", resume, "Let an agent go on; its budget begins anew"),
            ("/agents/pause", pause, "Stop what runs for every agent where it is"),
            ("/agents/resume", resume, "Let the agents go on that are not paused by themselves"),
        )
    ]


def _quarantines(control: Control) -> list[Route]:
    def peer(call: Call[Any]) -> PrincipalId:
        kind, name = call.params["kind"], call.params["name"]
        principal = PrincipalId(f"{kind}/{name}")
        if kind not in {"node", "agent"} or not is_principal(principal):
            raise NotFound(f"There is no {principal[:120]}.")
        return principal

    async def release(call: Call[Release]) -> Released:
        return await control.quarantines.release(
            call.principal, peer(call), new_key=call.body.new_key, trace=call.trace
        )

    async def show(call: Call[Nothing]) -> QuarantineView:
        return await control.quarantines.show(peer(call))

    path, may = "/principals/{kind}/{name}", Permission.principals_quarantine
    return [
        Route(
            "POST",
            f"{path}/release",
            may,
            release,
            request=Release,
            response=Released,
            summary="Ask to end a quarantine; the second person ends it",
        ),
        Route(
            "GET",
            f"{path}/quarantine",
            may,
            show,
            response=QuarantineView,
            summary="What a node or agent has changed, each change tried to undo",
        ),
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
