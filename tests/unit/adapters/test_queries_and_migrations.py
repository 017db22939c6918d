"""Named queries and the order of migrations."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import angelos
from angelos.adapters.stores.postgres import Migration, load_queries, migrations, pending
from angelos.core.errors import Conflict
from angelos.wiring.stores import MEMORY, PLANES


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


def test_each_plane_begins_at_one_and_gives_no_number_twice():
    for plane in PLANES:
        numbers = [migration.number for migration in migrations([plane])]
        assert numbers[:1] in ([], [1]), plane
        assert numbers == sorted(set(numbers)), plane
        assert numbers, plane


def test_no_plane_is_forgotten():
    folders = Path(angelos.__file__).parent.glob("*/migrations")
    assert {f"angelos.{folder.parent.name}" for folder in folders} == {*PLANES, MEMORY}


def test_pending():
    known = [Migration(plane, n, f"000{n}_x.sql", str(n), "") for plane in "ab" for n in (1, 2, 3)]
    rows = [migration[:4] for migration in known]
    assert pending(known, []) == known
    assert pending(known, rows[:2]) == known[2:], "a plane that is ahead holds no other up"
    with pytest.raises(Conflict, match=r"a/0001_x\.sql comes before"):
        pending(known, rows[1:2])
    with pytest.raises(Conflict, match=r"b/0001_x\.sql, which this version does not know"):
        pending(known[:3], rows)
