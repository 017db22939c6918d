"""Single results: kept with their history, read from and written as JUnit and SARIF."""

from __future__ import annotations

import json
from xml.etree import ElementTree as ET

import pytest

from angelos.control.proposals.result_files import junit, read_junit, read_sarif, sarif
from angelos.core.errors import InvalidInput, NotFound
from angelos.core.findings import GateFinding, GateRule
from angelos.core.ids import ProposalId
from angelos.core.messages import Status
from angelos.core.reports import CaseOutcome, CaseReport
from tests.unit.control.fakes import ADA, edit

CASES = (
    CaseReport(case="t.a", outcome=CaseOutcome.passed, seconds=1.5),
    CaseReport(case="t.b", outcome=CaseOutcome.failed, detail="1 != 2 <&\x00"),
    CaseReport(case="t.c", outcome=CaseOutcome.skipped, detail="later"),
)
FOUND = {
    "runs": [{"results": [{
        "ruleId": "F401", "message": {"text": "unused"}, "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": "a.py"}, "region": {"startLine": 3}}}],
    }]}]
}  # fmt: skip


def test_what_is_written_as_junit_is_read_again():
    text = junit([("unit", CASES)]).decode()
    assert ET.fromstring(text).find("testsuite").get("tests") == "3"
    again = read_junit(text)
    assert [(c.case, c.outcome) for c in again] == [(c.case, c.outcome) for c in CASES]
    assert again[0].seconds == 1.5


@pytest.mark.parametrize("read", [read_junit, read_sarif])
@pytest.mark.parametrize(
    "text",
    ["", "no", "<a", "[]", '{"runs": 1}', '{"runs": [{"results": [1]}]}', "[" * 99_999,
     '<!DOCTYPE x [<!ENTITY a "aa">]><testsuite/>'],
)  # fmt: skip
def test_what_is_neither_is_refused(read, text):
    with pytest.raises(InvalidInput):
        read(text)


def test_findings_are_cases_and_sarif_again():
    (case,) = read_sarif(json.dumps(FOUND))
    assert (case.case, case.outcome) == ("a.py:3: F401", CaseOutcome.failed)
    finding = GateFinding(rule=GateRule.syntax, path="a.py", line=3, reason="import of ctypes")
    written = sarif([finding], [("unit", case) for case in CASES])
    assert [case.case for case in read_sarif(written.decode())] == [
        "a.py:3: syntax",
        ":0: step/unit",
    ]


async def test_each_test_is_kept_with_its_history(world):
    async with world.running() as control:
        node = await world.node(
            program=lambda t: (
                (Status.ok, json.dumps(FOUND)) if t.label.endswith("static") else (Status.ok, "")
            )
        )
        for number in range(3):
            if number == 2:
                node.program = lambda t: (
                    (Status.error, "") if t.label.endswith("unit") else (Status.ok, "")
                )
            view = await control.proposals.propose(ADA, "study", edit("a.py", f"{number}\n"))
            await world.reaches(view.id, "promoted", "rejected")
            if number == 1:
                rows = {row.case: row for row in control.proposals.cases(view.id).cases}
                assert rows["t.test_a"].outcome is CaseOutcome.passed
                assert rows["a.py:3: F401"].step == "static"
                assert b"t.test_a" in control.proposals.junit(view.id)
                assert b"F401" in control.proposals.sarif(view.id)
        (row,) = [r for r in control.proposals.history("study").cases if r.case == "t.test_a"]
        assert CaseOutcome.failed in row.history[:3], "main's own run of it came last"
        assert row.history[-1] is CaseOutcome.passed
        with pytest.raises(NotFound):
            control.proposals.junit(ProposalId("prop-none"))
