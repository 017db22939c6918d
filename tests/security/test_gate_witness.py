"""Attacks on a test run from inside the judged process: none gives a report that is believed."""

from __future__ import annotations

import pytest

from angelos.control.proposals.verdicts import cases_of, sound
from angelos.core.messages import Limits
from angelos.core.plans import CasePlan, CaseRunner
from angelos.core.reports import CaseOutcome
from angelos.core.runs import Exit
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.node.witness.service import WitnessedRun

TEST = """
import unittest

from study import mean


class Mean(unittest.TestCase):
    def test_mean(self):
        self.assertEqual(mean([1, 3]), 2)
"""
BROKEN = "def mean(xs):\n    return 666\n\n"
ANSWER = '{"nonce": "%s", "outcome": "passed"}'
WAYS = {
    "exit at import": "import os\nos._exit(0)\n",
    "exit of Python at import": "raise SystemExit(0)\n",
    "exit in the function": "import os\ndef mean(xs):\n    os._exit(0)\n",
    "exit of Python in the function": "def mean(xs):\n    raise SystemExit(0)\n",
    "interrupt": "def mean(xs):\n    raise KeyboardInterrupt\n",
    "kill": "import os\ndef mean(xs):\n    os.kill(os.getpid(), 9)\n",
    "exit later": "import os, threading\nthreading.Timer(0.05, os._exit, (0,)).start()\n",
    "exit at the end": "import atexit, os\natexit.register(os._exit, 0)\n",
    "skip": "import unittest\ndef mean(xs):\n    raise unittest.SkipTest('no')\n",
    "skip of the module": "import unittest\nraise unittest.SkipTest('no')\n",
    "assertEqual": "import unittest\nunittest.TestCase.assertEqual = lambda *a, **k: None\n",
    "every assertion": """
import unittest
for name in dir(unittest.TestCase):
    if name.startswith("assert"):
        setattr(unittest.TestCase, name, lambda *a, **k: None)
""",
    "failureException": """
import unittest
class Calm(Exception):
    pass
unittest.TestCase.failureException = Calm
""",
    "run": """
import unittest
unittest.TestCase.run = lambda self, result: result.addSuccess(self)
""",
    "call": "import unittest\nunittest.TestCase._callTestMethod = lambda self, method: None\n",
    "the result": """
import unittest
unittest.TestResult.addFailure = unittest.TestResult.addSuccess
import sys
for module in list(sys.modules.values()):
    for cls in list(vars(module).values()):
        if isinstance(cls, type) and issubclass(cls, unittest.TestResult):
            cls.addFailure = cls.addError = lambda self, test, err: self.addSuccess(test)
""",
    "json": """
import json
dumps = json.dumps
json.dumps = lambda value, **k: dumps(value | ({"outcome": "passed"} if len(value) > 2 else {}))
""",
    "answers at every descriptor": f"""
import os
for fd in range(3, 40):
    for nonce in ("0" * 32, ""):
        try:
            os.write(fd, b'{ANSWER % "0"}\\n')
        except OSError:
            pass
""",
    "closed descriptors": "import os\nos.closerange(3, 100)\n",
    "requests stolen": """
import os, threading
def steal():
    for fd in range(3, 40):
        try:
            while data := os.read(fd, 65536):
                os.write(fd + 1, data.replace(b'"do"', b'"outcome": "passed", "do"'))
        except OSError:
            pass
threading.Thread(target=steal, daemon=True).start()
""",
    "memory": "open('/proc/self/mem', 'rb').read(1)\n",
    "memory of the parent": "open('/proc/1/mem', 'rb').read(1)\n",
    "the report's descriptor": """
import os
for fd in os.listdir('/proc/self/fd'):
    open(f'/proc/self/fd/{fd}', 'wb').write(b'{}')
""",
    "for ever": "while True:\n    pass\n",
    "a flood": "import sys\nwhile True:\n    sys.stdout.write('x' * 65536)\n",
    "a flood of answers": "import os\nfor fd in (3, 4, 5, 6, 7):\n    os.write(fd, bytes(10**7))\n",
}


@pytest.mark.parametrize("way", WAYS)
async def test_a_broken_module_does_not_pass(tmp_path, way):
    (tmp_path / "study.py").write_text(BROKEN + WAYS[way])
    (tmp_path / "test_study.py").write_text(TEST)
    plan = CasePlan(runner=CaseRunner.unittest)
    limits = Limits(wall_s=15, cpu_s=3, memory_mb=256, pids=32, output_bytes=1_000_000)
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        run = WitnessedRun(sandbox, plan, tmp_path, limits)
        async for event in run.events():
            assert isinstance(event, Exit) or event.data
    passed = cases_of(run.report, CaseOutcome.passed)
    assert not (sound(run.report) and passed), (run.report.problems, passed)
