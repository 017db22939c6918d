"""Which documents `dev` has, by path, and which were edited."""

from __future__ import annotations

from typing import Any

import pytest

from angelos.angelgit.storage.index import DocumentIndex, is_after
from angelos.angelgit.storage.models import DocumentRow
from angelos.core.errors import NotFound
from angelos.core.ids import Offset

NO_DATABASE: Any = None


def row(document, path, *, alive=True):
    return DocumentRow(id=document, repo="r", path=path, mode=0o644, alive=alive, sha256="c")


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


def test_offsets_are_numbers_and_not_text():
    assert is_after(Offset("10-0"), Offset("9-5"))
    assert not is_after(Offset("9-5"), Offset("9-5"))
