"""The guard: what it refuses, with line and reason, and what no input can do to it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.node.runtimes.python import guard
from angelos.node.runtimes.python.guard import GuardPolicy, check
from angelos.node.runtimes.python.runtime import INLINE, refused
from angelos.node.sandbox.proc import tree
from tests.unit.node.fakes import run


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
    finding = check(code)
    assert finding is not None
    assert finding.line == line
    assert reason in finding.reason


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
def test_allowed(code: str) -> None:
    assert check(code) is None


def test_a_list_of_allowed_modules() -> None:
    policy = GuardPolicy(only=frozenset({"math", "os"}))
    assert check("import math, os.path", policy) is None
    finding = check("import math\nimport json", policy)
    assert finding is not None
    assert (finding.line, "not on the list" in finding.reason) == (2, True)


@given(st.text())
def test_no_text_upsets_it(code: str) -> None:
    check(code)


async def test_long_code_is_checked_in_a_process_of_its_own() -> None:
    filler = "x = 1\n" * INLINE
    finding = await refused(run("task-1", filler + "import ctypes\n"))
    assert finding is not None
    assert finding.line == INLINE + 1
    assert finding.reason.startswith("import of ctypes is not allowed")
    assert await refused(run("task-1", filler)) is None


def test_code_that_takes_the_parser_too_long_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = Path(guard.__file__).read_text()
    (tmp_path / "guard.py").write_text(text.replace("MAX_MEMORY = 5,", "MAX_MEMORY = 1,"))
    monkeypatch.setattr(guard, "__file__", str(tmp_path / "guard.py"))
    finding = asyncio.run(refused(run("task-1", "f'" + "{x}" * 300_000 + "'")))
    assert finding is not None
    assert "cannot be checked" in finding.reason


async def test_a_cancelled_check_leaves_no_process() -> None:
    before = {*tree(os.getpid())}
    job = asyncio.create_task(refused(run("task-1", "f'" + "{x}" * 300_000 + "'")))
    while not {*tree(os.getpid())} - before:  # noqa: ASYNC110
        await asyncio.sleep(0)
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    assert not {*tree(os.getpid())} - before
