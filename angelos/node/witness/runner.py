r"""The program that asks for tests, in a box of its own; it uses the standard library only.

    node -> stdin    one line: the plan; then what the harness answers, line by line
    stdout -> node   what the harness is asked, line by line
    ANGELOS_REPORT_FD   events of `core.reports`, which only this process can write

A request has a nonce that the answer repeats. Sentinels, cases of its own that must fail, are
mixed in at random places with random names: a patched assertion, or a runner that reports what it
likes, passes one of them. The first thing that is wrong ends the program, without the last event:
such a report is incomplete and no evidence.
"""

from __future__ import annotations

import functools
import json
import os
import random
import secrets
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

from angelos.node.witness.outputs import Broken, Notebook

MAX_LINE = 16_000_000
_random = random.SystemRandom()
MAX_CASES = 50_000
MAX_NAME = 1_000
MAX_PIECE = 8_000
_OUTCOMES = ("passed", "failed", "error", "skipped")

_ASSERTIONS = (
    "self.assertEqual({0}, {0} + 1)",
    "self.assertNotEqual({0}, {0})",
    "self.assertTrue({0} < {0})",
    "self.assertFalse({0} == {0})",
    "self.assertIs(None, {0})",
    "self.assertIsNone({0})",
    "self.assertIsNotNone(None)",
    "self.assertIn({0}, [])",
    "self.assertNotIn({0}, [{0}])",
    "self.assertIsInstance({0}, str)",
    "self.assertGreater({0}, {0} + 1)",
    "self.assertLess({0} + 1, {0})",
    "self.assertGreaterEqual({0}, {0} + 1)",
    "self.assertLessEqual({0} + 1, {0})",
    "self.assertAlmostEqual({0}.0, {0}.5)",
    "self.assertListEqual([{0}], [])",
    "self.assertDictEqual({{}}, {{{0}: 1}})",
    "self.assertCountEqual([{0}], [])",
    "self.assertRegex('a{0}', 'b')",
    "self.assertMultiLineEqual('a{0}', 'b')",
    "self.fail('no {0}')",
    "assert {0} != {0}, 'no'",
    "with self.assertRaises(KeyError): len([{0}])",
)
_PLAIN = (
    "assert {0} == {0} + 1",
    "assert {0} in []",
    "assert not [{0}]",
    "assert {0} is None",
    "assert [{0}, 1] == [{0}, 2]",
    "assert isinstance({0}, str)",
    "assert abs({0} - {0}.5) < 1e-9",
    "raise AssertionError('no {0}')",
)
_PYTEST = (
    *_PLAIN,
    "import pytest\n    assert {0} == pytest.approx({0} * 2)",
    "import pytest\n    with pytest.raises(KeyError):\n        len([{0}])",
    "import pytest\n    pytest.fail('no {0}')",
)
_EXAMPLES = ("{0} + 1\n{0}", "'a{0}'\n'b'", "[{0}] == []\nTrue", "print({0})\n-{0}")


class ReportChannel:
    """Writes events, each one line."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]


class Harness:
    """The other box: it is asked and answers."""

    def __init__(self, answers: BinaryIO, requests: BinaryIO) -> None:
        self._answers = answers
        self._requests = requests

    def ask(self, nonce: str, **request: Any) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            Broken: There is none, or it is not the answer to this request.
        """
        self._requests.write(json.dumps({"nonce": nonce, **request}).encode() + b"\n")
        self._requests.flush()
        line = self._answers.readline(MAX_LINE + 1)
        if not line.endswith(b"\n"):
            raise Broken("the judged process has ended, or its answer is too long")
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise Broken("an answer is not JSON") from error
        if not isinstance(answer, dict) or answer.get("nonce") != nonce:
            raise Broken("an answer does not repeat the nonce of its request")
        return answer


class Sentinel:
    """A case that must fail."""

    def __init__(self, kind: str, template: str, path: str) -> None:
        word, value = _word(), _random.randrange(100, 10**6)
        body = template.format(value)
        self.module = f"test_{word}"
        if kind == "unittest":
            name = f"Test{_word().title()}"
            method = f"test_{_word()}"
            self.case = f"{self.module}.{name}.{method}"
            self.source = (
                f"import unittest\n\n\nclass {name}(unittest.TestCase):\n"
                f"    def {method}(self):\n        {body}\n"
            )
        elif kind == "pytest":
            method = f"test_{_word()}"
            self.case = f"{self.module}.py::{method}"
            self.source = f"def {method}():\n    {body}\n"
        elif kind == "doctest":
            code, shown = body.split("\n")
            self.case = f"{self.module}.{_word()}"
            self.source = f">>> {code}\n{shown}\n"
        else:
            self.case = f"{path}::{secrets.token_hex(4)}"
            self.source = body


def _word() -> str:
    """Return a random word that looks like a name."""
    vowels, consonants = "aeiou", "bcdfghklmnprstvw"
    return "".join(_random.choice(consonants) + _random.choice(vowels) for _ in range(5))


def sentinels(kind: str, path: str = "") -> list[Sentinel]:
    """Return the sentinels of one run; `path` is the notebook's."""
    templates = {"unittest": _ASSERTIONS, "pytest": _PYTEST, "doctest": _EXAMPLES}
    return [Sentinel(kind, text, path) for text in templates.get(kind, _PLAIN)]


def mixed(cases: list[str], guards: list[str]) -> list[str]:
    """Return all cases in order, with sentinels between groups: one first, one last, others random.

    Cases of one class or file stay together, because they share what was set up for them.
    """
    ends = [i for i in range(1, len(cases)) if _group(cases[i]) != _group(cases[i - 1])]
    places = [0, len(cases), *ends]
    order = _random.sample(guards, len(guards))
    at: dict[int, list[str]] = {}
    for index, guard in enumerate(order):
        place = (0, len(cases))[index] if index < 2 else _random.choice(places)  # noqa: PLR2004
        at.setdefault(place, []).append(guard)
    out: list[str] = []
    for index in range(len(cases) + 1):
        out += at.get(index, [])
        out += cases[index : index + 1]
    return out


def _group(case: str) -> str:
    return case.partition("::")[0] if "::" in case else case.rpartition(".")[0]


def collect(harness: Harness, plan: dict[str, Any], guards: list[Sentinel]) -> list[str]:
    """Have the harness collect and return the names of its cases, without sentinels."""
    answer = harness.ask(
        secrets.token_hex(16),
        do="collect",
        runner=plan["runner"],
        arguments=plan["arguments"],
        sentinels=[{"case": g.case, "module": g.module, "source": g.source} for g in guards],
    )
    names = answer.get("cases")
    own = {guard.case for guard in guards}
    if not isinstance(names, list) or len(names) > MAX_CASES:
        raise Broken("no list of cases was collected")
    for name in names:
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME or name in own:
            raise Broken("a case has no name, or one that is too long or taken")
    if len(set(names)) != len(names):
        raise Broken("two cases have one name")
    return names


Ask = Callable[[str, str, "str | None"], dict[str, Any]]


def run(report: ReportChannel, ask: Ask, cases: list[str], guards: list[str]) -> None:
    """Ask for each case and report it; `ask` takes the case, the nonce and the case after it."""
    order = mixed(cases, guards)
    for case, after in zip(order, [*order[1:], None], strict=True):
        nonce = secrets.token_hex(16)
        report.write("case.began", case=case, nonce=nonce)
        answer = ask(case, nonce, after)
        outcome = answer.get("outcome")
        if outcome not in _OUTCOMES:
            raise Broken("an answer has no outcome")
        made = str(answer.get("made", ""))
        for start in range(0, len(made), MAX_PIECE):
            piece = made[start : start + MAX_PIECE]
            report.write("case.output", case=case, nonce=answer["nonce"], piece=piece)
        report.write(
            "case.ended",
            case=case,
            nonce=answer["nonce"],
            outcome=outcome,
            seconds=_seconds(answer.get("seconds")),
            output_sha256=_digest(answer.get("output_sha256")),
            detail=str(answer.get("detail", ""))[:MAX_NAME],
        )


def _seconds(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1e6 else 0.0  # noqa: PLR2004


def _digest(value: Any) -> str:
    return value if isinstance(value, str) and len(value) == 64 and value.isalnum() else ""  # noqa: PLR2004


def main() -> None:
    """Carry out the plan that is the first line of standard input."""
    answers, requests = sys.stdin.buffer, sys.stdout.buffer
    plan = json.loads(answers.readline(MAX_LINE))
    report = ReportChannel(int(os.environ["ANGELOS_REPORT_FD"]))
    harness = Harness(answers, requests)
    path = plan["arguments"][0] if plan["runner"] == "notebook" else ""
    guards = sentinels(plan["runner"], path)
    try:
        report.write("run.began", run=plan["run"], runner=f"angelos {plan['runner']}")
        if plan["runner"] == "notebook":
            own = {guard.case: guard.source for guard in guards}
            notebook = Notebook(path, own, frozenset(plan["fresh"]))
            notebook.start(harness.ask, secrets.token_hex(16))
            cases, ask = notebook.cases, functools.partial(notebook.ask, harness.ask)
        else:
            cases = collect(harness, plan, guards)

            def ask(case: str, nonce: str, after: str | None) -> dict[str, Any]:
                return harness.ask(nonce, do="run", case=case, after=after)

        names = [guard.case for guard in guards]
        report.write("cases.collected", cases=cases, sentinels=names)
        run(report, ask, cases, names)
        report.write("run.ended", run=plan["run"])
    except Broken as error:
        sys.stderr.write(f"The report is incomplete: {error}.\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
