"""The frames of the channel protocol: what one WebSocket message between hub and peer holds.

    peer -> hub   Hello     my session, the session of yours that I remember, my window
    hub -> peer   Welcome   the same, and whether numbering continues
    both          Batch     items, numbered from `first`: facts, posts, dispatches, settlements
    both          Ack       everything up to this number is processed durably
    both          Ping/Pong a sign of life
    both          Bye       the end, with a code

A frame is one MessagePack array whose first item is its name; `core/frame_codecs.py` has the other
ways to write it. Types are strict; anything that does not fit is `InvalidInput`.

    >>> read_frame(write_frame(Ack(7)))
    Ack(upto=7)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from angelos.core.envelopes import EnvelopeHeader, Lane
from angelos.core.errors import InvalidInput, TooLarge

VERSION = 2
MAX_FRAME_BYTES = 16 * 1024 * 1024
"""A full batch and one of the largest items, with their bytes as base64."""
MAX_ITEM_BYTES = 8 * 1024 * 1024
OVERHEAD = 64
"""How many bytes of a window an empty item uses."""

Counter = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Window = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
WindowBytes = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]
SessionId = Annotated[str, msgspec.Meta(max_length=64)]
Code = Annotated[str, msgspec.Meta(max_length=32)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Name = Annotated[str, msgspec.Meta(max_length=128)]


class EndCode(StrEnum):
    """Why a connection or a whole channel ends."""

    fenced = "fenced"
    """Another connection with the same certificate took over."""
    quarantined = "quarantined"
    unauthenticated = "unauthenticated"
    refused = "refused"
    """The peer sent what it may not."""
    version = "version"
    protocol = "protocol"
    credit = "credit"
    """The peer sent more than its window."""
    timeout = "timeout"
    shutdown = "shutdown"
    unavailable = "unavailable"
    """The hub failed, or cannot reach its stores."""
    absent = "absent"
    """The peer did not come back in time."""
    lost = "lost"
    """The connection broke without a goodbye."""
    expired = "expired"
    """The certificate has expired."""


class FactReport(msgspec.Struct, frozen=True, array_like=True, tag="fact", gc=False):
    """Peer to hub: a fact, to be appended to the journal."""

    id: Name
    """The fact's own."""
    body: bytes
    """The fact, by `codec`."""
    codec: Literal["msgpack", "json"] = "msgpack"

    @property
    def size(self) -> int:
        """How many bytes of a window it uses."""
        return len(self.id) + len(self.body) + OVERHEAD


class Post(msgspec.Struct, frozen=True, array_like=True, tag="post", gc=False):
    """Peer to hub: an envelope for somebody else; a `Receipt` answers it."""

    id: Name
    """The sender's own: sent again with the same id it is put once."""
    to: Name
    """A principal, or labels (`language=rust,gpu`) of which one is chosen."""
    lane: Lane
    sequence: Counter
    """The sender's count for this destination and lane."""
    codec: Code
    body: bytes
    deadline: float | None = None
    trace: Name = ""
    sticky: Name = ""
    """Those with the same word go to the same destination, as long as it is there."""

    @property
    def size(self) -> int:
        """How many bytes of a window it uses."""
        return len(self.id) + len(self.body) + OVERHEAD


class Dispatch(msgspec.Struct, frozen=True, array_like=True, tag="dispatch", gc=False):
    """Hub to peer: an envelope from the peer's queue, to be settled by its position."""

    position: Name
    attempt: Counter
    header: EnvelopeHeader
    body: bytes

    @property
    def size(self) -> int:
        """How many bytes of a window it uses."""
        return len(self.header.id) + len(self.body) + OVERHEAD


class Settle(msgspec.Struct, frozen=True, array_like=True, tag="settle", gc=False):
    """Peer to hub: what became of dispatched envelopes."""

    positions: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=1024)]
    outcome: Literal["done", "retry", "refused"] = "done"
    """`retry`: hand them out again later; `refused`: never, they become dead letters."""
    detail: Text = ""

    @property
    def size(self) -> int:
        """How many bytes of a window it uses."""
        return sum(map(len, self.positions)) + OVERHEAD


class PostReceipt(msgspec.Struct, frozen=True, array_like=True, tag="receipt", gc=False):
    """Hub to peer: a post was taken durably, or why it was not."""

    id: Name
    code: Code = ""
    """Empty: it was taken; else the code of an error (`core.errors`)."""
    to: Name = ""
    """The destination that was chosen."""
    duplicate: bool = False
    retry_after_s: float = 0.0
    """With the code `busy`: when to try again."""
    detail: Text = ""
    dropped: Counter = 0
    """How many older ones a lossy lane dropped to make room for it."""

    @property
    def size(self) -> int:
        """How many bytes of a window it uses."""
        return len(self.id) + OVERHEAD


Item = FactReport | Post | Dispatch | Settle | PostReceipt
"""What a batch holds."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first frame of the end that connects."""

    version: int
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    peer: SessionId
    """The other end's session as this end remembers it; empty at first."""
    received: Counter
    """The last sequence number that this end has processed in that pair of sessions."""
    window: Window
    window_bytes: WindowBytes
    info: dict[Code, Text] = {}
    """What the peer reports about itself (role, tier, pid); never trusted."""


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The answer to `Hello`."""

    version: int
    session: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    resumed: bool
    """Both ends remember each other: sequence numbers continue. Otherwise they start at 1."""
    received: Counter
    window: Window
    window_bytes: WindowBytes


class Batch(msgspec.Struct, frozen=True, array_like=True, tag="batch"):
    """Items with the sequence numbers `first`, `first + 1`, ..."""

    first: Counter
    items: tuple[Item, ...]


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """Every item up to this sequence number is processed durably; cumulative."""

    upto: Counter


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Ask for a sign of life."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """Answer `Ping`."""


class Bye(msgspec.Struct, frozen=True, array_like=True, tag="bye"):
    """The end. A `code` that is not an `EndCode` is a newer peer's; it is not fatal."""

    code: Code
    reason: Text = ""


Frame = Hello | Welcome | Batch | Ack | Ping | Pong | Bye
_decoder = msgspec.msgpack.Decoder(Frame)
_encoder = msgspec.msgpack.Encoder()


def write_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    return _encoder.encode(frame)


def read_frame(data: bytes) -> Frame:
    """Return the frame in `data`; raise `InvalidInput` or `TooLarge`, never anything else."""
    check_size(data)
    try:
        frame = _decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise InvalidInput(f"Not a frame of the channel protocol: {error}") from error
    return check_frame(frame, len(data))


def check_size(data: bytes) -> None:
    """Raise `TooLarge` if no frame has so many bytes."""
    if len(data) > MAX_FRAME_BYTES:
        raise TooLarge(f"The frame has {len(data)} bytes; {MAX_FRAME_BYTES} are allowed.")


def check_frame(frame: Frame, size: int) -> Frame:
    """Return a frame that was decoded; raise `InvalidInput` if an item in it is too large."""
    if (
        size + OVERHEAD > MAX_ITEM_BYTES  # else no item in it can be too large
        and isinstance(frame, Batch)
        and any(item.size > MAX_ITEM_BYTES for item in frame.items)
    ):
        raise InvalidInput("An item is larger than the protocol allows.")
    return frame
