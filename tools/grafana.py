"""Writes deploy/grafana/angelos.json, the dashboard for Grafana, from the table below.

    python -m tools.grafana            # write it
    python -m tools.grafana --check    # exit code 1: it is out of date

Each query names metrics of `angelos/wiring/monitoring/families.py`; a test holds the two together.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent.parent / "deploy/grafana/angelos.json"
_WIDTH, _HEIGHT = 24, 8
_RATE = "$__rate_interval"


class Panel(NamedTuple):
    """One panel: its queries with their legends."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    text: str = ""


class Row(NamedTuple):
    """A heading and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def _stat(title: str, query: str, unit: str = "short", text: str = "") -> Panel:
    return Panel(title, ((query, ""),), unit, "stat", 4, text)


ROWS = (
    Row(
        "At a glance",
        (
            _stat("Stores that answer", "sum(angelos_store_up)", text="2: PostgreSQL and Valkey."),
            _stat("Nodes connected", 'sum(angelos_nodes{state="connected"})'),
            _stat("Wait for a person", 'sum(angelos_proposals{state="waiting"})'),
            _stat("Restarts in a day", "sum(increase(angelos_restarts_total[1d]))"),
            _stat("Dead letters", "sum(angelos_queue_dead_letters)"),
            _stat(
                "Next certificate expires in",
                "min(angelos_certificate_expiry_timestamp_seconds) - time()",
                "s",
                "Nodes renew theirs at half its life of a day.",
            ),
        ),
    ),
    Row(
        "Tasks",
        (
            Panel("Open", (("sum by (state) (angelos_tasks)", "{{state}}"),)),
            Panel(
                "Ended",
                (
                    (
                        f"sum by (status) (rate(angelos_tasks_finished_total[{_RATE}]))",
                        "{{status}}",
                    ),
                ),
                "ops",
            ),
            Panel(
                "How long",
                tuple(
                    (
                        (
                            f"histogram_quantile({share}, sum by (le) (rate("
                            f"angelos_task_{what}_seconds_bucket[{_RATE}])))"
                        ),
                        f"{word} p{round(share * 100)}",
                    )
                    for what, word in (("wait", "wait"), ("duration", "run"))
                    for share in (0.5, 0.95)
                ),
                "s",
            ),
            Panel("Proposals", (("sum by (state) (angelos_proposals)", "{{state}}"),)),
            Panel(
                "Decided",
                (
                    (
                        "sum by (outcome) (increase(angelos_proposals_decided_total[1h]))",
                        "{{outcome}}",
                    ),
                ),
            ),
            Panel(
                "Refused calls",
                ((f"sum(rate(angelos_calls_refused_total[{_RATE}]))", "refused"),),
                "ops",
            ),
        ),
    ),
    Row(
        "Nodes",
        (
            Panel("Processors", (("angelos_node_cpu_ratio", "{{node}}"),), "percentunit"),
            Panel(
                "Slots in use",
                (
                    (
                        (
                            'sum by (node) (angelos_node_slots{state="busy"})'
                            " / sum by (node) (angelos_node_slots)"
                        ),
                        "{{node}}",
                    ),
                ),
                "percentunit",
            ),
            Panel("Boxes", (("sum by (node, state) (angelos_boxes)", "{{node}} {{state}}"),)),
            Panel("Memory", (("angelos_node_memory_bytes", "{{node}}"),), "bytes"),
            Panel("Free disk", (("angelos_node_disk_free_bytes", "{{node}}"),), "bytes"),
            Panel("Queue", (("angelos_node_queue_waiting", "{{node}}"),)),
        ),
    ),
    Row(
        "Stores",
        (
            Panel(
                "Removed by retention",
                ((f"sum by (what) (rate(angelos_retention_removed_total[{_RATE}]))", "{{what}}"),),
                "ops",
            ),
            Panel(
                "Work begun anew",
                (("sum by (work) (angelos_background_failures_total)", "{{work}}"),),
            ),
            Panel("Journal: bytes", (("angelos_journal_bytes", "bytes"),), "bytes"),
            Panel("Journal: lag", (("angelos_journal_lag_seconds", "{{reader}}"),), "s"),
            Panel(
                "Journal: age of the last flush",
                (("angelos_journal_fsync_age_seconds", "age"),),
                "s",
            ),
            Panel("Facts", ((f"sum(rate(angelos_facts_total[{_RATE}]))", "facts"),), "ops"),
            Panel("Queues", (("sum by (lane) (angelos_queue_waiting)", "{{lane}}"),)),
            Panel(
                "Connections to PostgreSQL",
                (
                    ("sum by (state) (angelos_pool_connections)", "{{state}}"),
                    ("angelos_pool_waiting", "callers that wait"),
                    ("angelos_pool_limit", "limit"),
                ),
            ),
            Panel(
                "Server",
                (('process_resident_memory_bytes{job=~"angelos.*"}', "{{instance}}"),),
                "bytes",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    return {
        "uid": "angelos",
        "title": "AngelOS",
        "tags": ["angelos"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Prometheus",
                }
            ]
        },
        "panels": list(_panels()),
    }


def queries() -> Iterator[str]:
    """Yield every query."""
    for row in ROWS:
        for panel in row.panels:
            yield from (query for query, _ in panel.queries)


def _panels() -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for row in ROWS:
        number += 1
        place = {"x": 0, "y": top, "w": _WIDTH, "h": 1}
        yield {"id": number, "type": "row", "title": row.title, "gridPos": place, "panels": []}
        top, left = top + 1, 0
        height = _HEIGHT // 2 if row.panels[0].kind == "stat" else _HEIGHT
        for panel in row.panels:
            if left + panel.width > _WIDTH:
                top, left = top + height, 0
            number += 1
            yield _panel(panel, number, {"x": left, "y": top, "w": panel.width, "h": height})
            left += panel.width
        top += height


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": source,
                "expr": expr,
                "legendFormat": text,
            }
            for index, (expr, text) in enumerate(panel.queries)
        ],
    }


def rendered() -> str:
    """Return the file's text."""
    return json.dumps(dashboard(), indent=1) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file, or with `--check` compare it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.grafana", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    if parser.parse_args(argv).check:
        return int(FILE.read_text(encoding="utf-8") != rendered())
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(rendered(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
