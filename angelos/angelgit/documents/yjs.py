r"""The structs in a yjs update (version 1), which pycrdt applies but does not show.

Who wrote what, what was typed, and into which text is written in an update and nowhere else.

    >>> import pycrdt
    >>> doc = pycrdt.Doc(client_id=7)
    >>> doc.get("source", type=pycrdt.Text).insert(0, "one")
    >>> (struct,) = decode(doc.get_update()).structs
    >>> struct.client, struct.clock, struct.length, struct.text, struct.parent
    (7, 0, 3, 'one', 'source')

Source: `readClientsStructRefs`, `readDeleteSet` in yjs 13 (src/utils/encoding.js, DeleteSet.js),
`src/structs/*.js`, and `readAny` in lib0 (decoding.js).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Id = tuple[int, int]
"""Client id and clock of one unit; a character outside of the BMP has two units."""

_MAX_DEPTH = 200
_MAX_BITS = 70
_GC, _SKIP = 0, 10
DELETED, STRING, TYPE = 1, 4, 7


class Struct(NamedTuple):
    """A run of units that one client inserted, one behind the other."""

    client: int
    clock: int
    length: int
    origin: Id | None = None
    """The unit to its left when it was inserted."""
    right: Id | None = None
    """The unit to its right when it was inserted."""
    text: str | None = None
    """What was typed; None for anything but text."""
    kind: int = _GC
    parent: Id | str | None = None
    """The shared type that holds it; None where `origin` or `right` says so."""


class DeletedRange(NamedTuple):
    """Units `clock` to `clock + length` of a client."""

    client: int
    clock: int
    length: int


class Update(NamedTuple):
    """An update's content."""

    structs: list[Struct]
    deleted: list[DeletedRange]

    def clients(self) -> dict[int, int]:
        """Return the clients that insert something, each with the clock behind its last unit."""
        return {struct.client: struct.clock + struct.length for struct in self.structs}


def decode(update: bytes) -> Update:
    """Return the structs and the deletions of an update.

    Raises:
        ValueError: the bytes are no update.
    """
    reader = _Reader(update)
    try:
        structs = [
            struct for _ in range(reader.number()) for struct in reader.structs_of_a_client()
        ]
        deleted: list[DeletedRange] = []
        for _ in range(reader.number()):
            client = reader.number()
            deleted += [
                DeletedRange(client, reader.number(), reader.number())
                for _ in range(reader.number())
            ]
    except (IndexError, UnicodeDecodeError) as error:
        msg = f"no yjs update: {error}"
        raise ValueError(msg) from error
    return Update(structs, deleted)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        data, at = self._data, self._at
        byte = data[at]
        at += 1
        value, shift = byte & 0x7F, 7
        while byte & 0x80:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > _MAX_BITS:
                msg = "no yjs update: a number is too large"
                raise ValueError(msg)
        self._at = at
        return value

    def structs_of_a_client(self) -> list[Struct]:
        count, client, clock = self.number(), self.number(), self.number()
        structs: list[Struct] = []
        for _ in range(count):
            struct = self._struct(client, clock)
            clock += struct.length
            if struct.kind != _SKIP:
                structs.append(struct)
        return structs

    def _struct(self, client: int, clock: int) -> Struct:
        info = self._byte()
        kind = info & 0x1F
        if kind in (_GC, _SKIP):
            return Struct(client, clock, self.number(), kind=kind)
        origin = (self.number(), self.number()) if info & 0x80 else None
        right = (self.number(), self.number()) if info & 0x40 else None
        parent: Id | str | None = None
        if not info & 0xC0:
            parent = self._string() if self.number() == 1 else (self.number(), self.number())
            if info & 0x20:
                self._string()
        read = _CONTENTS.get(kind)
        if read is None:
            msg = f"a struct of kind {kind}"
            raise ValueError(msg)
        length, text = read(self)
        return Struct(client, clock, length, origin, right, text, kind, parent)

    # -- contents: each returns the number of units, and the text -----------------------------

    def deleted(self) -> tuple[int, None]:
        return self.number(), None

    def json(self) -> tuple[int, None]:
        count = self.number()
        for _ in range(count):
            self._skip_sized()
        return count, None

    def binary(self) -> tuple[int, None]:
        self._skip_sized()
        return 1, None

    def string(self) -> tuple[int, str]:
        text = self._string()
        return units(text), text

    def format(self) -> tuple[int, None]:
        self._skip_sized()
        self._skip_sized()
        return 1, None

    def type(self) -> tuple[int, None]:
        if self.number() in (3, 5):  # an XML element or hook has a name
            self._skip_sized()
        return 1, None

    def any(self) -> tuple[int, None]:
        count = self.number()
        for _ in range(count):
            self._skip_any(0)
        return count, None

    def doc(self) -> tuple[int, None]:
        self._skip_sized()
        self._skip_any(0)
        return 1, None

    # -- values ------------------------------------------------------------------------------

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _string(self) -> str:
        size = self.number()
        start, self._at = self._at, self._at + size
        self._check()
        return self._data[start : self._at].decode()

    def _skip_sized(self) -> None:
        size = self.number()
        self._at += size
        self._check()

    def _skip_any(self, depth: int) -> None:
        if depth > _MAX_DEPTH:
            msg = "a value is nested too deeply"
            raise ValueError(msg)
        tag = self._byte()
        if tag in _FIXED:
            self._at += _FIXED[tag]
            self._check()
        elif tag == 125:  # noqa: PLR2004 - a signed number of variable length
            while self._byte() & 0x80:
                pass
        elif tag in (116, 119):  # bytes, a string
            self._skip_sized()
        elif tag == 118:  # noqa: PLR2004 - an object
            for _ in range(self.number()):
                self._skip_sized()
                self._skip_any(depth + 1)
        elif tag == 117:  # noqa: PLR2004 - an array
            for _ in range(self.number()):
                self._skip_any(depth + 1)
        else:
            msg = f"a value of the unknown kind {tag}"
            raise ValueError(msg)

    def _check(self) -> None:
        if self._at > len(self._data):
            raise IndexError("it ends too early")


def units(text: str) -> int:
    """Return the length of a text as yjs counts it, in units of UTF-16."""
    return len(text) + sum(character > "\uffff" for character in text)


_FIXED = {127: 0, 126: 0, 124: 4, 123: 8, 122: 8, 121: 0, 120: 0}
"""Kinds of values with a fixed size: undefined, null, floats, a big integer, false, true."""
_CONTENTS: dict[int, Callable[[_Reader], tuple[int, str | None]]] = {
    DELETED: _Reader.deleted,
    2: _Reader.json,
    3: _Reader.binary,
    STRING: _Reader.string,
    5: _Reader.binary,
    6: _Reader.format,
    TYPE: _Reader.type,
    8: _Reader.any,
    9: _Reader.doc,
}
