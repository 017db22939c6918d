"""Content on disk that is not ours is in the live document afterwards, or beside the file."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from angelos.angelgit.documents.canonical import canonical
from angelos.angelgit.storage.models import WriteRecord
from angelos.angelgit.worktree.reconcile import DiskFile, FileKind, decide

BASE = "".join(f"{i}\n" for i in range(1, 9))


def on_disk(text: str | bytes, **more) -> DiskFile:
    return DiskFile(FileKind.file, text.encode() if isinstance(text, str) else text, **more)


def wrote(text: str) -> WriteRecord:
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
    decision = decide("a.txt", on_disk(disk), wrote(BASE), live)
    assert decision.action in {"nothing", "write", "take-in", "set-aside"}
    if decision.action == "take-in":
        assert lines(decision.text, "D") == lines(disk, "D")
        assert lines(decision.text, "L") == lines(live, "L")
        kept = set(disk.splitlines()) & set(live.splitlines())
        assert kept <= set(decision.text.splitlines())
    elif decision.action == "write":  # nothing that is not in the live document, nothing taken out
        assert lines(disk, "D") == set()
        assert set(live.splitlines()) & set(BASE.splitlines()) <= set(disk.splitlines())


@given(edited("D"))
def test_an_edit_on_disk_alone_is_taken_in_unchanged(disk):
    decision = decide("a.txt", on_disk(disk), wrote(BASE), BASE)
    assert decision.action == ("nothing" if disk == BASE else "take-in")
    assert decision.action == "nothing" or decision.text == disk


@given(edited("L"))
def test_our_own_text_is_overwritten(live):
    decision = decide("a.txt", on_disk(BASE, recent=True), wrote(BASE), live)
    assert decision.action == ("nothing" if live == BASE else "write")


@given(st.binary(max_size=40), st.text(max_size=20), st.none() | st.binary(max_size=10))
def test_content_of_others_is_never_overwritten(content, live, before):
    """Whatever the bytes are: the only ways are to take them in or to keep them."""
    base = None if before is None else before.decode(errors="replace").encode()
    decision = decide("a.txt", DiskFile(FileKind.file, content), WriteRecord(base), live)
    if content == live.encode():
        assert decision.action == "nothing"
    elif base is None:
        assert decision.action == "set-aside"
    elif content == base:
        assert decision.action == "write"
    elif decision.action == "write":  # the same edit on both sides
        again = decide(
            "a.txt", DiskFile(FileKind.file, live.encode()), WriteRecord(base), content.decode()
        )
        assert again.action in {"write", "take-in"}


@given(edited("D"), edited("L"))
def test_an_edit_is_not_taken_in_twice(disk, live):
    decision = decide("a.txt", on_disk(disk), wrote(BASE), live)
    if decision.action == "take-in":
        again = decide("a.txt", on_disk(disk), wrote(disk), decision.text)
        assert again.action == ("nothing" if disk == decision.text else "write")


@pytest.mark.parametrize(
    ("disk", "before", "action"),
    [
        (DiskFile(FileKind.absent), WriteRecord(), "write"),
        (DiskFile(FileKind.absent, recent=True), WriteRecord(), "write"),
        (DiskFile(FileKind.absent), wrote("old\n"), "restore"),
        (DiskFile(FileKind.absent, recent=True), wrote("old\n"), "wait"),
        (DiskFile(FileKind.unreadable, reason="it is a folder"), wrote("old\n"), "set-aside"),
        (on_disk("x\n", recent=True), wrote("old\n"), "wait"),
        (on_disk("x\n", being_written=True), wrote("old\n"), "wait"),
        (on_disk("old\n", being_written=True), wrote("old\n"), "wait"),
        (on_disk("live\n", being_written=True), wrote("old\n"), "nothing"),
        (on_disk("x\n"), WriteRecord(), "set-aside"),
        (on_disk("next\n"), WriteRecord(b"old\n", b"next\n"), "write"),
        (on_disk("old\n"), WriteRecord(b"old\n", b"next\n"), "write"),
        (on_disk("x\n"), WriteRecord(b"old\n", b"next\n"), "set-aside"),
        (on_disk("x\n"), WriteRecord(None, b"next\n"), "set-aside"),
        (on_disk(b"\xff"), wrote("live\n"), "set-aside"),
        (on_disk(b"a\0b"), wrote("live\n"), "set-aside"),
        (on_disk(b""), wrote("live\n"), "take-in"),
        (on_disk("theirs\n"), wrote("old\n"), "set-aside"),
    ],
)
def test_each_case(disk, before, action):
    decision = decide("a.txt", disk, before, "live\n")
    assert decision.action == action
    assert decision.action != "set-aside" or decision.reason


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
    decision = decide(path, on_disk(book("a", "B", "new")), wrote(base), live)
    assert decision.action == "take-in"
    assert decision.text == canonical(path, book("A", "B", "new"))
    assert decide(path, on_disk(book("other", "b")), wrote(base), live).action == "set-aside"
    # Laid out in another way it is the same notebook.
    assert decide(path, on_disk(book("a", "b", indent=4)), wrote(base), live).action == "write"
    assert decide(path, on_disk("{ half a note"), wrote(base), live).action == "set-aside"


def test_windows_line_ends_do_not_hide_a_change():
    decision = decide("a.txt", on_disk("1\r\n2\r\n"), wrote("1\n2\n"), "1\n2\n")
    assert (decision.action, decision.text) == ("take-in", "1\r\n2\r\n")
