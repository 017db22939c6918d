"""api.md: every route and every type, from the lists of routes that the server mounts."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any, cast

import msgspec

from angelos.adapters.net.websocket import CHANNEL_PATH
from angelos.angelgit.routes import routes as angelgit_routes
from angelos.control.routes import routes as control_routes
from angelos.core import api, facts, messages, openapi, permissions, ports, revision
from angelos.core.permissions import Permission
from angelos.core.routes import PREFIX, Nothing, Route
from angelos.governance.routes import routes as governance_routes
from angelos.hub.routes import enrol_routes, hub_routes, peer_routes
from angelos.wiring.monitoring.routes import routes as monitoring_routes
from tools.reference.source import code, first, head, table, texts

_TYPES: tuple[ModuleType, ...] = (api, facts, messages, openapi, permissions, ports, revision)
_TOP = f"""\
All paths are below `{PREFIX}`. The same document, for programs, is `{PREFIX}/openapi.json`.

| door | who | serves |
|---|---|---|
| Jupyter's server | people, with a token (`Authorization: token ...`) or Jupyter's cookie | all but what is marked |
| the hub | agents and nodes, with their certificate (mutual TLS) | all but what is marked |
| the hub's enrolment listener | whoever holds an enrolment token | `POST /enrol` |

Requests and answers are JSON. A field, query parameter or path that is not named here is refused.
Errors are `application/problem+json` ([Problem](#problem)); every route can answer
`invalid-input`, `unauthenticated`, `forbidden`, `unavailable` and `internal`, what else it answers
by its form is named with it, and what its operation can meet is in [errors](errors.md). Who holds
which permission is in [roles](roles.md)."""  # noqa: E501 - a table's row


class _Nobody:
    """Stands for the planes: lists of routes are made without asking them anything."""

    def __getattr__(self, name: str) -> _Nobody:
        return self


def doors() -> dict[str, list[Route]]:
    """Return the routes by who may ask for them: `all`, `certificate` or `enrolment`."""
    nobody = cast("Any", _Nobody())
    return {
        "all": [
            *control_routes(nobody),
            *angelgit_routes(nobody),
            *governance_routes(nobody),
            *hub_routes(nobody),
            *monitoring_routes(nobody),
            openapi.openapi_route([]),
        ],
        "certificate": peer_routes(nobody),
        "enrolment": enrol_routes(nobody),
    }


def page() -> str:
    """Return the page."""
    by_door = doors()
    routes = sorted((r for rs in by_door.values() for r in rs), key=lambda r: (r.path, r.method))
    document = openapi.document(routes)
    parts = [head("Control API", _TOP), "## Routes"]
    parts.append(
        table(
            ("route", "permission", ""),
            [(f"[`{_name(r)}`](#{_anchor(r)})", code(r.permission), r.summary) for r in routes],
        )
    )
    where = {_name(r): door for door, rs in by_door.items() for r in rs}
    for route in routes:
        operation = document["paths"][PREFIX + route.path][route.method.lower()]
        parts.append(_route(route, operation, where[_name(route)]))
    parts.append(_sockets())
    parts.append("## Types")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(_type(name, schema))
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _name(route: Route) -> str:
    return f"{route.method} {route.path}"


def _anchor(route: Route) -> str:
    """Return the heading's anchor as GitHub makes it."""
    kept = "".join(c for c in _name(route).lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _route(route: Route, operation: dict[str, Any], door: str) -> str:
    status, answer = next(iter(operation["responses"].items()))
    media, content = next(iter(answer["content"].items()))
    kind = _text(content["schema"]) if content else ""
    rows = [("permission", code(route.permission))]
    if door != "all":
        doors_only = {"certificate": "only with a certificate", "enrolment": "only for enrolment"}
        rows.append(("served", doors_only[door]))
    rows += [(parameter["in"], code(parameter["name"])) for parameter in operation["parameters"]]
    problems = ["not-found"] if "{" in route.path else []
    if body := operation.get("requestBody"):
        [sent] = body["content"].values()
        rows.append(("body", f"{_text(sent['schema'])}, at most {body['x-max-bytes']:,} bytes"))
        problems.append("too-large")
    rows.append(("answer", f"{status}, {code(media)} {kind}"))
    if problems:
        rows.append(("problems", ", ".join(map(code, problems))))
    return f"### {_name(route)}\n\n{route.summary}.\n\n{table(('', ''), rows)}"


def _sockets() -> str:
    rows = [
        (f"`{PREFIX}/events`", code(Permission.events_read),
         "The journal after `after` (an offset), only `kinds` (`a,b`) and `subject` if given."),
        (f"`{CHANNEL_PATH}`", "a node's or agent's certificate",
         "The hub's channel: commands go down, facts go up (only on the hub)."),
    ]  # fmt: skip
    told = "Each message of the events is one [Fact](messages.md#fact) as JSON, oldest first."
    return f"## WebSockets\n\n{table(('path', 'permission', ''), rows)}\n\n{told}"


def _type(name: str, schema: dict[str, Any]) -> str:
    cls = _class(name)
    lines = [f"### {name}", "", first(cls) if cls else schema.get("description", "")]
    if "enum" in schema:
        return "\n".join([*lines, "", ", ".join(code(word) for word in schema["enum"])])
    said = texts(cls) if cls and issubclass(cls, msgspec.Struct) else {}
    required = schema.get("required", ())
    rows = [
        (
            code(field),
            _text(form),
            "required" if field in required else _default(form),
            said.get(field, ""),
        )
        for field, form in schema.get("properties", {}).items()
    ]
    return "\n".join([*lines, "", table(("field", "type", "default", ""), rows)])


def _class(name: str) -> type | None:
    for module in _TYPES:
        found = getattr(module, name, None)
        if inspect.isclass(found) and found is not Nothing:
            return found
    return None


def _default(form: dict[str, Any]) -> str:
    return code(msgspec.json.encode(form["default"]).decode()) if "default" in form else ""


_BOUNDS = {
    "minimum": "from", "maximum": "to", "minLength": "at least", "maxLength": "at most",
    "minItems": "at least", "maxItems": "at most", "pattern": "matching",
}  # fmt: skip


def _text(form: dict[str, Any]) -> str:
    """Return a JSON Schema in a few words."""
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in form:
        return " or ".join(_text(part) for part in form["anyOf"])
    if "enum" in form:
        return ", ".join(code(word or '""') for word in form["enum"])
    if "const" in form:
        return code(form["const"])
    word = form.get("type", "anything")
    if word == "array" and isinstance(form.get("items"), dict):
        word = f"array of {_text(form['items'])}"
    elif word == "object" and isinstance(form.get("additionalProperties"), dict):
        word = f"object of {_text(form['additionalProperties'])}"
    elif word == "string" and form.get("contentEncoding"):
        word = f"{form['contentEncoding']} string"
    bounds = [
        f"{said} `{form[key]}`" if key == "pattern" else f"{said} {form[key]:,}"
        for key, said in _BOUNDS.items()
        if key in form
    ]
    return f"{word} ({', '.join(bounds).replace(', to ', ' to ')})" if bounds else word
