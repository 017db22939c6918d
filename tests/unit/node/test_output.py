"""Output as text: decoded, ordered, in bounded pieces, with head and tail for the result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angelos.node.commands.output import CHUNK_CHARS, EXCERPT_CHARS, TAIL_BYTES, OutputBuffer, Piece


@given(st.text(), st.lists(st.integers(1, 7)))
def test_text_survives_any_splitting(text: str, sizes: list[int]) -> None:
    data, buffer, text_read = text.encode("utf-8", "surrogatepass"), OutputBuffer(), ""
    for size in sizes:
        buffer.add("stdout", data[:size])
        data = data[size:]
        text_read += "".join(piece.text for piece in buffer.take())
    buffer.add("stdout", data)
    buffer.end()
    text_read += "".join(piece.text for piece in buffer.take())
    assert text_read == text
    assert buffer.excerpts["stdout"].text() == text


def test_bad_bytes_and_half_characters_become_replacements() -> None:
    buffer = OutputBuffer()
    buffer.add("stderr", b"\xffa\xe2\x82")
    buffer.end()
    pieces = buffer.take()
    assert "".join(piece.text for piece in pieces) == "\ufffda\ufffd"
    assert b"".join(piece.raw for piece in pieces) == b"\xffa\xe2\x82"


def test_order_between_streams_is_kept_and_pieces_are_bounded() -> None:
    buffer = OutputBuffer()
    buffer.add("stdout", b"a")
    buffer.add("stdout", b"b")
    buffer.add("stderr", b"c")
    buffer.add("stdout", b"d" * (CHUNK_CHARS + 1))
    pieces = buffer.take()
    assert pieces[:2] == [Piece("stdout", "ab"), Piece("stderr", "c")]
    assert [len(piece.text) for piece in pieces[2:]] == [CHUNK_CHARS, 1]


def test_the_result_keeps_head_and_tail() -> None:
    buffer = OutputBuffer()
    buffer.add("stdout", b"head" + b"x" * 3 * EXCERPT_CHARS + b"tail")
    excerpt = buffer.excerpts["stdout"]
    assert excerpt.truncated
    assert excerpt.text().startswith("head")
    assert excerpt.text().endswith("tail")
    assert len(excerpt.text()) < EXCERPT_CHARS + 100


@given(st.lists(st.binary(max_size=9)), st.integers(1, 7))
def test_every_byte_survives_any_splitting(pieces: list[bytes], size: int) -> None:
    data, buffer, read = b"".join(pieces), OutputBuffer(), b""
    for i in range(0, len(data), size):
        buffer.add("stdout", data[i : i + size])
        read += b"".join(piece.raw or piece.text.encode() for piece in buffer.take())
    buffer.end()
    read += b"".join(piece.raw or piece.text.encode() for piece in buffer.take())
    assert read == data


def test_of_a_long_log_the_beginning_comes_at_once_and_the_end_at_last() -> None:
    buffer = OutputBuffer(limit=10)
    buffer.add("stdout", b"head" + "é".encode() * TAIL_BYTES)
    (head,) = buffer.take()
    assert head.text == "head" + "é" * 3
    buffer.add("stdout", b"tail")
    assert buffer.take() == []
    assert not buffer.full
    buffer.end()
    tail = buffer.take()
    assert tail[-1].text.endswith("étail")
    assert not any(piece.raw for piece in tail)
    text = "".join(piece.text for piece in tail)
    assert 10 + tail[0].omitted + len(text.encode()) == 4 + 2 * TAIL_BYTES + 4
    assert buffer.excerpts["stdout"].text().endswith("étail")
