"""Routes of people."""

from __future__ import annotations

from typing import Any

from angelos.control.service import Control
from angelos.core.api import (
    CreatePerson,
    Ok,
    PersonList,
    PersonView,
)
from angelos.core.facts import FactPayload, PersonAdded, PersonRemoved
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route


def routes(control: Control) -> list[Route]:
    """Return the routes of people."""
    people = control.people

    async def record(call: Call[Any], payload: FactPayload, person: str) -> None:
        fact = control.projection.fact(payload, person, call.principal.id, trace=call.trace)
        await control.projection.append(fact)

    async def list_people(_: Call[Nothing]) -> PersonList:
        return PersonList(people=await people.list())

    async def create(call: Call[CreatePerson]) -> PersonView:
        view = await people.create(call.body.name, call.body.role)
        await record(call, PersonAdded(role=view.role), view.id)
        return view

    async def remove(call: Call[Nothing]) -> Ok:
        name = call.params["name"]
        await people.remove(name)
        await record(call, PersonRemoved(), f"person/{name}")
        return Ok()

    return [
        Route(
            "GET",
            "/people",
            Permission.people_manage,
            list_people,
            response=PersonList,
            summary="All people",
        ),
        Route(
            "POST",
            "/people",
            Permission.people_manage,
            create,
            request=CreatePerson,
            response=PersonView,
            status=201,
            summary="Add a person; shows the token once",
        ),
        Route(
            "DELETE",
            "/people/{name}",
            Permission.people_manage,
            remove,
            response=Ok,
            summary="Remove a person; the token is void at once",
        ),
    ]
