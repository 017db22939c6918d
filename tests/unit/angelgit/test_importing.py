"""The import of a new repository refuses what could never be used."""

from __future__ import annotations

import pytest

from angelos.angelgit.changes.importing import import_files
from angelos.control.proposals.repo_config import parse
from angelos.core.errors import InvalidInput
from angelos.core.revision_v2 import EntryMode


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "", "a/b": ""}, "a/b cannot be beside a"),
        ({"angelos.toml": "[pipeline]\nsteps = [\n= 1\n"}, "line 3"),
        ({"angelos.toml": f"x = {'1' * 5000}\n"}, "cannot be read"),
        ({"angelos.toml": "[pipelines]\n"}, "unknown field `pipelines`"),
        ({"angelos.toml": "[review]\nprotected = 3\n"}, "review.protected"),
    ],
)
def test_an_import_that_could_never_be_used_is_refused(files, says):
    with pytest.raises(InvalidInput, match=says):
        import_files("r", {path: text.encode() for path, text in files.items()}, parse)


def test_every_kind_of_file_is_kept_as_it_is():
    files = {"run.sh": b"#!/bin/sh\n", "pic": b"\xff\0", "link": b"run.sh", "a.txt": b"a\r\n"}
    modes = {"run.sh": EntryMode.executable, "pic": EntryMode.executable, "link": EntryMode.symlink}
    imported = import_files("r", files, modes=modes)
    assert {e.path: (e.mode, e.size) for e in imported.entries} == {
        path: (modes.get(path, EntryMode.file), len(body)) for path, body in files.items()
    }
    assert {row.path: row.mode for row, _ in imported.rows} == {"a.txt": 0o644, "run.sh": 0o755}
    assert list(imported.blobs.values()) == [b"\xff\0"]
    assert set(imported.contents) == {b"#!/bin/sh\n", b"run.sh", b"a\r\n"}


@pytest.mark.parametrize(
    ("path", "body", "mode"),
    [
        ("link", b"../out", EntryMode.symlink),
        ("link", b"/etc/passwd", EntryMode.symlink),
        ("link", b"\xff", EntryMode.symlink),
        ("book.ipynb", b"\xff", EntryMode.file),
        ("angelos.toml", b"\xff", EntryMode.file),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(path, body, mode):
    with pytest.raises(InvalidInput, match=path):
        import_files("r", {path: body}, modes={path: mode})


def test_a_mode_needs_its_file():
    with pytest.raises(InvalidInput, match=r"run\.sh"):
        import_files("r", {"a": b""}, modes={"run.sh": EntryMode.executable})
