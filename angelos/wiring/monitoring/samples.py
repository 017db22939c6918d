"""Turns what was observed into the samples of the metrics. Pure.

samples(Observation(at=now, state=projection.state, ...))["angelos_tasks"]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from angelos.adapters.stores.postgres import PoolStats
from angelos.control.state.models import ControlState, NodeRecord
from angelos.core.api import RetentionView
from angelos.core.envelopes import QueueDepth
from angelos.core.facts import NodeLoad
from angelos.core.ids import Offset, PrincipalId
from angelos.wiring.monitoring.counters import FactCounters
from angelos.wiring.monitoring.families import Sample

Samples = dict[str, list[Sample]]
MOST_NODES = 200
"""So many nodes have metrics of their own: those that connected last."""


@dataclass(frozen=True, kw_only=True)
class JournalReport:
    """What the journal's store says of itself; NaN is unknown."""

    entries: float = math.nan
    aof_ok: float = math.nan
    fsync_age_s: float = math.nan


@dataclass(frozen=True, kw_only=True)
class Observation:
    """Everything that the metrics are made from, at one moment."""

    version: str
    started_at: float
    monotonic: float
    state: ControlState
    counters: FactCounters
    certificates: Mapping[str, float]
    peers: int
    loads: Mapping[PrincipalId, NodeLoad]
    depths: Mapping[PrincipalId, QueueDepth]
    stores: Mapping[str, bool]
    """Which answer."""
    journal: JournalReport = field(default_factory=JournalReport)
    audit_position: Offset | None = None
    """How far the audit log has come; None where there is none."""
    pool: PoolStats = field(default_factory=PoolStats)
    retention: RetentionView | None = None
    """None in a server that removes nothing."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """How often endless work has ended, by its name."""


def samples(seen: Observation) -> Samples:
    """Return the samples of one observation."""
    return {
        "angelos_info": [Sample((seen.version,), 1)],
        "angelos_started_timestamp_seconds": [Sample((), seen.started_at)],
        "angelos_background_failures_total": _counts(seen.failures),
        **_work(seen),
        **_queues(seen.depths),
        **_nodes(seen),
        **_loads(seen.loads),
        **_stores(seen),
        **_retention(seen.retention),
    }


def _work(seen: Observation) -> Samples:
    state, counters = seen.state, seen.counters
    tasks = Counter(task.state for task in state.tasks.values() if task.open)
    proposals = Counter(proposal.state for proposal in state.proposals.values())
    return {
        "angelos_tasks": [Sample((s,), tasks[s]) for s in ("accepted", "running")],
        "angelos_tasks_finished_total": _counts(counters.finished),
        "angelos_task_duration_seconds": [Sample((), counters.durations.reading)],
        "angelos_task_wait_seconds": [Sample((), counters.waits.reading)],
        "angelos_proposals": _counts({"waiting": 0, **proposals}),
        "angelos_proposals_decided_total": _counts(counters.decided),
        "angelos_facts_total": _counts(counters.facts),
        "angelos_calls_refused_total": [Sample((), counters.refused_calls)],
        "angelos_restarts_total": [
            Sample((part,), record.count) for part, record in sorted(state.restarts.items())
        ],
    }


def _queues(depths: Mapping[PrincipalId, QueueDepth]) -> Samples:
    lanes: Counter[str] = Counter()
    for depth in depths.values():
        lanes.update(depth.waiting)
    for lane in ("command", "control"):
        lanes.setdefault(lane, 0)
    return {
        "angelos_queue_waiting": [Sample((lane,), n) for lane, n in sorted(lanes.items())],
        "angelos_queue_waiting_bytes": [Sample((), sum(d.waiting_bytes for d in depths.values()))],
        "angelos_queue_dead_letters": [Sample((), sum(d.dead for d in depths.values()))],
        "angelos_node_queue_waiting": [
            Sample((_short(node),), sum(depth.waiting.values()))
            for node, depth in sorted(depths.items())
        ],
    }


def _nodes(seen: Observation) -> Samples:
    state = seen.state
    kinds = Counter((node.role, _condition(node)) for node in state.nodes.values())
    for role in ("execution", "labs"):
        kinds.setdefault((role, "connected"), 0)
    running = Counter(task.node for task in state.tasks.values() if task.open)
    return {
        "angelos_nodes": [Sample(labels, n) for labels, n in sorted(kinds.items())],
        "angelos_peers_connected": [Sample((), seen.peers)],
        "angelos_node_tasks": [
            Sample((_short(node),), running[node]) for node in shown_nodes(state)
        ],
        "angelos_certificate_expiry_timestamp_seconds": [
            Sample((name,), at) for name, at in sorted(seen.certificates.items())
        ],
    }


def _condition(node: NodeRecord) -> str:
    if node.quarantined:
        return "quarantined"
    return "connected" if node.connected else "away"


def shown_nodes(state: ControlState) -> list[PrincipalId]:
    """Return the nodes that have metrics of their own, by name."""
    rows = sorted(state.nodes.values(), key=lambda node: (not node.connected, -node.since))
    return sorted(node.id for node in rows[:MOST_NODES])


def _loads(loads: Mapping[PrincipalId, NodeLoad]) -> Samples:
    rows = [(_short(node), load) for node, load in sorted(loads.items())[:MOST_NODES]]
    return {
        "angelos_node_cpu_ratio": [Sample((n,), load.cpu) for n, load in rows],
        "angelos_node_memory_bytes": [Sample((n,), load.memory_bytes) for n, load in rows],
        "angelos_node_resident_bytes": [Sample((n,), load.resident_bytes) for n, load in rows],
        "angelos_node_disk_free_bytes": [Sample((n,), load.disk_free_bytes) for n, load in rows],
        "angelos_node_slots": [
            Sample((name, state), value)
            for name, load in rows
            for state, value in (
                ("busy", load.slots_busy),
                ("free", max(0, load.slots - load.slots_busy)),
            )
        ],
        "angelos_node_slots_waiting": [Sample((n,), load.slots_waiting) for n, load in rows],
        "angelos_boxes": [
            Sample((name, state), value)
            for name, load in rows
            for state, value in (("ready", load.boxes_ready), ("open", load.boxes_open))
        ],
    }


def _stores(seen: Observation) -> Samples:
    counters, now, pool = seen.counters, seen.monotonic, seen.pool
    lags = {"control": counters.control.behind(seen.state.offset, now)}
    if seen.audit_position is not None:
        lags["audit"] = counters.lasting.behind(seen.audit_position, now)
    return {
        "angelos_store_up": [Sample((n,), int(up)) for n, up in sorted(seen.stores.items())],
        "angelos_journal_lag_seconds": [Sample((n,), lag) for n, lag in sorted(lags.items())],
        "angelos_journal_entries": [Sample((), seen.journal.entries)],
        "angelos_journal_fsync_age_seconds": [Sample((), seen.journal.fsync_age_s)],
        "angelos_journal_aof_ok": [Sample((), seen.journal.aof_ok)],
        "angelos_audit_damaged": [Sample((), int(bool(seen.state.log_damage)))],
        "angelos_pool_connections": [
            Sample(("idle",), pool.idle),
            Sample(("used",), pool.size - pool.idle),
        ],
        "angelos_pool_waiting": [Sample((), pool.waiting)],
        "angelos_pool_limit": [Sample((), pool.limit)],
    }


def _retention(view: RetentionView | None) -> Samples:
    if view is None or view.at is None:
        return {}
    removed = {
        "facts": view.facts_removed,
        "files": view.files_removed,
        "outputs": view.outputs_expired,
    }
    return {
        "angelos_journal_bytes": [Sample((), view.journal_bytes)],
        "angelos_journal_oldest_timestamp_seconds": [
            Sample((), math.nan if view.journal_oldest_at is None else view.journal_oldest_at)
        ],
        "angelos_retention_removed_total": _counts(removed),
        "angelos_retention_last_timestamp_seconds": [Sample((), view.at)],
    }


def _counts(counter: Mapping[str, int]) -> list[Sample]:
    return [Sample((str(name),), count) for name, count in sorted(counter.items())]


def _short(node: str) -> str:
    return node.rpartition("/")[2]
