"""Real Jupyter Servers (`jupyter_process.py`) for the tests of this folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from jupyter_process import Served


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    server = Served(tmp_path_factory.mktemp("served"))
    server.start()
    yield server
    server.end()


@pytest.fixture(scope="module")
def above(tmp_path_factory):
    """A server whose root is the folder above the data directory."""
    folder = tmp_path_factory.mktemp("above")
    server = Served(folder / "data", root="..")
    (folder / "data" / "system.json").write_text(json.dumps({"token": "secret-of-the-owner"}))
    (folder / "link").symlink_to(folder / "data")
    server.start()
    yield server
    server.end()


@pytest.fixture
def path(served, request) -> str:
    """A managed document of the test's own."""
    return served.document(re.sub(r"\W+", "_", request.node.name)[:60] + ".md")
