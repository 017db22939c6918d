"""Attacks on the rule over syntax trees: each asks a person; what is honest does not."""

from __future__ import annotations

import json

import pytest

from angelos.control.gate.inspect import Patch, PatchedFile, inspect
from angelos.core.findings import GateRule

PRESENT = ("study/__init__.py", "study/stats.py", "tests/__init__.py", "tests/test_stats.py")
MAIN = "import os\nimport ctypes\nfrom ctypes import CDLL\n\ndef mean(xs):\n    return sum(xs)\n"


def findings(path, after, before=None, *, agent=True, **fields):
    file = PatchedFile(
        path=path,
        before=None if before is None else before.encode(),
        after=None if after is None else after.encode() if isinstance(after, str) else after,
    )
    patch = Patch(
        files=(file,), present=(*PRESENT, *fields.pop("present", ())), agent=agent, **fields
    )
    return inspect(patch)


CODE = {
    "exit": "import os\nos._exit(0)\n",
    "exit of a function": "import os\n\ndef f():\n    os._exit(0)\n",
    "exit by another name": "from os import _exit as leave\n",
    "exit through posix": "import posix\n",
    "exit through another module": "import shutil\nshutil.os._exit(0)\n",
    "exit through a private name": "import tempfile\ntempfile._os._exit(0)\n",
    "kill": "import os\nos.kill(os.getpid(), 9)\n",
    "atexit": "import atexit\n",
    "atexit by weakref": "import weakref\nweakref.finalize(object(), print)\n",
    "thread": "import threading\nthreading.Thread(target=print).start()\n",
    "timer": "from threading import Timer\n",
    "pool": "from concurrent.futures import ThreadPoolExecutor\n",
    "process": "import subprocess\nsubprocess.run(['true'])\n",
    "process of asyncio": """import asyncio

async def f(run=asyncio.create_subprocess_exec):
    await run()
""",
    "fork": "import os\nos.fork()\n",
    "multiprocessing": "import multiprocessing\n",
    "exec": "exec('import os')\n",
    "eval": "x = eval('1')\n",
    "eval by another name": "e = eval\n",
    "eval of a builtin module": "import builtins\n",
    "compile": "c = compile('1', 'a', 'eval')\n",
    "import at run time": "__import__('os')\n",
    "importlib": "import importlib\nimportlib.import_module('os')\n",
    "runpy": "import runpy\n",
    "pickle": "import pickle\npickle.loads(b'')\n",
    "marshal": "import marshal\n",
    "code of yaml": "import yaml\nyaml.load('', Loader=yaml.Loader)\n",
    "code of pandas": "import pandas\npandas.eval('1')\n",
    "code in an annotation": "def f(x: 'print(1)'):\n    return x\n",
    "hints that run": "import typing\ntyping.get_type_hints(int)\n",
    "ctypes": "import ctypes\n",
    "cffi": "import cffi\n",
    "gc": "import gc\ngc.get_objects()\n",
    "sys.modules": "import sys\nsys.modules['unittest'] = None\n",
    "sys.path": "import sys\nsys.path.insert(0, '/tmp')\n",
    "modules by name": "from sys import modules\n",
    "trace": "import sys\nsys.settrace(print)\n",
    "frames": "import sys\nsys._getframe(1)\n",
    "frames by inspect": "import inspect\ninspect.stack()\n",
    "frames of an exception": "def f(e):\n    return e.__traceback__.tb_frame\n",
    "frames of a generator": "def f(g):\n    return g.gi_frame.f_back\n",
    "globals": "globals()['sum'] = len\n",
    "globals of a function": "def f(g):\n    return g.__globals__\n",
    "subclasses": "x = ().__class__.__bases__[0].__subclasses__()\n",
    "subclasses by name": "def f(o):\n    return getattr(o, '__sub' + 'classes__')\n",
    "subclasses by format": "x = '{0.__globals__}'.format(print)\n",
    "attribute by name": """from operator import attrgetter

def f(n, o):
    return attrgetter(n)(o)
""",
    "patched assertion": "import unittest\nunittest.TestCase.assertEqual = print\n",
    "patched by a parameter": "def f(c):\n    c.assertEqual = print\n",
    "patched by setattr": "def f(c):\n    setattr(c, 'assertEqual', print)\n",
    "patched by object": "def f(c):\n    object.__setattr__(c, 'x', 1)\n",
    "patched by a borrowed setattr": "s = object.__setattr__\n",
    "patched library": "import math\nmath.isclose = max\n",
    "patched library by a name": "import math\n\ndef f():\n    m = math\n    m.isclose = max\n",
    "patched library passed on": "import math\n\ndef f(m):\n    m.isclose = max\n\nf(math)\n",
    "patched environment": "import os\nos.environ['PYTHONPATH'] = '/tmp'\n",
    "patched code": "def f(g, h):\n    g.__code__ = h\n",
    "another sum": "def sum(xs):\n    return 0\n",
    "another open": "open = print\n",
    "equal to everything": "class N(int):\n    def __eq__(self, other):\n        return True\n",
    "true at will": "class N:\n    def __bool__(self):\n        return True\n",
    "metaclass": "class M(type):\n    pass\n\nclass A(metaclass=M):\n    pass\n",
    "class at run time": "A = type('A', (), {})\n",
    "on collection": "class A:\n    def __del__(self):\n        print(1)\n",
    "module attribute": "def __getattr__(name):\n    return 1\n",
    "memory": "open('/proc/self/mem')\n",
    "descriptor": "open(3, 'w')\n",
    "descriptor by its folder": "from pathlib import Path\nPath('/dev/fd/3').write_text('x')\n",
    "pytest in code": "import pytest\n",
    "skip in code": "import unittest\nraise unittest.SkipTest('no')\n",
    "star": "from math import *\n",
    "another encoding": b"# coding: utf-7\n+AGU-val\n",
    "wide letters": "\uff45\uff58\uff45\uff43('1')\n",
    "an identifier that looks alike": "\u0455um = len\n",
    "no Python": "def (:\n",
    "deep": "x = " + "(" * 5000 + ")" * 5000 + "\n",
    "plug-in of logging": "import logging.config\n",
    "site": "import site\n",
    "signal": "import signal\nsignal.signal(15, print)\n",
    "socket": "import socket\n",
    "a local named __import__": (
        "def f():\n    g = lambda __import__: 0\n    return __import__('ctypes').CDLL(None)\n"
    ),
    "a local named exec": "def f():\n    g = lambda exec: exec\n    exec('1')\n",
    "a local named eval": "def f():\n    [0 for eval in ()]\n    eval('1')\n",
    "a local named getattr": "def f(getattr):\n    getattr(1, 'a')\n",
    "sqlite": "def f(c):\n    c.enable_load_extension(1)\n",
}


MORE = {
    "an item of a foreign module in a comprehension": "import math\n[0 for math.pi in [3]]\n",
    "a foreign list": "import linecache\nlinecache.cache.clear()\n",
    "a foreign abstract class": "import numbers\nnumbers.Number.register(str)\n",
    "hook of unittest": "def load_tests(loader, tests, pattern):\n    return None\n",
    "hook before tests": "def setUpModule():\n    pass\n",
    "hook of pytest": "def pytest_runtest_call(item):\n    pass\n",
    "plug-ins of pytest": "pytest_plugins = ['x']\n",
    "doctests elsewhere": "__test__ = {}\n",
    "modules elsewhere": "__path__ = ['/tmp']\n",
    "another class": "class A:\n    __class__ = int\n",
    "a number without differences": "class A(float):\n    def __sub__(self, o):\n        pass\n",
    "a number without distance": "class A(float):\n    def __abs__(self):\n        return 0.0\n",
    "a number from the right": "class A(float):\n    def __rsub__(self, o):\n        return 0.0\n",
    "a number of a number": (
        "class A(float):\n    pass\n\nclass B(A):\n    def __round__(self):\n        pass\n"
    ),
    "a text that holds everything": (
        "class A(str):\n    def __contains__(self, x):\n        return True\n"
    ),
    "pickles of numpy": "import numpy as np\nnp.load('x', allow_pickle=True)\n",
    "IPython": "get_ipython().run_cell('x')\n",
    "descriptor by os": "import os\nos.fdopen(3, 'wb')\n",
    "a .pth file": "def f():\n    open('x.pth', 'w').write('import os')\n",
    "a conftest": "from pathlib import Path\n\ndef f():\n    Path('conftest.py').write_text('')\n",
    "a start-up module": "def f(p):\n    (p / 'sitecustomize.py').write_text('')\n",
    "a test of main": "import shutil\n\ndef f():\n    shutil.copy('a', 'tests/test_stats.py')\n",
    "a file at import": "open('data.txt', 'w').write('x')\n",
    "a file at import, mode unknown": "M = 'w'\nopen('data.txt', M)\n",
    "a file moved at import": "import os\nos.rename('a', 'b')\n",
    "a file of pathlib at import": "from pathlib import Path\nPath('x').write_text('')\n",
}


@pytest.mark.parametrize("way", MORE)
def test_more_code_that_could_fool_a_test_asks_a_person(way):
    before = "def mean(xs):\n    return sum(xs)\n"
    assert findings("study/stats.py", f"{before}\n{MORE[way]}", before)


HONEST = {
    "a vector": "class V:\n    def __sub__(self, o):\n        return V()\n",
    "a text of its own": "class Name(str):\n    def __repr__(self):\n        return 'Name'\n",
    "a file in a function": "def save(path, text):\n    open(path, 'w').write(text)\n",
    "a file read at import": "TEXT = open('data.txt').read()\n",
    "a list of its own": "SEEN = []\n\ndef f(x):\n    SEEN.append(x)\n",
    "names of a module": "__all__ = ['mean']\n__version__ = '1'\n",
}


@pytest.mark.parametrize("way", HONEST)
def test_honest_code_that_looks_alike_asks_nobody(way):
    before = "def mean(xs):\n    return sum(xs)\n"
    assert not findings("study/stats.py", f"{before}\n{HONEST[way]}", before)


@pytest.mark.parametrize("way", CODE)
def test_code_that_could_fool_a_test_asks_a_person(way):
    rules = {finding.rule for finding in findings("study/new.py", CODE[way])}
    assert rules == {GateRule.syntax}


@pytest.mark.parametrize("way", [way for way in CODE if isinstance(CODE[way], str)])
def test_a_notebook_is_read_as_code(way):
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": CODE[way]}
    body = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    assert {finding.rule for finding in findings("new.ipynb", body)} == {GateRule.syntax}


@pytest.mark.parametrize("sources", [
    ["%time __import__('os').system('id')"],
    ["%%timeit __import__('os').system('id')"],
    ['x = """\n%matplotlib inline """; exec("1"); y = """\n"""'],
    ['"""', "import ctypes", '"""'],
    ["%%time\nimport ctypes"],
])  # fmt: skip
def test_a_magic_hides_no_code(sources):
    cells = [
        {"cell_type": "code", "id": f"c{n}", "metadata": {}, "outputs": [], "source": source}
        for n, source in enumerate(sources)
    ]
    body = json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    assert GateRule.syntax in {finding.rule for finding in findings("new.ipynb", body)}


def test_a_magic_that_is_understood_asks_nobody():
    source = "%%time\n%matplotlib inline\nx = 1\n"
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "source": source}
    body = json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    assert not findings("new.ipynb", body)


@pytest.mark.parametrize(
    "use", ["CDLL(None)", "ctypes.CDLL(None)", "os._exit(0)", "os.system('true')", "ctypes"]
)
def test_what_main_imports_is_not_understood_for_that(use):
    after = MAIN + f"\ndef other():\n    return {use}\n"
    assert findings("study/stats.py", after, MAIN)


def test_what_stands_in_main_is_not_looked_at_again():
    assert not findings("study/stats.py", MAIN + "\nN = 1\n", MAIN)


def test_a_person_is_not_asked_for_their_code():
    assert not findings("study/new.py", CODE["exec"], agent=False)


NAMES = {
    "nbformat.py": GateRule.shadows_module,
    "asyncio/__init__.py": GateRule.shadows_module,
    "src/json.py": GateRule.shadows_module,
    "tests/sub/random.py": GateRule.shadows_module,
    "unittest/__init__.py": GateRule.shadows_module,
    "ipykernel_launcher.py": GateRule.shadows_module,
    "sitecustomize.py": GateRule.shadows_module,
    "study/usercustomize.py": GateRule.shadows_module,
    "a.pth": GateRule.shadows_module,
    "study/x.so": GateRule.shadows_module,
    "study/__pycache__/stats.cpython-311.pyc": GateRule.shadows_module,
    "plug.dist-info/entry_points.txt": GateRule.shadows_module,
    "plug.egg-info/entry_points.txt": GateRule.shadows_module,
    "tests/conftest.py": GateRule.judge_changed,
    "Conftest.py": GateRule.judge_changed,
    "pytest.ini": GateRule.judge_changed,
    "study/PyProject.toml": GateRule.judge_changed,
    ".github/workflows/a.yml": GateRule.judge_changed,
    "Tests/test_stats.py": GateRule.looks_alike,
    "tests/Test_stats.py": GateRule.looks_alike,
    "tests/t\u0435st_stats.py": GateRule.looks_alike,
    "STUDY/x.py": GateRule.looks_alike,
    "run.sh": GateRule.file_kind,
    "study/a.c": GateRule.file_kind,
    "study/a.pkl": GateRule.file_kind,
}


@pytest.mark.parametrize("path", NAMES)
def test_a_name_that_judges_or_is_imported_by_others_asks_a_person(path):
    assert NAMES[path] in {finding.rule for finding in findings(path, "X = 1\n")}


@pytest.mark.parametrize(
    "path", ["study/random.py", "study/more/new.py", "tests/test_new.py", "a.md"]
)
def test_an_ordinary_name_does_not(path):
    present = ("study/more/__init__.py",)
    assert not findings(path, "X = 1\n" if path.endswith("py") else "words", present=present)


TEST = """import unittest
from study import stats


class Mean(unittest.TestCase):
    def test_a(self):
        self.assertEqual(stats.mean([1]), 1)
"""
WEAKER = {
    "removed": None,
    "emptied": "",
    "skipped": TEST.replace("    def test_a", "    @unittest.skip('x')\n    def test_a"),
    "hollow": TEST.replace("self.assertEqual(stats.mean([1]), 1)", "stats.mean([1])"),
    "overridden": TEST + "\n    def test_a(self):\n        pass\n",
    "set up to pass": TEST + "\n    def setUp(self):\n        self.assertEqual = print\n",
    "another base": TEST.replace("unittest.TestCase", "Easy"),
    "another import": TEST.replace("from study import stats", "from study import fake as stats"),
    "skipped as a whole": TEST + "\nraise unittest.SkipTest('x')\n",
    "loaded otherwise": TEST + "\ndef load_tests(*args):\n    return unittest.TestSuite()\n",
    "a fixture": TEST + "\ndef fixture():\n    pass\n",
}


@pytest.mark.parametrize("way", WEAKER)
@pytest.mark.parametrize("agent", [True, False])
def test_a_test_of_main_that_may_notice_less_asks_a_person(way, agent):
    rules = {f.rule for f in findings("tests/test_stats.py", WEAKER[way], TEST, agent=agent)}
    assert rules & {GateRule.judge_changed, GateRule.judge_removed}


def test_one_more_test_is_free():
    more = TEST + "\n    def test_b(self):\n        self.assertEqual(stats.mean([2]), 2)\n"
    assert not findings("tests/test_stats.py", more, TEST)
    assert not findings("tests/test_more.py", TEST)


def test_an_example_of_main_that_is_changed_asks_a_person():
    before = 'def f():\n    """Return 1.\n\n    >>> f()\n    1\n    """\n    return 1\n'
    for after in (
        before.replace("    1\n", "    2\n"),
        before.replace("f()\n    1", "f() # doctest: +SKIP\n    1"),
    ):
        assert findings("study/stats.py", after, before, doctested=("study/stats.py",))
    more = before.replace('    """\n    return', '    >>> f() + 1\n    2\n    """\n    return')
    assert not findings("study/stats.py", more, before, doctested=("study/stats.py",))
