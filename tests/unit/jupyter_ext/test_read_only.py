"""What somebody types who may only read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycrdt import Array, Doc, Map, Text

from jupyter_ext.rooms.messages import message_body
from jupyter_ext.rooms.read_only import NOT_KEPT, READ_ONLY, PageNotices, ReadOnlyClient


def page(document: Doc) -> tuple[Doc, list[bytes]]:
    """A browser's copy of a document, and the updates that it sends."""
    doc, sent = Doc(), []
    doc.apply_update(document.get_update())
    doc.observe(lambda event: sent.append(bytes(event.update)))
    return doc, sent


@pytest.fixture
def document() -> Doc:
    doc = Doc()
    doc.get("source", type=Text).insert(0, "one two")
    return doc


def test_what_jupyterlab_writes_by_itself_is_no_change(document):
    doc, sent = page(document)
    reader = ReadOnlyClient("text:file:1")
    doc.get("state", type=Map)["document_id"] = "1"
    assert not reader.changes(document, sent.pop())
    document.get("source", type=Text).insert(0, "by others ")
    doc.get("state", type=Map)["dirty"] = True
    assert not reader.changes(document, sent.pop())
    doc.get("source", type=Text).insert(3, " and a half")  # builds on what was not taken
    assert reader.changes(document, sent.pop())
    assert reader.pages(document) == {doc.client_id}


def test_a_deletion_is_a_change(document):
    doc, sent = page(document)
    del doc.get("source", type=Text)[0:3]
    reader = ReadOnlyClient("text:file:1")
    assert reader.changes(document, sent.pop())


def test_of_a_notebook_the_words_count(document):
    cells = document.get("cells", type=Array)
    cells.append(Map({"cell_type": "code", "source": Text("x = 1"), "metadata": Map({})}))
    doc, sent = page(document)
    reader = ReadOnlyClient("json:notebook:1")
    cell = doc.get("cells", type=Array)[0]
    cell["metadata"]["trusted"] = True
    doc.get("cells", type=Array).append(Map({"cell_type": "code", "source": Text("")}))
    assert [reader.changes(document, update) for update in sent] == [False, False]
    cell["source"].insert(0, "y")
    assert reader.changes(document, sent[-1])


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_bytes_that_are_no_update_are_told_of_or_nothing(data):
    reader = ReadOnlyClient("text:file:1")
    body = message_body(b"\0\2" + data)
    assert isinstance(reader.changes(Doc(), body), bool)


def test_a_page_is_told_once_and_the_list_is_bounded(monkeypatch):
    monkeypatch.setattr("jupyter_ext.rooms.read_only._MAX_PAGES", 2)
    notices = PageNotices()
    assert [notices.first("r", {1}), notices.first("r", {1}), notices.first("s", {1})] == [
        True,
        False,
        True,
    ]
    assert notices.first("r", set())
    assert notices.first("r", {2})
    assert notices.first("r", {1})


def test_what_is_said_fits_into_a_close_frame():
    assert max(len(READ_ONLY.encode()), len(NOT_KEPT.encode())) <= 123
