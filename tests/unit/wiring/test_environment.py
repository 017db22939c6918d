"""The environment is read in two modules; a program in a box sets up its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import angelos

ROOT = Path(angelos.__file__).parents[1]
NAMES = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
READERS = {
    "angelos/client/settings.py": "a client's address, token and data directory",
    "angelos/cli/git.py": "what the git program inherits",
    "angelos/wiring/settings.py": "all other settings, and what children inherit",
    "angelos/node/sandbox/shim.py": "the first process of a box, which gives the program its own",
    "angelos/node/sandbox/display.py": "in a box: where its folder lies",
    "angelos/node/witness/runner.py": "in a box: the number of its report channel",
    "angelos/node/witness/harness.py": "in a box: where its interpreter lies",
    "angelos/node/witness/kernel.py": "in a box: the folders of the kernel that it starts",
    "jupyter_ext/kernels/contents.py": "where this user's trash lies (XDG_DATA_HOME)",
    "angelos/testing/fixtures.py": "whether a missing part fails the test (CI)",
}


def uses(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that use this process's environment."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=attr) if attr in NAMES:
                yield node.lineno
            case ast.ImportFrom(module="os", names=names) if NAMES & {n.name for n in names}:
                yield node.lineno


def readers() -> dict[str, list[int]]:
    found = {}
    for package in ("angelos", "jupyter_ext"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if lines := list(uses(ast.parse(path.read_text(encoding="utf-8")))):
                found[path.relative_to(ROOT).as_posix()] = lines
    return found


def test_nothing_else_reads_the_environment():
    assert readers().keys() == READERS.keys()


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "from os import environ",
        "import os\nenv = dict(os.environ)",
    ],
)
def test_a_reader_is_recognised(source):
    assert list(uses(ast.parse(source)))
