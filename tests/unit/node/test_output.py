"""Output as text: decoded, ordered, in bounded pieces, with head and tail for the result."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angelos.node.commands.output import CHUNK_CHARS, EXCERPT_CHARS, OutputBuffer


@given(st.text(), st.lists(st.integers(1, 7)))
def test_text_survives_any_splitting(text: str, sizes: list[int]) -> None:
    data, buffer, text_read = text.encode("utf-8", "surrogatepass"), OutputBuffer(), ""
    for size in sizes:
        buffer.add("stdout", data[:size])
        data = data[size:]
        text_read += "".join(piece for _, piece in buffer.take())
    buffer.add("stdout", data)
    buffer.end()
    text_read += "".join(piece for _, piece in buffer.take())
    assert text_read == text
    assert buffer.excerpts["stdout"].text() == text


def test_bad_bytes_and_half_characters_become_replacements() -> None:
    buffer = OutputBuffer()
    buffer.add("stderr", b"\xffa\xe2\x82")
    buffer.end()
    assert buffer.take() == [("stderr", "\ufffda\ufffd")]


def test_order_between_streams_is_kept_and_pieces_are_bounded() -> None:
    buffer = OutputBuffer()
    buffer.add("stdout", b"a")
    buffer.add("stdout", b"b")
    buffer.add("stderr", b"c")
    buffer.add("stdout", b"d" * (CHUNK_CHARS + 1))
    pieces = buffer.take()
    assert pieces[:2] == [("stdout", "ab"), ("stderr", "c")]
    assert [len(text) for _, text in pieces[2:]] == [CHUNK_CHARS, 1]


def test_the_result_keeps_head_and_tail() -> None:
    buffer = OutputBuffer()
    buffer.add("stdout", b"head" + b"x" * 3 * EXCERPT_CHARS + b"tail")
    excerpt = buffer.excerpts["stdout"]
    assert excerpt.truncated
    assert excerpt.text().startswith("head")
    assert excerpt.text().endswith("tail")
    assert len(excerpt.text()) < EXCERPT_CHARS + 100
