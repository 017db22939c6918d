"""The OpenAPI document says what the routes say, and is a valid one."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import msgspec
import pytest

from angelos.core.api import Reason, Rollback, SubmitProposal, SubmitTask, TaskView
from angelos.core.errors import BY_CODE
from angelos.core.ids import PrincipalId
from angelos.core.openapi import document, openapi_route
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import Call, Nothing, Route


async def handler(call: Call[Any]) -> None:
    raise AssertionError(call)


ROUTES = [
    Route("POST", "/tasks", Permission.tasks_run, handler, request=SubmitTask, response=TaskView,
          status=202, summary="Run"),
    Route("GET", "/tasks/{task}", Permission.tasks_read, handler, response=TaskView,
          query=("wait",), summary="Look"),
    Route("GET", "/blob", Permission.revisions_read, handler, media_type="application/msgpack",
          summary="Bytes"),
]  # fmt: skip


def references(value: Any) -> list[str]:
    return re.findall(r'"\$ref":"#/([^"]+)"', msgspec.json.encode(value).decode())


def test_paths_permissions_and_bodies_are_the_routes() -> None:
    paths = document(ROUTES)["paths"]
    post = paths["/angelos/api/tasks"]["post"]
    assert post["x-permission"] == "tasks:run"
    assert post["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/SubmitTask"
    }
    assert list(post["responses"]) == ["202", "default"]
    get = paths["/angelos/api/tasks/{task}"]["get"]
    assert [(p["name"], p["in"], p["required"]) for p in get["parameters"]] == [
        ("task", "path", True), ("wait", "query", False),
    ]  # fmt: skip
    assert "requestBody" not in get


def test_every_schema_is_valid_and_every_reference_leads_somewhere() -> None:
    body = document(ROUTES)
    for name, schema in body["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
    for reference in references(body):
        at: Any = body
        for part in reference.split("/"):
            at = at[part]
    ids = [o["operationId"] for path in body["paths"].values() for o in path.values()]
    assert len(ids) == len(set(ids))
    for path in body["paths"].values():
        for operation in path.values():
            assert {"operationId", "responses", "summary", "x-permission"} <= set(operation)


def test_the_schemas_take_what_the_types_take() -> None:
    body = document(ROUTES)
    schema = {"$ref": "#/components/schemas/SubmitTask", "components": body["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(msgspec.json.decode(msgspec.json.encode(SubmitTask(code="print(1)"))))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"code": "x", "unknown": 1})


def test_a_parameter_has_its_bounds_and_its_form() -> None:
    query = ("path", "limit", "after")
    path = "/repos/{repo}/pending"
    route = Route("GET", path, Permission.proposals_read, handler, query=query)
    operation = document([route])["paths"]["/angelos/api/repos/{repo}/pending"]["get"]
    schemas = {p["name"]: p["schema"] for p in operation["parameters"]}
    assert schemas["limit"] == {"type": "integer", "minimum": 1, "maximum": 200}
    for control in ("\0", "\n", "\x7f"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(f"a{control}b", schemas["path"])
    jsonschema.validate("study/a b.py", schemas["path"])


def test_a_body_is_required_where_none_is_refused() -> None:
    routes = [
        Route("POST", "/reason", Permission.status_read, handler, request=Reason),
        Route("POST", "/tasks", Permission.status_read, handler, request=Rollback),
    ]
    paths = document(routes)["paths"]
    assert not paths["/angelos/api/reason"]["post"]["requestBody"]["required"]
    assert paths["/angelos/api/tasks"]["post"]["requestBody"]["required"]


def test_what_the_code_checks_beyond_types_is_in_the_schema() -> None:
    route = Route("POST", "/x", Permission.status_read, handler, request=SubmitProposal)
    schema = document([route])["components"]["schemas"]["SubmitProposal"]["properties"]["base"]
    for base in ("main", "dev", "0" * 64):
        jsonschema.validate(base, schema)
    for base in ("", "0" * 63, "master"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(base, schema)


def test_every_code_is_named() -> None:
    problem = document(ROUTES)["components"]["responses"]["Problem"]
    assert all(f"`{code}`" in problem["description"] for code in BY_CODE)


async def test_the_route_serves_the_document_and_describes_itself() -> None:
    route = openapi_route(ROUTES)
    who = Principal(id=PrincipalId("person/a"), role=Role.viewer)
    served = await route.handler(Call(principal=who, params={}, query={}, body=Nothing()))
    assert served == document([*ROUTES, route])
    assert served["paths"]["/angelos/api/openapi.json"]["get"]["security"] == []
