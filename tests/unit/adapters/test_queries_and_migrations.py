"""Named queries and the order of migrations."""

from __future__ import annotations

import sys

import pytest

from angelos.adapters.stores.postgres import Migration, load_queries, migrations, pending
from angelos.core.errors import Conflict


@pytest.fixture
def package(tmp_path, monkeypatch):
    def make(text):
        folder = tmp_path / "some_queries"
        folder.mkdir()
        (folder / "__init__.py").touch()
        (folder / "queries.sql").write_text(text)
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("some_queries", None)
        return "some_queries"

    return make


def test_queries_by_name(package):
    text = "-- A comment.\n\n-- name: one\nselect 1;\n\n-- name: two\nselect %(x)s -- why\n  , 2;\n"
    assert load_queries(package(text)) == {
        "one": "select 1",
        "two": "select %(x)s -- why\n  , 2",
    }


def test_a_name_twice_or_text_before_the_first_name(package):
    with pytest.raises(ValueError, match="one twice"):
        load_queries(package("-- name: one\nselect 1;\n-- name: one\nselect 2;\n"))


def test_text_before_the_first_name(package):
    with pytest.raises(ValueError, match="before its first"):
        load_queries(package("select 1;\n-- name: one\nselect 1;\n"))


def test_numbers_stand_once():
    numbers = [migration.number for migration in migrations()]
    assert numbers == sorted(set(numbers))


def test_pending():
    known = [Migration(n, f"000{n}_x.sql", str(n), "") for n in (1, 2, 3)]
    rows = [migration[:3] for migration in known]
    assert pending(known, []) == known
    assert pending(known, rows[:2]) == known[2:]
    with pytest.raises(Conflict, match=r"0001_x\.sql comes before"):
        pending(known, rows[1:2])
