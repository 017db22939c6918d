"""How frames become WebSocket messages: one codec for each subprotocol that a connection may use.

`angelos.v1.msgpack` is what nodes and our own clients speak, `angelos.v1.json` suits browsers and
scripts, `angelos.v1.protobuf` whoever generates code from the `.proto` file. All three hold the
same frames, and both ends of a connection use the same one.

    >>> from angelos.core.frames import Ack
    >>> JSON.write(Ack(7))
    b'["ack",7]'
    >>> JSON.read(b'["ack",7]') == MSGPACK.read(MSGPACK.write(Ack(7)))
    True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.frames import Frame, check_frame, check_size, read_frame, write_frame
from angelos.core.protobuf_frames import read_protobuf, write_protobuf

PREFIX = "angelos.v1."
"""What the names of all subprotocols begin with."""


class FrameCodec(Protocol):
    """One way to write frames."""

    @property
    def subprotocol(self) -> str:
        """The name in `Sec-WebSocket-Protocol`."""
        ...

    @property
    def text(self) -> bool:
        """Whether a frame is a text message; else it is a binary one."""
        ...

    def write(self, frame: Frame) -> bytes:
        """Return the bytes of a frame."""
        ...

    def read(self, data: bytes) -> Frame:
        """Return the frame in `data`; raise `InvalidInput` or `TooLarge`, never anything else."""
        ...


class MsgpackCodec:
    """Frames as MessagePack arrays."""

    subprotocol = PREFIX + "msgpack"
    text = False

    def write(self, frame: Frame) -> bytes:
        """Return the bytes of a frame."""
        return write_frame(frame)

    def read(self, data: bytes) -> Frame:
        """Return the frame in `data`; raise `InvalidInput` or `TooLarge`."""
        return read_frame(data)


_json_decoder = msgspec.json.Decoder(Frame)
_json_encoder = msgspec.json.Encoder()


class JsonCodec:
    """Frames as JSON arrays; bytes are base64 (RFC 4648, section 4)."""

    subprotocol = PREFIX + "json"
    text = True

    def write(self, frame: Frame) -> bytes:
        """Return the bytes of a frame."""
        return _json_encoder.encode(frame)

    def read(self, data: bytes) -> Frame:
        """Return the frame in `data`; raise `InvalidInput` or `TooLarge`."""
        check_size(data)
        try:
            frame = _json_decoder.decode(data)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise InvalidInput(f"Not a frame of the channel protocol: {error}") from error
        return check_frame(frame, len(data))


class ProtobufCodec:
    """Frames as Protocol Buffers messages of docs/reference/angelos.v1.proto."""

    subprotocol = PREFIX + "protobuf"
    text = False

    def write(self, frame: Frame) -> bytes:
        """Return the bytes of a frame."""
        return write_protobuf(frame)

    def read(self, data: bytes) -> Frame:
        """Return the frame in `data`; raise `InvalidInput` or `TooLarge`."""
        return read_protobuf(data)


MSGPACK = MsgpackCodec()
JSON = JsonCodec()
PROTOBUF = ProtobufCodec()
CODECS: dict[str, FrameCodec] = {c.subprotocol: c for c in (MSGPACK, JSON, PROTOBUF)}
"""By the name of the subprotocol."""


def choose_codec(offered: Sequence[str]) -> FrameCodec:
    """Return the codec for what a client offers, its first choice first; MessagePack for nothing.

    Raises:
        InvalidInput: Nothing that it offers is spoken here.
    """
    if not offered:
        return MSGPACK
    for name in offered:
        if name in CODECS:
            return CODECS[name]
    raise InvalidInput(
        f"None of the subprotocols {', '.join(offered)[:200]!r} is spoken here.",
        hint=f"There are {', '.join(CODECS)}.",
    )
