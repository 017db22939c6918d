"""angelos.v1.proto: the frames for whoever generates code from them."""

from __future__ import annotations

from angelos.core.protobuf_schema import PACKAGE, SCHEMA, ProtoField, ProtoMessage
from tools.reference.source import first, texts

_HEAD = """\
// Made from the code by `make docs`; do not edit. docs/reference/wire.md explains it.
//
// Each binary message of the subprotocol angelos.v1.protobuf is one Frame.

syntax = "proto3";

package {};
"""


def page() -> str:
    """Return angelos.v1.proto."""
    return "\n".join([_HEAD.format(PACKAGE), *map(_message, SCHEMA)])


def _message(message: ProtoMessage) -> str:
    if message.choice:
        lines = [f"    {field.type} {field.name} = {field.number};" for field in message.fields]
        body = ["  oneof choice {", *lines, "  }"]
        return "\n".join([f"message {message.name} {{", *body, "}", ""])
    assert message.struct is not None  # noqa: S101 - a choice is not one
    said = texts(message.struct)
    body = [line for field in message.fields for line in _field(field, said[field.name])]
    about = f"// {first(message.struct)}"
    return "\n".join([about, f"message {message.name} {{", *body, "}", ""])


def _field(field: ProtoField, text: str) -> list[str]:
    kind = "map<string, string>" if field.type == "map" else field.type
    word = "repeated " if field.repeated else "optional " if field.optional else ""
    about = [f"  // {text}"] if text else []
    return [*about, f"  {word}{kind} {field.name} = {field.number};"]
