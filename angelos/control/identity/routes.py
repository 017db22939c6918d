"""Routes of people and their tokens."""

from __future__ import annotations

from typing import Any

from angelos.control.service import Control
from angelos.core.api import (
    ChangePerson,
    CreatePerson,
    CreateToken,
    Ok,
    PersonList,
    PersonView,
    TokenList,
    TokenView,
)
from angelos.core.facts import (
    FactPayload,
    PersonAdded,
    PersonChanged,
    PersonRemoved,
    TokenCreated,
    TokenRevoked,
)
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route

_SMALL = 65_536


def routes(control: Control) -> list[Route]:
    """Return the routes of people and tokens."""
    return [*_people(control), *_tokens(control)]


async def _record(control: Control, call: Call[Any], payload: FactPayload, subject: str) -> None:
    fact = control.projection.fact(payload, subject, call.principal.id, trace=call.trace)
    await control.projection.append(fact)


def _people(control: Control) -> list[Route]:
    people = control.people

    async def list_people(_: Call[Nothing]) -> PersonList:
        return PersonList(people=await people.list())

    async def create(call: Call[CreatePerson]) -> PersonView:
        view = await people.create(call.body.name, call.body.role)
        await _record(control, call, PersonAdded(role=view.role), view.id)
        return view

    async def change(call: Call[ChangePerson]) -> PersonView:
        view = await people.change(call.params["name"], call.body, call.principal.id)
        changed = PersonChanged(role=view.role, new_token=call.body.new_token)
        await _record(control, call, changed, view.id)
        return view

    async def remove(call: Call[Nothing]) -> Ok:
        person = await people.remove(call.params["name"], call.principal.id)
        await _record(control, call, PersonRemoved(), person)
        return Ok()

    manage = Permission.people_manage
    made = {"request": CreatePerson, "response": PersonView, "status": 201, "max_body": _SMALL}
    changed = {"request": ChangePerson, "response": PersonView, "max_body": _SMALL}
    one = "/people/{name}"
    return [
        Route("GET", "/people", manage, list_people, response=PersonList, summary="All people"),
        Route(
            "POST", "/people", manage, create, summary="Add a person; shows the token once", **made
        ),
        Route("PUT", one, manage, change, summary="Change a person's role or token", **changed),
        Route(
            "DELETE",
            one,
            manage,
            remove,
            response=Ok,
            summary="Remove a person; what they signed in and started ends",
        ),
    ]


def _tokens(control: Control) -> list[Route]:
    tokens = control.people.tokens

    async def create(call: Call[CreateToken]) -> TokenView:
        body = call.body
        view = await tokens.create(
            call.principal, label=body.label, scopes=body.scopes, ttl_s=body.ttl_s
        )
        created = TokenCreated(
            token=view.id, session=view.kind, scopes=view.scopes, expires_at=view.expires_at
        )
        await _record(control, call, created, view.principal)
        return view

    async def list_tokens(call: Call[Nothing]) -> TokenList:
        return TokenList(tokens=await tokens.list(call.principal.id))

    async def revoke(call: Call[Nothing]) -> Ok:
        token = call.params["token"]
        await tokens.revoke(call.principal.id, token)
        await _record(control, call, TokenRevoked(token=token), call.principal.id)
        return Ok()

    manage = Permission.tokens_manage
    return [
        Route("GET", "/tokens", manage, list_tokens, response=TokenList, summary="Your tokens"),
        Route(
            "POST",
            "/tokens",
            manage,
            create,
            request=CreateToken,
            response=TokenView,
            status=201,
            max_body=_SMALL,
            summary="Make a token of your own, scoped and expiring; shows it once",
        ),
        Route(
            "DELETE",
            "/tokens/{token}",
            manage,
            revoke,
            response=Ok,
            summary="Void one of your tokens",
        ),
    ]
