"""The hub's part of the control API, on three mounts.

`hub_routes` is for people (Jupyter's server) and for nodes and agents; `peer_routes` for nodes and
agents only; `enrol_routes` for the enrolment listener, where nobody has a certificate yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from angelos.core.api import CreateEnrolment, Enrol, Enrolled, EnrolmentView, Ok, Reason, Renew
from angelos.core.errors import InvalidInput, NotFound
from angelos.core.ids import PrincipalId, is_principal
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Route
from angelos.hub.letter_routes import traffic_routes

if TYPE_CHECKING:
    from angelos.hub.service import Hub

_SMALL = 65_536


def hub_routes(hub: Hub) -> list[Route]:
    """Return the operations on identities."""

    async def enrolments(call: Call[CreateEnrolment]) -> EnrolmentView:
        return await hub.create_enrolment(call.body, call.principal.id)

    async def quarantine(call: Call[Reason]) -> Ok:
        principal = _peer(call)
        if not await hub.knows(principal):
            raise NotFound(f"There is no {principal}.")
        reason = call.body.reason or f"by {call.principal.id}"
        await hub.quarantine(principal, reason, by=call.principal.id)
        return Ok()

    p = Permission
    return [
        Route(
            "POST",
            "/enrolments",
            p.principals_enrol,
            enrolments,
            request=CreateEnrolment,
            response=EnrolmentView,
            status=201,
            max_body=_SMALL,
            summary="Create a single-use token by which a node or agent joins",
        ),
        Route(
            "POST",
            "/principals/{kind}/{name}/quarantine",
            p.principals_quarantine,
            quarantine,
            request=Reason,
            response=Ok,
            max_body=_SMALL,
            summary="Revoke a node's or agent's certificates and cut its connections",
        ),
        *traffic_routes(hub),
    ]


def peer_routes(hub: Hub) -> list[Route]:
    """Return the operations for nodes and agents only."""

    async def renew(call: Call[Renew]) -> Enrolled:
        return await hub.renew(call.body, call.principal)

    return [
        Route(
            "POST",
            "/renew",
            Permission.revisions_read,
            renew,
            request=Renew,
            response=Enrolled,
            max_body=_SMALL,
            summary="Renew the certificate that is used for this request",
        )
    ]


def enrol_routes(hub: Hub) -> list[Route]:
    """Return the operations of the enrolment listener."""

    async def enrol(call: Call[Enrol]) -> Enrolled:
        return await hub.enrol(call.body)

    return [
        Route(
            "POST",
            "/enrol",
            Permission.anyone,
            enrol,
            request=Enrol,
            response=Enrolled,
            status=201,
            max_body=_SMALL,
            summary="Turn a token and a signing request into a certificate",
        )
    ]


def _peer(call: Call[Any]) -> PrincipalId:
    peer = f"{call.params['kind']}/{call.params['name']}"
    if call.params["kind"] not in ("node", "agent") or not is_principal(peer):
        raise InvalidInput(f"{peer[:100]!r} is not a node or agent.")
    return PrincipalId(peer)
