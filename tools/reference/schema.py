"""messages.schema.json: one JSON Schema of everything that crosses a boundary.

Facts by their kind (as `/events` and the audit log show them), commands, and the requests and
answers of the API. Types of other languages are generated from it.
"""

from __future__ import annotations

import inspect
import json
from typing import Any

import msgspec

from angelos.core.facts import PAYLOADS, FactView
from angelos.core.messages import COMMANDS, Command
from angelos.core.openapi import Problem
from angelos.core.routes import Nothing
from tools.reference.api import doors

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = "#/$defs/{name}"


def document() -> dict[str, Any]:
    """Return the schema as JSON-able values."""
    types = [FactView, *PAYLOADS.values(), Command, *COMMANDS.values(), *_api()]
    _, definitions = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    return {
        "$schema": DRAFT,
        "title": "Messages of AngelOS",
        "description": "Made from the code by `make docs`; do not edit.",
        "oneOf": [{"$ref": "#/$defs/Fact"}, {"$ref": "#/$defs/CommandPayload"}],
        "$defs": {
            **dict(sorted(definitions.items())),
            "Fact": {
                "description": "A fact of a known kind; of another kind it is a FactView.",
                "oneOf": [_fact(kind, payload.__name__) for kind, payload in PAYLOADS.items()],
            },
            "CommandPayload": {
                "description": "What a command asks for, by its kind.",
                "oneOf": [_reference(payload.__name__) for payload in COMMANDS.values()],
            },
        },
    }


def page() -> str:
    """Return messages.schema.json."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


def _fact(kind: str, payload: str) -> dict[str, Any]:
    return {
        "title": str(kind),
        "allOf": [_reference(FactView.__name__)],
        "properties": {"kind": {"const": str(kind)}, "data": _reference(payload)},
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=name)}


def _api() -> list[type]:
    """Return the structs that routes take and give."""
    types: dict[str, type] = {Problem.__name__: Problem}
    for routes in doors().values():
        for route in routes:
            for kind in (route.request, route.response):
                if inspect.isclass(kind) and issubclass(kind, msgspec.Struct):
                    types[kind.__name__] = kind
    types.pop(Nothing.__name__, None)
    return [types[name] for name in sorted(types)]
