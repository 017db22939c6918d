"""A runner and a judged process in real boxes: what the report says."""

from __future__ import annotations

import json
import textwrap

import pytest

from angelos.control.proposals.verdicts import sound
from angelos.core.messages import Limits, Status
from angelos.core.plans import CasePlan, CaseRunner
from angelos.core.reports import CaseOutcome
from angelos.core.runs import Exit
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.witness.overlay import overlaid
from angelos.node.witness.service import WitnessedRun

STATS = '''
"""Statistics."""

def mean(xs):
    """Return the mean.

    >>> mean([1, 3])
    2.0
    """
    return sum(xs) / len(xs)
'''
TEST = """
import unittest

from study.stats import mean


class Mean(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.xs = [1, 3]

    def test_mean(self):
        self.assertEqual(mean(self.xs), 2)

    @unittest.skip("later")
    def test_skipped(self):
        self.fail()
"""
ARGUMENTS = {
    CaseRunner.unittest: ("discover", "-s", "tests", "-t", "."),
    CaseRunner.pytest: ("-q", "tests"),
    CaseRunner.doctest: ("study/stats.py",),
    CaseRunner.notebook: ("a.ipynb",),
}


def cell(name, source, *outputs, tags=()):
    return {
        "cell_type": "code", "id": name, "metadata": {"tags": list(tags)}, "source": source,
        "execution_count": None, "outputs": list(outputs),
    }  # fmt: skip


def shown(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


def book(*cells):
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


BOOK = book(
    cell("a", "from study.stats import mean"),
    cell("b", "print(mean([1, 3]))", shown("2.0\n")),
)


@pytest.fixture
async def sandbox():
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as boxes:
        yield boxes


@pytest.fixture
def checkout(tmp_path):
    """Return a function that writes a checkout."""

    def write(files=()):
        folder = tmp_path / "checkout"
        texts = {
            "study/__init__.py": "", "study/stats.py": STATS, "tests/__init__.py": "",
            "tests/test_stats.py": TEST, "a.ipynb": BOOK, **dict(files),
        }  # fmt: skip
        for path, text in texts.items():
            if text is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(textwrap.dedent(text))
        return folder

    return write


async def run(sandbox, folder, runner, **plan):
    arguments = plan.pop("arguments", ARGUMENTS[runner])
    limits = Limits(wall_s=plan.pop("wall_s", 100), cpu_s=60, memory_mb=1024, pids=128)
    cases = CasePlan(runner=runner, arguments=arguments, **plan)
    witnessed = WitnessedRun(sandbox, cases, folder, limits)
    printed, end = b"", None
    async for event in witnessed.events():
        if isinstance(event, Exit):
            end = event
        else:
            printed += event.data
    outcomes = {c.case: c.outcome for c in witnessed.report.cases if not c.sentinel}
    return end, witnessed.report, outcomes, printed.decode()


@pytest.mark.parametrize("runner", CaseRunner)
async def test_good_code_passes_and_each_sentinel_fails(sandbox, checkout, runner):
    end, report, outcomes, printed = await run(sandbox, checkout(), runner)
    assert end.status is Status.ok, printed
    assert report.problems == ()
    assert sound(report)
    assert CaseOutcome.passed in outcomes.values()
    assert set(outcomes.values()) <= {CaseOutcome.passed, CaseOutcome.skipped}
    sentinels = [c for c in report.cases if c.sentinel]
    assert len(sentinels) >= 4
    assert {c.outcome for c in sentinels} == {CaseOutcome.failed}


@pytest.mark.parametrize("runner", CaseRunner)
async def test_broken_code_fails_by_name(sandbox, checkout, runner):
    broken = STATS.replace("len(xs)\n", "len(xs) + 1\n")
    end, report, outcomes, printed = await run(
        sandbox, checkout({"study/stats.py": broken}), runner
    )
    assert end.status is Status.error
    assert sound(report)
    assert [case for case, outcome in outcomes.items() if outcome is CaseOutcome.failed]
    assert "2.0" in printed or "3.0" in printed, printed


@pytest.mark.parametrize("runner", CaseRunner)
async def test_an_exit_is_no_pass(sandbox, checkout, runner):
    files = {"study/stats.py": STATS + "\nimport os\nos._exit(0)\n"}
    end, report, _, _ = await run(sandbox, checkout(files), runner)
    assert end.status is Status.error
    assert not sound(report)


async def test_what_a_notebook_holds_and_what_it_makes_must_agree(sandbox, checkout):
    notebook = book(
        cell("set", "x = 0.1 + 0.2"),
        cell("close", "print(x)", shown("0.3\n")),
        cell("off", "print(x)", shown("0.4\n")),
        cell("volatile", "print(x)", shown("0.4\n"), tags=["volatile"]),
        cell("unstored", "print('anything')"),
        cell("hidden", "print(left_over)", shown("7\n")),
        cell("raises", "1 / 0", tags=["raises-exception"]),
        cell("fresh", "print(2)", shown("1\n")),
    )
    folder = checkout({"a.ipynb": notebook})
    _, report, outcomes, _ = await run(sandbox, folder, CaseRunner.notebook, fresh=("fresh",))
    made = {c.case.partition("::")[2]: json.loads(c.output) for c in report.cases if c.output}
    assert set(made) == {"fresh"}, "what the plan asks for, and nothing else"
    assert made["fresh"][0]["output_type"] == "stream"
    assert sound(report)
    bad = {case.removeprefix("a.ipynb::"): outcome for case, outcome in outcomes.items()}
    assert {case for case, outcome in bad.items() if outcome is not CaseOutcome.passed} == {
        "off", "hidden"
    }  # fmt: skip
    details = {c.case.removeprefix("a.ipynb::"): c.detail for c in report.cases}
    assert "0.4" in details["off"]
    assert "no cell above makes it" in details["hidden"]


async def test_mains_tests_judge_from_mains_files(sandbox, checkout, tmp_path):
    easy = TEST.replace("self.assertEqual(mean(self.xs), 2)", "pass")
    broken = STATS.replace("len(xs)\n", "len(xs) + 1\n")
    code = checkout({"study/stats.py": broken, "tests/test_stats.py": easy})
    (code / "tests/conftest.py").write_text("")
    main = tmp_path / "main"
    (main / "tests").mkdir(parents=True)
    (main / "tests/test_stats.py").write_text(TEST)
    _, _, outcomes, _ = await run(sandbox, code, CaseRunner.unittest)
    assert CaseOutcome.failed not in outcomes.values()
    with overlaid(code, main, ("tests/test_stats.py",), ("tests/conftest.py",)) as folder:
        assert not (folder / "tests/conftest.py").exists()
        _, _, outcomes, _ = await run(sandbox, folder, CaseRunner.unittest)
    assert outcomes["tests.test_stats.Mean.test_mean"] is CaseOutcome.failed
    assert not folder.exists()
