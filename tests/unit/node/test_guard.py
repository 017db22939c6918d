"""The guard: what it refuses, with line and reason, and what no input can do to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.node.runtimes.python.guard import GuardPolicy, check


@pytest.mark.parametrize(
    ("code", "line", "reason"),
    [
        ("import math\nimport ctypes\n", 2, "import of ctypes"),
        ("x = 1\n\nfrom urllib import request", 3, "import of urllib.request"),
        ("import urllib.request as r", 1, "no network"),
        ("import os, socket", 1, "import of socket"),
        ("def f():\n    import xmlrpc.client", 2, "import of xmlrpc.client"),
        ("import importlib\nimportlib.import_module('socket')", 2, "import of socket"),
        ("from importlib import import_module\nimport_module(x)", 2, "computed name"),
        ("eval('1')", 1, "eval()"),
        ("import os\nos.fork()", 2, "os.fork()"),
        ("().__class__.__base__.__subclasses__()", 1, "__subclasses__"),
        ("print(__builtins__)", 1, "__builtins__"),
        ("x = 1\ny = '\0'", 2, "null byte"),
        ("(" * 50 + "-" * 300_000 + "1" + ")" * 50, 0, "too deeply"),
        ("x" * 1_000_001, 0, "more than"),
    ],
)
def test_refused(code: str, line: int, reason: str) -> None:
    found = check(code)
    assert found is not None
    assert found.line == line
    assert reason in found.reason


@pytest.mark.parametrize(
    "code",
    [
        "print(6 * 7)",
        "import os, sys, json, asyncio, subprocess\nfrom study import statistics",
        "import urllib.parse",
        "import re\nre.compile('x')",
        "x = (",
        "",
        "from . import x",
        "import nbformat\nfrom nbclient import NotebookClient",
    ],
)
def test_let_through(code: str) -> None:
    assert check(code) is None


def test_a_list_of_allowed_modules() -> None:
    policy = GuardPolicy(only=frozenset({"math", "os"}))
    assert check("import math, os.path", policy) is None
    found = check("import math\nimport json", policy)
    assert found is not None
    assert (found.line, "not on the list" in found.reason) == (2, True)


@given(st.text())
def test_no_text_upsets_it(code: str) -> None:
    check(code)
