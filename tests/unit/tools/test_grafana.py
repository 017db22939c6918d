"""The dashboard and the alerts ask for metrics and labels that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from angelos.wiring.monitoring.families import BY_NAME
from tools import grafana

DEPLOY = Path(grafana.__file__).parent.parent / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus/angelos.rules.yml").read_text())
NAME = re.compile(r"\b((?:angelos|process)_[a-z0-9_]+|up)\b(?:\{([^}]*)\})?")
OF_PROMETHEUS = {"up": {"job"}, "process_resident_memory_bytes": {"job", "instance"}}
BY = re.compile(r"by \(([a-z_, ]+)\)")


def metrics_of(query: str) -> dict[str, set[str]]:
    """Return the metrics that a query names, each with the labels that it has."""
    known: dict[str, set[str]] = {}
    for name, _ in NAME.findall(query):
        if name in OF_PROMETHEUS:
            known[name] = OF_PROMETHEUS[name]
            continue
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        histogram = base in BY_NAME and BY_NAME[base].type == "histogram"
        family = BY_NAME[base if histogram else name]  # raises KeyError: there is no such metric
        known[name] = {*family.labels, *({"le"} if histogram else ())}
    return known


def check(query: str) -> None:
    """Fail unless every metric and label of a query exists."""
    metrics = metrics_of(query)
    assert metrics, query
    for name, matchers in NAME.findall(query):
        used = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers))
        assert used <= metrics[name], query
    grouped = {label.strip() for group in BY.findall(query) for label in group.split(",")}
    assert grouped <= set.union(*metrics.values()), query
    for opening, closing in ("()", "{}", "[]"):
        assert query.count(opening) == query.count(closing), query


@pytest.mark.parametrize("query", [*grafana.queries()])
def test_a_query_of_the_dashboard_asks_for_what_exists(query):
    check(query)


@pytest.mark.parametrize("rule", RULES["groups"][0]["rules"], ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_exists(rule):
    check(rule["expr"])
    (labels,) = [set.union(*metrics_of(rule["expr"]).values())]
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels


def test_a_query_for_what_does_not_exist_fails():
    with pytest.raises(KeyError):
        check("sum(angelos_taskz)")
    with pytest.raises(AssertionError):
        check('angelos_tasks{status="ok"}')
    with pytest.raises(AssertionError):
        check("sum by (node) (angelos_tasks)")


def test_the_file_is_the_one_that_is_written_and_its_panels_lie_beside_each_other():
    assert grafana.FILE.read_text() == grafana.rendered()
    assert grafana.main(["--check"]) == 0
    panels = json.loads(grafana.rendered())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_most_of_what_is_measured_is_shown():
    text = " ".join(grafana.queries()) + " ".join(r["expr"] for r in RULES["groups"][0]["rules"])
    unshown = {name for name in BY_NAME if name not in text}
    assert len(unshown) <= 12, unshown
