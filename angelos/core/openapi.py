"""The OpenAPI document of the control API, generated from the routes.

    document([*control_routes, *hub_routes])["paths"]["/angelos/api/tasks"]["post"]

It says only what the routes say: bodies and answers are the JSON Schemas of the structs (msgspec),
errors are the table of `core.errors`, and `x-permission` is the permission that the server checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from angelos import __version__
from angelos.core.errors import BY_CODE
from angelos.core.parameters import is_required, parameter_schema, refine
from angelos.core.permissions import Permission
from angelos.core.routes import PREFIX, Call, Nothing, Route

_PARAMETER = re.compile(r"\{([a-z_]+)\}")
_REFERENCE = "#/components/schemas/{name}"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    """Stable; programs decide by it."""
    detail: str
    hint: str = ""
    """What to do next."""
    extra: dict[str, Any] = {}
    trace: str = ""
    """Look for it in the server's log."""


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of `routes` as JSON-able values."""
    types = _types(routes)
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    schemas, components = _tuples([*schemas]), _tuples(components)
    refine(components)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in sorted(routes, key=lambda r: (r.path, r.method)):
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(
            route, schema_of
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AngelOS control API",
            "version": __version__,
            "description": "People sign in at the Jupyter server with a token; nodes and agents "
            "connect to the hub with a certificate.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {"Problem": _problem(schema_of[Problem])},
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        "security": [{"token": []}, {"certificate": []}],
    }


def openapi_route(routes: Sequence[Route]) -> Route:
    """Return the route that serves the document of `routes` (and of itself)."""

    async def openapi(call: Call[Nothing]) -> dict[str, Any]:
        del call
        return described

    route = Route(
        "GET",
        "/openapi.json",
        Permission.anyone,
        openapi,
        response=dict[str, Any],
        summary="This document",
    )
    described = document([*routes, route])
    return route


def _types(routes: Sequence[Route]) -> list[Any]:
    types: list[Any] = [Problem]
    for route in routes:
        for body in (route.request, route.response):
            if body not in types:
                types.append(body)
    return types


def _operation(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    words = re.findall(r"[A-Za-z0-9]+", route.path)
    operation: dict[str, Any] = {
        "operationId": "_".join([route.method.lower(), *words]),
        "summary": route.summary,
        "tags": [words[0]],
        "x-permission": str(route.permission),
        "parameters": _parameters(route),
        "responses": {
            str(route.status): {
                "description": "Done.",
                "content": {route.media_type: _content(route, schema_of)},
            },
            "default": {"$ref": "#/components/responses/Problem"},
        },
    }
    if route.permission is Permission.anyone:
        operation["security"] = []
    if route.request is not Nothing:
        operation["requestBody"] = {
            "required": _needs_body(route),
            "content": {_media_type(route): {"schema": schema_of[route.request]}},
            "x-max-bytes": route.max_body,
        }
    return operation


def _content(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    if route.media_type == "application/json":
        return {"schema": schema_of[route.response]}
    return {}  # OpenAPI 3.1, section 4.8.14: bytes of that media type


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"minLength": 1, **parameter_schema(route.path, name)},
        }
        for name in _PARAMETER.findall(route.path)
    ]
    in_query = [
        {
            "name": name,
            "in": "query",
            "required": is_required(route.path, name),
            "schema": dict(parameter_schema(route.path, name)),
        }
        for name in route.query
    ]
    return in_path + in_query


def _problem(schema: dict[str, Any]) -> dict[str, Any]:
    codes = ", ".join(f"`{code}` ({cls.status})" for code, cls in sorted(BY_CODE.items()))
    return {
        "description": f"Refused or failed. Codes: {codes}.",
        "content": {"application/problem+json": {"schema": schema}},
    }


def _needs_body(route: Route) -> bool:
    """Return whether a request without a body is refused."""
    if route.request is bytes:
        return False
    try:
        msgspec.json.decode(b"{}", type=route.request)
    except msgspec.ValidationError:
        return True
    return False


def _tuples(schema: Any) -> Any:
    """Return a schema whose tuples are written in the one way that every tool reads."""
    if isinstance(schema, list):
        return [_tuples(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: _tuples(value) for name, value in schema.items()}
    if "prefixItems" in plain:
        plain.pop("items", None)  # `maxItems` says that there are no more
    return plain


def _media_type(route: Route) -> str:
    """Return how a route's request is sent."""
    return "application/octet-stream" if route.request is bytes else "application/json"
