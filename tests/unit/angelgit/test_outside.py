"""Whatever is on disk and not from us is in the live document afterwards, or beside the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angelos.angelgit.documents.documents import canonical
from angelos.angelgit.storage.models import WriteRecord
from angelos.angelgit.worktree.reconcile import DiskFile, decide

BASE = "".join(f"{i}\n" for i in range(1, 9))


def on_disk(text: str | bytes, **more) -> DiskFile:
    return DiskFile("file", text.encode() if isinstance(text, str) else text, **more)


def known(text: str) -> WriteRecord:
    return WriteRecord(text.encode())


@st.composite
def edited(draw, letter: str) -> str:
    """The base with lines of one's own put in and some of its own taken out or changed."""
    out: list[str] = []
    for number, line in enumerate(BASE.splitlines(keepends=True)):
        if draw(st.integers(0, 3)) == 0:
            out.append(f"{letter}{number}\n")
        if draw(st.integers(0, 3)):
            out.append(line)
    return "".join(out)


def lines(text: str, letter: str) -> set[str]:
    return {line for line in text.splitlines() if line.startswith(letter)}


@given(edited("D"), edited("L"))
@example("1\n2\n3\n4\n6\n7\nD7\n", "L0\nL1\nL2\nL3\n4\n6\nL6\n7\n")
def test_no_line_of_either_side_is_lost(disk, live):
    verdict = decide("a.txt", on_disk(disk), known(BASE), live)
    assert verdict.do in {"nothing", "write", "take", "aside"}
    if verdict.do == "take":
        assert lines(verdict.text, "D") == lines(disk, "D")
        assert lines(verdict.text, "L") == lines(live, "L")
        kept = set(disk.splitlines()) & set(live.splitlines())
        assert kept <= set(verdict.text.splitlines())
    elif verdict.do == "write":  # nothing that is not in the live document, nothing taken out
        assert lines(disk, "D") == set()
        assert set(live.splitlines()) & set(BASE.splitlines()) <= set(disk.splitlines())


@given(edited("D"))
def test_what_only_the_disk_changed_is_taken_as_it_is(disk):
    verdict = decide("a.txt", on_disk(disk), known(BASE), BASE)
    assert verdict.do == ("nothing" if disk == BASE else "take")
    assert verdict.do == "nothing" or verdict.text == disk


@given(edited("L"))
def test_what_we_wrote_is_written_over(live):
    verdict = decide("a.txt", on_disk(BASE, fresh=True), known(BASE), live)
    assert verdict.do == ("nothing" if live == BASE else "write")


@given(st.binary(max_size=40), st.text(max_size=20), st.none() | st.binary(max_size=10))
def test_content_that_is_not_ours_is_never_written_over(content, live, before):
    """Whatever the bytes are: the only ways are to take them in or to keep them."""
    base = None if before is None else before.decode(errors="replace").encode()
    verdict = decide("a.txt", DiskFile("file", content), WriteRecord(base), live)
    if content == live.encode():
        assert verdict.do == "nothing"
    elif base is None:
        assert verdict.do == "aside"
    elif content == base:
        assert verdict.do == "write"
    elif verdict.do == "write":  # the same edit on both sides
        again = decide(
            "a.txt", DiskFile("file", live.encode()), WriteRecord(base), content.decode()
        )
        assert again.do in {"write", "take"}


@given(edited("D"), edited("L"))
def test_what_was_taken_in_is_not_taken_in_again(disk, live):
    verdict = decide("a.txt", on_disk(disk), known(BASE), live)
    if verdict.do == "take":
        then = decide("a.txt", on_disk(disk), known(disk), verdict.text)
        assert then.do == ("nothing" if disk == verdict.text else "write")


@pytest.mark.parametrize(
    ("disk", "before", "do"),
    [
        (DiskFile("absent"), WriteRecord(), "write"),
        (DiskFile("absent", fresh=True), WriteRecord(), "write"),
        (DiskFile("absent"), known("old\n"), "write"),
        (DiskFile("absent", fresh=True), known("old\n"), "wait"),
        (DiskFile("odd", what="it is a folder"), known("old\n"), "aside"),
        (on_disk("x\n", fresh=True), known("old\n"), "wait"),
        (on_disk("x\n", written=True), known("old\n"), "wait"),
        (on_disk("old\n", written=True), known("old\n"), "wait"),
        (on_disk("live\n", written=True), known("old\n"), "nothing"),
        (on_disk("x\n"), WriteRecord(), "aside"),
        (on_disk("next\n"), WriteRecord(b"old\n", b"next\n"), "write"),
        (on_disk("old\n"), WriteRecord(b"old\n", b"next\n"), "write"),
        (on_disk("x\n"), WriteRecord(b"old\n", b"next\n"), "aside"),
        (on_disk("x\n"), WriteRecord(None, b"next\n"), "aside"),
        (on_disk(b"\xff"), known("live\n"), "aside"),
        (on_disk(b"a\0b"), known("live\n"), "aside"),
        (on_disk(b""), known("live\n"), "take"),
        (on_disk("theirs\n"), known("old\n"), "aside"),
    ],
)
def test_each_case(disk, before, do):
    verdict = decide("a.txt", disk, before, "live\n")
    assert verdict.do == do
    assert verdict.do != "aside" or verdict.why


def book(*sources: str, indent: int = 1) -> str:
    cells = [
        {"id": f"c{i}", "cell_type": "markdown", "metadata": {}, "source": source}
        for i, source in enumerate(sources)
    ]
    return json.dumps(
        {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}, indent=indent
    )


def test_notebooks_are_merged_by_cell():
    path = "n.ipynb"
    base, live = (canonical(path, book(*cells)) for cells in (("a", "b"), ("A", "b")))
    verdict = decide(path, on_disk(book("a", "B", "new")), known(base), live)
    assert verdict.do == "take"
    assert verdict.text == canonical(path, book("A", "B", "new"))
    assert decide(path, on_disk(book("other", "b")), known(base), live).do == "aside"
    # Laid out in another way it is the same notebook.
    assert decide(path, on_disk(book("a", "b", indent=4)), known(base), live).do == "write"
    assert decide(path, on_disk("{ half a note"), known(base), live).do == "aside"


def test_windows_line_ends_do_not_hide_what_was_changed():
    verdict = decide("a.txt", on_disk("1\r\n2\r\n"), known("1\n2\n"), "1\n2\n")
    assert (verdict.do, verdict.text) == ("take", "1\r\n2\r\n")
