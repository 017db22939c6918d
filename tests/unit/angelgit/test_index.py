"""Which documents `dev` has, by path, and which were edited."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from angelos.angelgit.storage.index import DocumentIndex, is_after
from angelos.angelgit.storage.models import DocumentRow
from angelos.core.errors import NotFound
from angelos.core.ids import START, Offset

NO_DATABASE: Any = None


def row(document, path, *, alive=True, upto=START):
    return DocumentRow(
        id=document, repo="r", path=path, mode=0o644, alive=alive, sha256="c", upto=upto
    )


class OneStore:
    """A store with these documents, instead of a database."""

    def __init__(self, *rows):
        self.rows = rows

    @contextlib.asynccontextmanager
    async def begin(self):
        yield self

    async def documents(self, _):
        return list(self.rows)


def test_a_path_belongs_to_the_living_document():
    index = DocumentIndex(NO_DATABASE)
    index.update("r", [row("1", "a"), row("2", "b")])
    assert index.paths("r") == {"a": "1", "b": "2"}
    # In one commit a document is deleted, and another takes its path.
    index.update("r", [row("3", "a"), row("1", "a", alive=False)])
    assert index.document("r", "a") == "3"
    index.update("r", [row("3", "a", alive=False)])
    assert not index.exists("r", "a")
    assert not index.rows["3"].alive
    with pytest.raises(NotFound):
        index.document("r", "a")


def test_a_document_that_moves_leaves_its_old_path():
    index = DocumentIndex(NO_DATABASE)
    index.update("r", [row("1", "a")])
    index.update("r", [row("1", "b")])
    assert index.paths("r") == {"b": "1"}


def test_a_commit_cleans_only_its_own_documents():
    index = DocumentIndex(NO_DATABASE)
    index.mark_clean("r", ["1"])
    for document in ("1", "2"):
        index.mark_dirty("r", document)
    index.mark_clean("r", ["1"])
    assert index.dirty("r") == {"2"}
    assert index.dirty("other") == set()


async def test_what_another_server_set_back_is_read_again():
    """A collection there begins a stream anew, so that its snapshot's position is lower."""
    stores: Any = OneStore(row("1", "moved"))
    index = DocumentIndex(stores)
    index.update("r", [row("1", "a", upto=Offset("9-0"))])
    await index.load("r")  # here an older row is one that was read before a snapshot
    assert index.paths("r") == {"a": "1"}
    index.hand_over("r", "other")
    await index.load("r")
    index.elsewhere.clear()
    assert index.paths("r") == {"moved": "1"}


def test_offsets_are_numbers_and_not_text():
    assert is_after(Offset("10-0"), Offset("9-5"))
    assert not is_after(Offset("9-5"), Offset("9-5"))
