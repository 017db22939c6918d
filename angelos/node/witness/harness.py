"""The program that shares its process with the tested code: it collects, runs and answers.

It answers the requests of `runner.py`, line by line. What the tested code prints goes to standard
error. Before any of the repository's code is imported, the requests and answers have descriptors
of their own, everything that is needed from the standard library is imported, and `/proc` is out of
reach, so that the memory of this process cannot be read as a file.
"""

from __future__ import annotations

import sys

WORK = "/work"
sys.path[:] = [folder for folder in sys.path if folder not in ("", WORK)]  # before any import

import ast  # noqa: E402
import contextlib  # noqa: E402
import ctypes  # noqa: E402
import doctest  # noqa: E402
import importlib  # noqa: E402
import importlib.metadata  # noqa: E402
import importlib.util  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import struct  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import unittest  # noqa: E402
import unittest.async_case  # noqa: E402
import unittest.mock  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

Outcome = dict[str, Any]
_DETAIL = 600
_FOLDERS = (
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "lib32",
    "lib64",
    "opt",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
    "work",
)
_USED = (ast, contextlib, importlib, traceback)


# -- out of reach ----------------------------------------------------------------------------


def hide_memory() -> None:
    """Keep this process and its children from opening files in /proc/PID, such as `mem`.

    Landlock allows what is listed only, so everything but /proc is, and of /proc what describes
    the machine. Older kernels have no Landlock; there the box has said so already.
    """
    create, add, restrict = 444, 445, 446
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(create, None, 0, 1)
    if abi < 1 or platform.machine() not in {"x86_64", "aarch64"}:
        return
    rights = (1 << {1: 13, 2: 14}.get(abi, 15)) - 1
    ruleset = libc.syscall(create, ctypes.c_char_p(struct.pack("Q", rights)), 8, 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    public = ("cpuinfo", "meminfo", "stat", "loadavg", "uptime", "version", "filesystems", "sys")
    near = (*sys.path, sys.prefix, sys.base_prefix, *os.environ.get("PATH", "").split(":"))
    names = {*_FOLDERS, *(path.split("/")[1] for path in near if path.startswith("/"))} - {"proc"}
    folders = [f"/{name}" for name in sorted(names)]  # the root itself cannot be listed
    for path in (*folders, *(f"/proc/{name}" for name in public)):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = rights if Path(path).is_dir() else rights & (1 | 2 | 4 | 1 << 14)
            libc.syscall(add, ruleset, 1, ctypes.c_char_p(struct.pack("=Qi", allowed, fd)), 0)
            os.close(fd)
    libc.prctl(38, 1, 0, 0, 0)
    if libc.syscall(restrict, ruleset, 0):
        raise OSError(ctypes.get_errno(), "Landlock")
    os.close(ruleset)


class Line:
    """The requests and answers, on descriptors that nothing else knows by number."""

    def __init__(self) -> None:
        self._requests = os.fdopen(os.dup(0), "rb")
        self._answers = os.fdopen(os.dup(1), "wb")
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(2, 1)
        os.close(null)
        sys.stdin, sys.stdout = open(0, encoding="utf-8"), sys.stderr  # noqa: SIM115

    def read(self) -> dict[str, Any] | None:
        """Return the next request; None at the end."""
        line = self._requests.readline()
        return json.loads(line) if line else None

    def answer(self, nonce: str, **fields: Any) -> None:
        """Answer a request."""
        self._answers.write(json.dumps({"nonce": nonce, **fields}).encode() + b"\n")
        self._answers.flush()


def last_line(text: str) -> str:
    """Return the last line of a failure that says something."""
    rows = [row for row in text.splitlines() if row.strip()]
    return rows[-1][:_DETAIL] if rows else ""


# -- unittest --------------------------------------------------------------------------------


class CaseResult(unittest.TestResult):
    """What became of the present case: passed only if somebody said so."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__()
        self._quiet = quiet
        self.outcome: str | None = None
        self.detail = ""
        self.case = ""
        self._testRunEntered = (
            True  # classes and modules stay set up between cases (unittest.suite)
        )

    def begin(self, case: str) -> None:
        """Forget the case before."""
        self.case, self.outcome, self.detail = case, None, ""

    def _worse(self, outcome: str, error: Any) -> None:
        if self.outcome not in {"error", "failed"}:
            self.outcome = outcome
            text = "".join(traceback.format_exception(*error)) if error else ""
            self.detail = last_line(text)
            if not self._quiet:
                sys.stderr.write(f"{self.case}\n{text}\n")

    def addSuccess(self, test: Any) -> None:  # noqa: N802 - unittest's names
        """Record a success."""
        self.outcome = self.outcome or "passed"

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        """Record an assertion that did not hold."""
        self._worse("failed", err)

    def addError(self, test: Any, err: Any) -> None:  # noqa: N802
        """Record another exception."""
        self._worse("error", err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        """Record a part of a test."""
        if err is not None:
            failed = issubclass(err[0], test.failureException)
            self._worse("failed" if failed else "error", err)

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        """Record a skip."""
        if self.outcome in {None, "passed"}:
            self.outcome, self.detail = "skipped", str(reason)[:_DETAIL]

    def addExpectedFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        """Record a failure that was expected."""
        self.outcome = self.outcome or "passed"

    def addUnexpectedSuccess(self, test: Any) -> None:  # noqa: N802
        """Record a success that was not expected."""
        self._worse("failed", None)


class _Program(unittest.TestProgram):
    """`python -m unittest` up to where the tests would run."""

    def runTests(self) -> None:  # noqa: N802
        """Run nothing."""


class UnittestCases:
    """Cases of unittest."""

    def __init__(self, arguments: list[str], sentinels: list[dict[str, str]]) -> None:
        self._result = CaseResult()
        self._guards: dict[str, Any] = {}
        for sentinel in sentinels:
            module = _module_of(sentinel)
            (test,) = _flat(unittest.defaultTestLoader.loadTestsFromModule(module))
            self._guards[sentinel["case"]] = test
        program: Any = _Program(module=None, argv=["python -m unittest", *arguments])
        self._tests: dict[str, Any] = {}
        for test in _flat(program.test):
            self._tests[_unique(test.id(), self._tests)] = test
        self.names = list(self._tests)

    def run(self, case: str, after: str | None) -> Outcome:
        """Run one case; tear down what only it needed if none comes after."""
        self._result.begin(case)
        if case in self._guards:
            result = CaseResult(quiet=True)
            self._guards[case].run(result)
            return {"outcome": result.outcome or "error", "detail": result.detail}
        suite: Any = unittest.TestSuite([self._tests[case]])
        suite.run(self._result)
        if case == self.names[-1]:
            suite._tearDownPreviousClass(None, self._result)  # noqa: SLF001 - as TestSuite.run does
            suite._handleModuleTearDown(self._result)  # noqa: SLF001
        return {"outcome": self._result.outcome or "error", "detail": self._result.detail}


def _flat(suite: Any) -> list[Any]:
    if isinstance(suite, unittest.TestSuite):
        return [test for part in suite for test in _flat(part)]
    return [suite]


def _unique(name: str, taken: dict[str, Any]) -> str:
    number, unique = 1, name
    while unique in taken:
        number += 1
        unique = f"{name}#{number}"
    return unique


def _module_of(sentinel: dict[str, str]) -> Any:
    """Write a sentinel to a folder of its own and import it."""
    path = Path(tempfile.mkdtemp()) / f"{sentinel['module']}.py"
    path.write_text(sentinel["source"], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(sentinel["module"], path)
    assert spec is not None  # noqa: S101 - a path that ends with .py has one
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[sentinel["module"]] = module
    spec.loader.exec_module(module)
    return module


# -- doctest ---------------------------------------------------------------------------------


class DoctestCases:
    """Cases of doctest: one for each docstring with examples."""

    def __init__(self, arguments: list[str], sentinels: list[dict[str, str]]) -> None:
        flags, files = self._options(arguments)
        self._runner = doctest.DocTestRunner(verbose=False, optionflags=flags)
        parser = doctest.DocTestParser()
        self._guards = {
            s["case"]: parser.get_doctest(s["source"], {}, s["case"], None, 0) for s in sentinels
        }
        self._tests: dict[str, Any] = {}
        for file in files:
            for test in self._of_file(file, parser):
                if test.examples:
                    self._tests[_unique(f"{file}::{test.name}", self._tests)] = test
        self.names = list(self._tests)

    @staticmethod
    def _options(arguments: list[str]) -> tuple[int, list[str]]:
        flags, files, words = 0, [], iter(arguments)
        for word in words:
            if word in {"-o", "--option"}:
                flags |= doctest.OPTIONFLAGS_BY_NAME[next(words)]
            elif word in {"-f", "--fail-fast", "-v", "--verbose"}:
                continue
            else:
                files.append(word)
        return flags, files

    @staticmethod
    def _of_file(file: str, parser: doctest.DocTestParser) -> list[Any]:
        path = Path(WORK, file).resolve()
        if not path.is_relative_to(Path(WORK).resolve()):
            raise ValueError(f"{file} lies outside the checkout")
        if path.suffix != ".py":
            text = path.read_text(encoding="utf-8")
            return [parser.get_doctest(text, {}, path.name, str(path), 0)]
        root = path.parent
        while (root / "__init__.py").exists():
            root = root.parent
        if str(root) not in sys.path:
            sys.path.insert(0, str(root))
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        module = importlib.import_module(name)
        if not module.__file__ or Path(module.__file__).resolve() != path:
            raise ValueError(f"{name} was imported from {module.__file__}, not from {file}")
        return doctest.DocTestFinder(exclude_empty=True).find(module, name)

    def run(self, case: str, after: str | None) -> Outcome:
        """Run the examples of one docstring."""
        del after
        test = self._guards.get(case) or self._tests[case]
        text = io.StringIO()
        result = self._runner.run(test, out=text.write, clear_globs=False)
        if case not in self._guards:
            sys.stderr.write(text.getvalue())
        outcome = "passed" if result.failed == 0 and result.attempted else "failed"
        return {"outcome": outcome, "detail": last_line(text.getvalue())}


# -- pytest ----------------------------------------------------------------------------------


class PytestCases:
    """A plug-in of pytest: its loop runs the case that is asked for."""

    def __init__(self, arguments: list[str], sentinels: list[dict[str, str]], line: Line) -> None:
        self._arguments = arguments
        self._sentinels = sentinels
        self._line = line
        self._items: dict[str, Any] = {}
        self._collected: dict[str, str] = {}
        """Collectors that failed, with the error."""
        self._reports: list[Any] = []

    def main(self, nonce: str) -> None:
        """Run pytest, which asks this plug-in for its loop."""
        import pytest

        self._nonce = nonce
        words = [*self._arguments, "-p", "no:cacheprovider", "-p", "no:randomly"]
        pytest.main([*words, "--continue-on-collection-errors"], plugins=[self])

    def pytest_collectreport(self, report: Any) -> None:
        """Keep collectors that failed: each is a case that ends with an error."""
        if report.outcome == "failed":
            self._collected[f"{report.nodeid or '.'} (collection)"] = str(report.longrepr)

    def pytest_collection_modifyitems(self, session: Any, config: Any, items: list[Any]) -> None:
        """Add the sentinels."""
        import pytest

        del config
        for item in items:
            self._items[_unique(item.nodeid, self._items)] = item
        for sentinel in self._sentinels:
            path = Path(tempfile.mkdtemp()) / f"{sentinel['module']}.py"
            path.write_text(sentinel["source"], encoding="utf-8")
            module = pytest.Module.from_parent(session, path=path)
            (item,) = session.genitems(module)
            self._items[sentinel["case"]] = item

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Keep what became of each phase of a case."""
        self._reports.append(report)

    def pytest_runtestloop(self, session: Any) -> bool:
        """Run what is asked for, in place of pytest's own loop."""
        del session
        guards = {sentinel["case"] for sentinel in self._sentinels}
        names = [name for name in self._items if name not in guards]
        self._line.answer(self._nonce, cases=[*self._collected, *names])
        while request := self._line.read():
            case = request["case"]
            if case in self._collected:
                text = self._collected[case]
                sys.stderr.write(text)
                outcome: Outcome = {"outcome": "error", "detail": last_line(text)}
            else:
                outcome = self._run(case, request["after"], quiet=case in guards)
            self._line.answer(request["nonce"], **outcome)
        return True

    def _run(self, case: str, after: str | None, *, quiet: bool) -> Outcome:
        from _pytest.runner import runtestprotocol

        item, following = self._items[case], self._items.get(after or "")
        self._reports.clear()
        begin = time.monotonic()
        if quiet:  # its failure is nothing for people to read
            self._reports += runtestprotocol(item, log=False, nextitem=following)
        else:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        return self._outcome() | {"seconds": time.monotonic() - begin}

    def _outcome(self) -> Outcome:
        phases = {report.when: report for report in self._reports}
        for report in self._reports:
            if report.outcome == "failed":
                crash = getattr(report.longrepr, "reprcrash", None)
                detail = str(getattr(crash, "message", "") or report.longrepr)
                word = "failed" if report.when == "call" else "error"
                return {"outcome": word, "detail": detail.split("\n", 1)[0][:_DETAIL]}
        for report in self._reports:
            if report.outcome == "skipped":
                if hasattr(report, "wasxfail"):
                    return {"outcome": "passed", "detail": "expected to fail"}
                return {"outcome": "skipped", "detail": last_line(str(report.longrepr))}
        ran = "call" in phases and phases["call"].outcome == "passed"
        return {"outcome": "passed" if ran else "error", "detail": ""}


# -- serving ---------------------------------------------------------------------------------


def serve(line: Line) -> None:
    """Answer requests until they end."""
    request = line.read()
    if request is None:
        return
    arguments, sentinels = request["arguments"], request["sentinels"]
    hide_memory()
    sys.path.insert(0, WORK)
    sys.argv = [f"python -m {request['runner']}", *arguments]
    if request["runner"] == "pytest":
        PytestCases(arguments, sentinels, line).main(request["nonce"])
        return
    kind = {"unittest": UnittestCases, "doctest": DoctestCases}[request["runner"]]
    cases = kind(arguments, sentinels)
    line.answer(request["nonce"], cases=cases.names)
    while request := line.read():
        begin = time.monotonic()
        outcome = cases.run(request["case"], request["after"])
        line.answer(request["nonce"], seconds=time.monotonic() - begin, **outcome)


def main() -> None:
    """Serve on standard input and output."""
    serve(Line())


if __name__ == "__main__":
    main()
