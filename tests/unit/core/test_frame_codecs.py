"""Every codec carries every frame, refuses what is none, and `protoc` agrees about protobuf."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

from angelos.core.envelopes import EnvelopeHeader, Lane
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.frame_codecs import CODECS, JSON, MSGPACK, PROTOBUF, choose_codec
from angelos.core.frames import (
    MAX_FRAME_BYTES,
    MAX_ITEM_BYTES,
    Ack,
    Batch,
    Bye,
    Dispatch,
    FactReport,
    Hello,
    Ping,
    Pong,
    Post,
    PostReceipt,
    Settle,
    Welcome,
)
from angelos.core.ids import PrincipalId

PROTO = Path(__file__).parents[3] / "docs" / "reference" / "angelos.v1.proto"
HEADER = EnvelopeHeader(
    id="m1", source=PrincipalId("agent/a"), destination=PrincipalId("node/b"), lane=Lane.message,
    sequence=2**53 - 1, codec="json", deadline=1.5, trace="t",
)  # fmt: skip
ITEMS = (
    FactReport("fact-1", bytes(range(256)), "json"),
    FactReport("fact-2", b""),
    Post("p1", "gpu,language=rust", Lane.log, 1, "x", b"\x00\xff", None, "trace", "word"),
    Post("p2", "node/é", Lane.dashboard, 2, "x", b"", 2.25),
    Dispatch("17-8", 1, HEADER, b"body"),
    Settle(("17-8", "18-8"), "retry", "später"),
    Settle(("1-0",)),
    PostReceipt("p1", "busy", "node/b", duplicate=True, retry_after_s=1.25),
    PostReceipt("p2"),
)
FRAMES = (
    Hello(2, "s", "", 0, 2048, 2**24, {"tier": "full", "labels": "gpu"}),
    Hello(2, "s", "p", 2**62, 1, 1),
    Welcome(2, "h", resumed=True, received=300, window=1, window_bytes=10**9),
    Batch(1, ITEMS),
    Batch(0, ()),
    Ack(128),
    Ping(),
    Pong(),
    Bye("lost", "why"),
    Bye("a later code"),
)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_every_frame_comes_back_as_it_was(codec):
    for frame in FRAMES:
        assert codec.read(codec.write(frame)) == frame


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_no_prefix_and_no_changed_byte_is_more_than_invalid(codec):
    for frame in FRAMES:
        data = codec.write(frame)
        spoilt = [data[:n] for n in range(len(data))]
        spoilt += [data[:n] + bytes([data[n] ^ 0x95]) + data[n + 1 :] for n in range(len(data))]
        for one in spoilt:
            try:
                codec.read(one)
            except InvalidInput:
                continue
    with pytest.raises(InvalidInput):
        codec.read(b"")
    with pytest.raises(TooLarge):
        codec.read(bytes(MAX_FRAME_BYTES + 1))


def test_the_fullest_batch_fits_into_a_frame_of_every_codec():
    batch = Batch(1, (*[FactReport("f", b"x" * 4000)] * 255, FactReport("f", b"x" * (2**23 - 65))))
    assert batch.items[-1].size == MAX_ITEM_BYTES
    for codec in CODECS.values():
        assert codec.read(codec.write(batch)) == batch


@pytest.mark.parametrize(
    "text",
    [
        b'["ack",-1]', b'["ack",1.5]', b'["ack",true]', b'["ack","1"]', b'["ack"]', b'{"ack":1}',
        b'["bye","\\ud800",""]', b'["bye","\xff",""]', b'["batch",1,[["fact","f","not base64!"]]]',
        b'["batch",1,[["settle",[],"done",""]]]', b'["ack",NaN]', b"[" * 100_000, b'["ack",1]x',
    ],
)  # fmt: skip
def test_json_that_is_no_frame_is_refused(text):
    with pytest.raises(InvalidInput):
        JSON.read(text)


def test_a_later_versions_items_are_passed_over():
    assert JSON.read(b'["ack",7,"more"]') == Ack(7)
    assert PROTOBUF.read(bytes.fromhex("2206080710011a00")) == Ack(7)


@pytest.mark.parametrize(
    "data",
    [
        "", "2200 2200", "2a00 3200", "2204 0807 0808", "220c 08 ffffffffffffffffff7f",
        "2208 0880808080808080", "23", "2401", "2205 0807", "1a 02 1200", "08 01",
        "1a 0a 12 08 22 06 0a 02 c3 28 00 00",
    ],
)  # fmt: skip
def test_protobuf_that_is_no_frame_is_refused(data):
    with pytest.raises(InvalidInput):
        PROTOBUF.read(bytes.fromhex(data.replace(" ", "")))


def test_a_frame_of_very_many_fields_is_refused_before_they_are_made():
    items = b"\x12\x00" * 200_000
    size = len(items)
    head = b"\x1a" + bytes((size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14))
    with pytest.raises(InvalidInput):
        PROTOBUF.read(head + items)


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """What protoc makes of the published file."""
    folder = tmp_path_factory.mktemp("proto")
    (folder / "fabric_wire.proto").write_text(PROTO.read_text())
    assert protoc.main(["", f"-I{folder}", f"--python_out={folder}", "fabric_wire.proto"]) == 0
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("fabric_wire_pb2")
    finally:
        sys.path.remove(str(folder))


def test_protoc_reads_what_we_write_and_writes_what_we_read(generated):
    for frame in FRAMES:
        data = PROTOBUF.write(frame)
        message = generated.Frame.FromString(data)
        assert PROTOBUF.read(message.SerializeToString()) == frame
    message = generated.Frame.FromString(PROTOBUF.write(Batch(1, ITEMS)))
    dispatch = message.batch.items[4].dispatch
    assert (dispatch.position, dispatch.header.deadline, dispatch.body) == ("17-8", 1.5, b"body")
    assert message.batch.items[5].settle.positions == ["17-8", "18-8"]
    assert not message.batch.items[2].post.HasField("deadline")


def test_a_client_gets_its_first_choice_and_nobody_a_guess():
    assert choose_codec([]) is MSGPACK
    assert choose_codec(["chat", "angelos.v1.json", "angelos.v1.msgpack"]) is JSON
    with pytest.raises(InvalidInput):
        choose_codec(["angelos.v2.json"])
