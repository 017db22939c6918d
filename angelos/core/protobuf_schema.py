"""The frames as Protocol Buffers messages, derived from the structs of `core/frames.py`.

A field's number is its place in the array of the other codecs, from 1. Fields that may be missing
are `optional`; unions are a `oneof`; names with a limited choice of words stay `string`.

    >>> [message.name for message in SCHEMA][:3]
    ['Frame', 'Hello', 'Welcome']
    >>> next(message for message in SCHEMA if message.name == "Ack").fields[0]
    ProtoField(name='upto', number=1, type='uint64', repeated=False, optional=False)
"""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from angelos.core.frames import Frame, Item

PACKAGE = "angelos.v1"


class ProtoField(msgspec.Struct, frozen=True):
    """A field of a message. `map` as a type means `map<string, string>`."""

    name: str
    number: int
    type: str
    repeated: bool = False
    optional: bool = False


class ProtoMessage(msgspec.Struct, frozen=True):
    """A message; in a `choice`, exactly one of the fields is there."""

    name: str
    fields: tuple[ProtoField, ...]
    choice: bool = False
    struct: type[msgspec.Struct] | None = None
    """Whose fields these are; None for a choice."""


_SCALARS = {str: "string", bytes: "bytes", bool: "bool", int: "uint64", float: "double"}


def _schema() -> tuple[ProtoMessage, ...]:
    messages: dict[str, ProtoMessage] = {}
    _choice("Frame", get_args(Frame), messages)
    return tuple(messages.values())


def _choice(name: str, structs: tuple[Any, ...], messages: dict[str, ProtoMessage]) -> None:
    fields = tuple(
        ProtoField(str(struct.__struct_config__.tag), number, struct.__name__)
        for number, struct in enumerate(structs, 1)
    )
    messages[name] = ProtoMessage(name, fields, choice=True)
    for struct in structs:
        _message(struct, messages)


def _message(struct: type[msgspec.Struct], messages: dict[str, ProtoMessage]) -> None:
    if struct.__name__ in messages:
        return
    messages[struct.__name__] = ProtoMessage(struct.__name__, ())  # keeps its place
    hints = get_type_hints(struct, include_extras=True)
    required = len(struct.__struct_fields__) - len(struct.__struct_defaults__)
    fields = tuple(
        _field(name, number, hints[name], messages, required=number <= required)
        for number, name in enumerate(struct.__struct_fields__, 1)
    )
    messages[struct.__name__] = ProtoMessage(struct.__name__, fields, struct=struct)


def _field(
    name: str, number: int, hint: Any, messages: dict[str, ProtoMessage], *, required: bool
) -> ProtoField:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin = get_origin(hint)
    if origin is dict:
        return ProtoField(name, number, "map", repeated=False, optional=False)
    if origin is tuple:
        below = _field(name, number, get_args(hint)[0], messages, required=True)
        return ProtoField(name, number, below.type, repeated=True, optional=False)
    if hint == Item:
        _choice("Item", get_args(Item), messages)
        return ProtoField(name, number, "Item", repeated=False, optional=False)
    if origin in (Union, types.UnionType):  # a field that may be None
        hint = next(below for below in get_args(hint) if below is not type(None))
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        _message(hint, messages)
        return ProtoField(name, number, hint.__name__, repeated=False, optional=not required)
    scalar = "string" if origin is Literal else _scalar(hint)
    return ProtoField(name, number, scalar, repeated=False, optional=not required)


def _scalar(hint: Any) -> str:
    hint = getattr(hint, "__supertype__", hint)  # of a NewType
    return "string" if issubclass(hint, str) else _SCALARS[hint]


SCHEMA = _schema()
"""`Frame` first, then all messages in the order in which they are named."""
