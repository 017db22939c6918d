"""The import of a new repository refuses what could never be used."""

from __future__ import annotations

import pytest

from angelos.angelgit.changes.importing import import_files
from angelos.control.proposals.repo_config import parse
from angelos.core.errors import InvalidInput


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
