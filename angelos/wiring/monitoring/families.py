"""The metrics: their names, types, labels and meanings, and the text that Prometheus reads.

    page = exposition({"angelos_tasks": [Sample(("running",), 3)]})

The names are an interface: dashboards and alerts use them (`deploy/grafana`, `deploy/prometheus`),
and `docs/reference/metrics.md` is written from this table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.registry import CollectorRegistry

    from angelos.wiring.monitoring.counters import HistogramReading

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus's text format, which every version of it reads."""


class Family(NamedTuple):
    """One metric."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


class Sample(NamedTuple):
    """One value, with the values of its labels in their order."""

    labels: tuple[str, ...]
    value: float | HistogramReading


def _gauge(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"angelos_{name}", "gauge", meaning, labels)


def _counter(name: str, meaning: str, *labels: str) -> Family:
    return Family(f"angelos_{name}", "counter", meaning, labels)


FAMILIES: tuple[Family, ...] = (
    _gauge("info", "1, with the version in its label.", "version"),
    _gauge("started_timestamp_seconds", "When the server started (Unix seconds)."),
    _gauge("tasks", "Open tasks by state: accepted (waits for a node) or running.", "state"),
    _counter("tasks_finished_total", "Tasks that ended since the start, by status.", "status"),
    Family(
        "angelos_task_duration_seconds", "histogram", "How long tasks ran, of those that ended."
    ),
    Family(
        "angelos_task_wait_seconds",
        "histogram",
        "How long tasks waited from when they were accepted until a node started them.",
    ),
    _gauge("proposals", "Proposals by state; `waiting` ones wait for a person.", "state"),
    _counter(
        "proposals_decided_total",
        "Proposals promoted, rejected and refused, and mains rolled back, since the start.",
        "outcome",
    ),
    _counter("facts_total", "Facts in the journal since the start, by kind.", "kind"),
    _counter("calls_refused_total", "Facts about refused calls since the start."),
    _gauge("queue_waiting", "Envelopes that wait for nodes, by lane.", "lane"),
    _gauge("queue_waiting_bytes", "Their bytes."),
    _gauge("queue_dead_letters", "Envelopes set aside because they cannot be delivered."),
    _gauge("node_queue_waiting", "Envelopes that wait for one node.", "node"),
    _gauge("nodes", "Enrolled nodes, by role and state.", "role", "state"),
    _gauge("peers_connected", "Nodes and agents that are connected to this hub."),
    _gauge("node_tasks", "Open tasks of one node.", "node"),
    _gauge("node_cpu_ratio", "Busy share of a node's processors, 0 to 1.", "node"),
    _gauge("node_memory_bytes", "Memory in use on a node's machine.", "node"),
    _gauge("node_resident_bytes", "Memory of a node's own process.", "node"),
    _gauge("node_disk_free_bytes", "Free disk where a node keeps its checkouts.", "node"),
    _gauge("node_slots", "Tasks that a node may run at once, busy and free.", "node", "state"),
    _gauge("node_slots_waiting", "Tasks that wait for a slot on a node.", "node"),
    _gauge("boxes", "Boxes of a node: ready ones wait for a program.", "node", "state"),
    _gauge(
        "certificate_expiry_timestamp_seconds",
        "When a certificate expires (Unix seconds): the CA's, the hub's, the next of a peer.",
        "certificate",
    ),
    _gauge("store_up", "1 if a store answers, 0 if not.", "store"),
    _gauge(
        "journal_lag_seconds",
        "For how long the oldest fact that a reader has not processed has waited; 0: none.",
        "reader",
    ),
    _gauge("journal_entries", "Entries of the journal; facts that came together share one."),
    _gauge("journal_bytes", "Bytes of facts in the journal, which retention bounds."),
    _gauge("journal_oldest_timestamp_seconds", "When the journal's oldest fact was appended."),
    _counter(
        "retention_removed_total",
        "What retention removed: facts of the journal, outputs of ended tasks, files of tasks.",
        "what",
    ),
    _gauge(
        "retention_last_timestamp_seconds", "When retention last saw to everything (Unix seconds)."
    ),
    _gauge(
        "journal_fsync_age_seconds",
        "Seconds since what the journal acknowledged was last flushed to the disk (embedded"
        " Valkey; one that flushes each write has 0).",
    ),
    _gauge("journal_aof_ok", "1 if the journal's append-only file is on and was written."),
    _gauge("audit_damaged", "1 if the audit log was tampered with; nothing is promoted then."),
    _gauge("pool_connections", "Connections to PostgreSQL of this process.", "state"),
    _gauge("pool_waiting", "Callers that wait for a connection to PostgreSQL."),
    _gauge("pool_limit", "The most connections to PostgreSQL that this process makes."),
    _counter(
        "background_failures_total",
        "How often work that never ends has ended in this process, and was begun anew.",
        "work",
    ),
    _counter("restarts_total", "How often a part was started again, of all time.", "part"),
    _gauge("hub_connected", "Of a node: 1 if it is connected to the hub."),
    _gauge("isolation_tier", "Of a node: 1, with the isolation that its boxes have.", "tier"),
)
"""In the order of the page."""
BY_NAME = {family.name: family for family in FAMILIES}


def exposition(
    samples: Mapping[str, Sequence[Sample]], registries: Iterable[CollectorRegistry] = ()
) -> bytes:
    """Return the text of these samples, and after them that of other registries.

    Raises:
        KeyError: A sample belongs to no metric of `FAMILIES`.
    """
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    metrics = list(_metrics(samples))

    class _Fixed(Collector):
        def collect(self) -> Iterator[Metric]:
            yield from metrics

    registry = CollectorRegistry()
    registry.register(_Fixed())
    return b"".join(generate_latest(one) for one in (registry, *registries))


def _metrics(samples: Mapping[str, Sequence[Sample]]) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for name in samples:
        BY_NAME[name]
    for family in FAMILIES:
        rows = [row for row in samples.get(family.name, ()) if not _is_nan(row.value)]
        if not rows:
            continue
        if family.type == "histogram":
            metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            for row in rows:
                reading: HistogramReading = row.value  # pyright: ignore[reportAssignmentType]
                metric.add_metric(row.labels, list(reading.buckets), reading.sum_s)
        else:
            kinds = {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily}
            metric = kinds[family.type](family.name, family.help, labels=family.labels)
            for row in rows:
                metric.add_metric(row.labels, row.value)
        yield metric


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
