r"""Results of single tests: read from JUnit and SARIF that programs print, written as both.

>>> read_junit('<testsuite><testcase classname="a" name="b" time="1.5"/></testsuite>')[0].case
'a.b'
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers import expat

from angelos import __version__
from angelos.core.errors import InvalidInput
from angelos.core.findings import GateFinding
from angelos.core.reports import CaseOutcome, CaseReport

MAX_RESULTS = 10_000
MAX_NAME = 1_000
_SARIF = "https://json.schemastore.org/sarif-2.1.0.json"
_BAD = {"failure": CaseOutcome.failed, "error": CaseOutcome.error, "skipped": CaseOutcome.skipped}


def read_junit(text: str) -> tuple[CaseReport, ...]:
    """Return the test cases in JUnit XML.

    Raises:
        InvalidInput: It is none, or it declares a document type, which could make it expand.
    """
    reader = _JunitReader()
    try:
        reader.parser.Parse(text, True)  # noqa: FBT003 - positional only
    except (expat.ExpatError, ValueError, RecursionError) as error:
        raise InvalidInput(f"This is no JUnit: {error}.") from error
    return tuple(reader.cases.values())


class _JunitReader:
    """Collects the test cases as the parser meets them."""

    def __init__(self) -> None:
        self.cases: dict[str, CaseReport] = {}
        self._case: dict[str, Any] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = self._refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if name == "testcase":
            names = (attributes.get("classname", ""), attributes.get("name", ""))
            case = ".".join(filter(None, names))[:MAX_NAME]
            seconds = _seconds(attributes.get("time", ""))
            self._case = {"case": case, "seconds": seconds, "outcome": CaseOutcome.passed}
        elif self._case is not None and name in _BAD:
            self._case |= {
                "outcome": _BAD[name],
                "detail": attributes.get("message", "")[:MAX_NAME],
            }

    def _end(self, name: str) -> None:
        if name == "testcase" and self._case is not None:
            if len(self.cases) >= MAX_RESULTS:
                raise ValueError(f"it has over {MAX_RESULTS} cases")
            self.cases[self._case["case"]] = CaseReport(**self._case)
            self._case = None


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e9 else 0.0  # noqa: PLR2004 - not inf, not nan


def read_sarif(text: str) -> tuple[CaseReport, ...]:
    """Return the findings in SARIF 2.1.0, each as a case that failed.

    Raises:
        InvalidInput: It is none.
    """
    try:
        rows = [result for run in json.loads(text)["runs"] for result in run["results"]]
        cases = [_finding(row) for row in rows[:MAX_RESULTS]]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise InvalidInput(f"This is no SARIF: {error!r}.") from error
    return tuple({case.case: case for case in cases}.values())


def _finding(row: dict[str, Any]) -> CaseReport:
    place = (row.get("locations") or [{}])[0].get("physicalLocation", {})
    path = str(place.get("artifactLocation", {}).get("uri", ""))
    line = place.get("region", {}).get("startLine", 0)
    name = f"{path}:{line}: {row.get('ruleId', '')}"[:MAX_NAME]
    detail = str(row.get("message", {}).get("text", ""))[:MAX_NAME]
    return CaseReport(case=name, outcome=CaseOutcome.failed, detail=detail)


def junit(suites: Iterable[tuple[str, Sequence[CaseReport]]]) -> bytes:
    """Return results as JUnit XML, a suite for each step."""
    root = ET.Element("testsuites", name="angelos")
    for name, cases in suites:
        suite = ET.SubElement(root, "testsuite", name=_plain(name), tests=str(len(cases)))
        for case in cases:
            seconds = f"{case.seconds:.3f}"
            row = ET.SubElement(suite, "testcase", name=_plain(case.case), time=seconds)
            word = next((word for word, outcome in _BAD.items() if outcome is case.outcome), None)
            if case.outcome is None:
                word = "error"
            if word:
                ET.SubElement(row, word, message=_plain(case.detail))
    return ET.tostring(root, encoding="utf-8", xml_declaration=True)


def _plain(text: str) -> str:
    """Return text without the characters that XML cannot hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def sarif(findings: Iterable[GateFinding], cases: Iterable[tuple[str, CaseReport]]) -> bytes:
    """Return what a person has to look at, and what failed, as SARIF 2.1.0."""
    results = [_result(f.rule.value, f.reason, f.path, f.line) for f in findings]
    results += [
        _result(f"step/{step}", f"{case.case}: {case.detail}".rstrip(": "), "", 0)
        for step, case in cases
        if case.outcome in {CaseOutcome.failed, CaseOutcome.error}
    ]
    driver = {"name": "angelos", "version": __version__}
    document = {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results}],
    }
    return json.dumps(document, ensure_ascii=True).encode()


def _result(rule: str, text: str, path: str, line: int) -> dict[str, Any]:
    row: dict[str, Any] = {"ruleId": rule, "level": "warning", "message": {"text": text}}
    if path:
        place: dict[str, Any] = {"artifactLocation": {"uri": path}}
        if line:
            place["region"] = {"startLine": line}
        row["locations"] = [{"physicalLocation": place}]
    return row
