"""An import that is added to a module of tests gives nothing in it another meaning."""

from __future__ import annotations

import pytest

from angelos.control.gate.tests import weakened
from angelos.core.findings import GateRule

BEFORE = b"""\
import study
from study import stats

def test_mean():
    assert stats.mean([1, 3]) == study.TWO
"""


@pytest.mark.parametrize("line", [
    "from study import fake as stats", "import fake as stats", "from fake import stats",
    "import fake as study", "from fake import *", "from fake import mean as len, stats",
])  # fmt: skip
def test_an_import_that_hides_a_name_of_the_tests_asks_a_person(line):
    after = BEFORE.replace(b"stats\n\n", b"stats\n" + line.encode() + b"\n\n")
    assert {finding.rule for finding in weakened("t.py", BEFORE, after)} == {GateRule.judge_changed}


@pytest.mark.parametrize("line", ["import os", "from study import fake", "import fake as other"])
def test_an_import_of_a_new_name_is_free(line):
    after = BEFORE.replace(b"stats\n\n", b"stats\n" + line.encode() + b"\n\n")
    assert weakened("t.py", BEFORE, after) == []
