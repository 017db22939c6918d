"""The guard: what it refuses, with line and reason, and what no input can do to it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.python_argv import readable
from angelos.node.runtimes.python import guard
from angelos.node.runtimes.python.guard import GuardPolicy, check, policy_for
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


@pytest.mark.parametrize(
    ("argv", "stdin"),
    [
        (("python", "-c", "import socket"), b""),
        (("python3", "-u", "-B", "-c", "import socket", "-c"), b""),
        (("python", "-"), b"import socket"),
        (("python",), b"import socket"),
        (("python",), b"# coding: utf-7\nimport +AHM-ocket"),
        (("python", "main.py"), b""),
        (("python", "./lib/main.py"), b""),
        (("python", "/in/main.py"), b""),
        (("python", "-m", "main"), b""),
        (("python", "-m", "lib"), b""),
        (("python", "-"), b"x = 1\n" * INLINE + b"import socket"),
    ],
)
async def test_a_command_line_of_python_is_read_as_code_is(
    argv: tuple[str, ...], stdin: bytes, tmp_path: Path
) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("main.py", "lib/main.py", "lib/__main__.py"):
        (tmp_path / name).write_text("import socket")
    finding = await refused(run("task-1", "", argv=argv, stdin=stdin), inputs=tmp_path)
    assert finding is not None
    assert "import of socket" in finding.reason
    assert await refused(run("task-1", "", argv=argv, stdin=stdin, guard=False)) is None


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (("python", "-c", "1"), True),
        (("python", "-m", "pytest", "-q"), True),
        (("python", "-m", "study.check"), True),
        (("python", "-m", "study"), True),
        (("python", "tests/test_x.py"), True),
        (("python", "/work/tests/test_x.py"), True),
        (("python", "/in/data.py"), True),
        (("python", "data.py"), False),
        (("python", "-m", "timeit", "import socket"), False),
        (("python", "-m", "code"), False),
        (("python", "-i", "tests/test_x.py"), False),
        (("python", "-cimport socket"), False),
        (("python", "-Ic", "import socket"), False),
        (("python", "-W", "x", "-c", "1"), False),
        (("python", "/tmp/../usr/lib/python3.11/timeit.py"), False),
        (("python", "tests"), False),
        (("/usr/bin/python3", "-c", "1"), False),
        (("sh", "-c", "python -c 1"), False),
        ((), False),
    ],
)
def test_what_can_be_read_of_a_command_line(argv: tuple[str, ...], *, answer: bool) -> None:
    tree = {"study/check.py", "study/__main__.py", "tests/test_x.py"}
    assert readable(argv, {"data.py"}, tree) is answer


def test_a_task_with_rules_of_the_network_imports_what_talks_over_it() -> None:
    code = "import socket, urllib.request, requests"
    assert check(code, policy_for(network=False)) is not None
    assert check(code, policy_for(network=True)) is None
    assert check("import ctypes", policy_for(network=True)) is not None
