"""Routes of people."""

from __future__ import annotations

from angelos.control.service import Control
from angelos.core.api import (
    CreatePerson,
    Ok,
    PersonList,
    PersonView,
)
from angelos.core.facts import PersonAdded, PersonRemoved
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route


def routes(control: Control) -> list[Route]:
    """Return the routes of people."""
    projection, people = control.projection, control.people

    async def list_people(_: Call[Nothing]) -> PersonList:
        return PersonList(people=await people.list())

    async def create(call: Call[CreatePerson]) -> PersonView:
        view = await people.create(call.body.name, call.body.role)
        added = PersonAdded(role=view.role)
        await projection.append(
            projection.fact(added, view.id, call.principal.id, trace=call.trace)
        )
        return view

    async def remove(call: Call[Nothing]) -> Ok:
        name = call.params["name"]
        await people.remove(name)
        await projection.append(
            projection.fact(PersonRemoved(), f"person/{name}", call.principal.id, trace=call.trace)
        )
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
