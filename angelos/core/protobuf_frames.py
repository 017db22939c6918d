"""Frames in Protocol Buffers' wire format, by the schema that is derived from the structs.

Only what frames need is here, so that no end needs the library; a test compares it with `protoc`'s
own code. Stricter than the library in two ways: a field that is not repeated comes once, and a
frame has a limited number of fields, counted before anything is made of them.

    >>> from angelos.core.frames import Ack
    >>> write_protobuf(Ack(7)).hex()
    '22020807'
    >>> read_protobuf(bytes.fromhex("22020807"))
    Ack(upto=7)
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.frames import Frame, check_frame, check_size
from angelos.core.protobuf_schema import SCHEMA, ProtoField, ProtoMessage

_MESSAGES = {message.name: message for message in SCHEMA}
_BY_NUMBER = {m.name: {field.number: field for field in m.fields} for m in SCHEMA}
_MOST_FIELDS = 100_000
"""Of one frame: 8 times what the fullest batch of ours has."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES = {"uint64": _VARINT, "bool": _VARINT, "double": _FIXED64}
_double = struct.Struct("<d")


def write_protobuf(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    return _message_bytes(
        "Frame", msgspec.to_builtins(frame, builtin_types=(bytes,), str_keys=False)
    )


def read_protobuf(data: bytes) -> Frame:
    """Return the frame in `data`; raise `InvalidInput` or `TooLarge`, never anything else."""
    check_size(data)
    try:
        values = _Reader(data).message("Frame", 0, len(data))
        frame = msgspec.convert(values, Frame, builtin_types=(bytes,))
    except (msgspec.MsgspecError, ValueError, IndexError, struct.error) as error:
        raise InvalidInput(f"Not a frame of the channel protocol: {error}") from error
    return check_frame(frame, len(data))


# -- writing ---------------------------------------------------------------------------------


def _message_bytes(name: str, values: list[Any]) -> bytes:
    message = _MESSAGES[name]
    if message.choice:  # the first item of the array is the name of the chosen
        field = next(field for field in message.fields if field.name == values[0])
        return _field_bytes(field, values[1:])
    parts: list[bytes] = []
    for field, value in zip(message.fields, values, strict=True):
        if field.type == "map":
            entries = ([key, text] for key, text in value.items())
            parts += [_delimited(field.number, _entry_bytes(*entry)) for entry in entries]
        elif field.repeated:
            parts += [_field_bytes(field, one) for one in value]
        elif value is not None:
            parts.append(_field_bytes(field, value))
    return b"".join(parts)


def _entry_bytes(key: str, text: str) -> bytes:
    return _delimited(1, key.encode()) + _delimited(2, text.encode())


def _field_bytes(field: ProtoField, value: Any) -> bytes:
    match field.type:
        case "uint64" | "bool":
            return _varint(field.number << 3) + _varint(int(value))
        case "double":
            return _varint(field.number << 3 | _FIXED64) + _double.pack(value)
        case "string":
            return _delimited(field.number, value.encode())
        case "bytes":
            return _delimited(field.number, value)
        case _:
            return _delimited(field.number, _message_bytes(field.type, value))


def _delimited(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | _LENGTH) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    if value < 0x80:  # noqa: PLR2004 - seven bits
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:  # noqa: PLR2004
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# -- reading ---------------------------------------------------------------------------------


class _Reader:
    """Reads one frame; the schema is not recursive, so neither is the depth."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._fields = 0

    def message(self, name: str, at: int, end: int) -> list[Any]:
        """Return a message as the array of the other codecs."""
        fields, message = _BY_NUMBER[name], _MESSAGES[name]
        values: dict[str, Any] = {}
        while at < end:
            key, at = self._varint(at, end)
            value, at = self._value(key & 7, at, end)
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise InvalidInput("The frame has too many fields.")
            field = fields.get(key >> 3)
            if field is None:
                continue  # a later version's
            if key & 7 != _WIRE_TYPES.get(field.type, _LENGTH):
                raise ValueError(f"{name}.{field.name} has the wrong wire type")
            self._store(name, field, value, values)
        return _chosen(message, values) if message.choice else _array(message, values)

    def _store(
        self, name: str, field: ProtoField, value: int | range, values: dict[str, Any]
    ) -> None:
        decoded = self._decoded(field, value)
        if field.type == "map":
            values.setdefault(field.name, {}).update([decoded])
        elif field.repeated:
            values.setdefault(field.name, []).append(decoded)
        elif field.name in values:
            raise ValueError(f"{name}.{field.name} comes twice")
        else:
            values[field.name] = decoded

    def _decoded(self, field: ProtoField, value: int | range) -> Any:
        """Return a number, text, bytes, or the array of a message."""
        if isinstance(value, int):
            return bool(value) if field.type == "bool" else value
        start, end = value.start, value.stop
        match field.type:
            case "double":
                return _double.unpack_from(self._data, start)[0]
            case "string":
                return self._data[start:end].decode()
            case "bytes":
                return self._data[start:end]
            case "map":
                return self._entry(start, end)
            case _:
                return self.message(field.type, start, end)

    def _entry(self, at: int, end: int) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        while at < end:
            key, at = self._varint(at, end)
            value, at = self._value(key & 7, at, end)
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise InvalidInput("The frame has too many fields.")
            if key >> 3 in texts and isinstance(value, range) and key & 7 == _LENGTH:
                texts[key >> 3] = self._data[value.start : value.stop].decode()
        return texts[1], texts[2]

    def _value(self, wire_type: int, at: int, end: int) -> tuple[int | range, int]:
        """Return a value, a number or where its bytes are, and what follows it."""
        if wire_type == _VARINT:
            return self._varint(at, end)
        if wire_type == _LENGTH:
            size, at = self._varint(at, end)
        elif wire_type in (_FIXED64, _FIXED32):
            size = 8 if wire_type == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if size > end - at:
            raise ValueError("a field is longer than its message")
        return range(at, at + size), at + size

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while at < end:
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - seven bits
                if value >= 2**64:
                    break
                return value, at
            shift += 7
            if shift > 63:  # noqa: PLR2004 - ten bytes at most
                break
        raise ValueError("not a varint")


def _chosen(message: ProtoMessage, values: dict[str, Any]) -> list[Any]:
    if len(values) != 1:
        raise ValueError(f"{message.name} holds {len(values)} of its choices")
    ((name, value),) = values.items()
    return [name, *value]


_EMPTY = {"uint64": 0, "bool": False, "double": 0.0, "string": "", "bytes": b""}


def _array(message: ProtoMessage, values: dict[str, Any]) -> list[Any]:
    assert message.struct is not None  # noqa: S101 - a choice is not one
    defaults = message.struct.__struct_defaults__
    missing = len(message.fields) - len(defaults)
    array: list[Any] = []
    for place, field in enumerate(message.fields):
        if field.name in values:
            array.append(values[field.name])
        elif field.type == "map":
            array.append({})
        elif field.repeated:
            array.append([])
        elif field.optional:
            array.append(defaults[place - missing])
        elif field.type in _EMPTY:
            array.append(_EMPTY[field.type])
        else:
            raise ValueError(f"{message.name}.{field.name} is missing")
    return array
