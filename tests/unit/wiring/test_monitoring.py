"""What the metrics say, from what was observed."""

from __future__ import annotations

import asyncio
import json
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from angelos.adapters.stores.postgres import PoolStats
from angelos.control.state.models import ControlState, NodeRecord, ProposalRecord, RestartRecord
from angelos.core.envelopes import Lane, QueueDepth
from angelos.core.errors import InvalidInput, Unavailable
from angelos.core.facts import Fact, Kind, NodeLoad, RestartCause, TaskResult
from angelos.core.ids import Offset, PrincipalId, ProposalId, Revision
from angelos.core.messages import Status, Tier
from angelos.node.load import BoxCount, CpuTimes, LoadMeter, SlotUsage, cpu_times, memory_used
from angelos.testing import make_fact
from angelos.wiring.monitoring.counters import FactCounters, Lag
from angelos.wiring.monitoring.families import FAMILIES, Sample, exposition
from angelos.wiring.monitoring.node import NodeListener, NodeMonitor, parse_address
from angelos.wiring.monitoring.samples import MOST_NODES, JournalReport, Observation, samples

NODE = PrincipalId("node/exec1")


def values(page: bytes) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def observation(**changes) -> Observation:
    state = changes.pop("state", ControlState())
    return Observation(
        version="1", started_at=1.0, monotonic=50.0, state=state,
        counters=changes.pop("counters", FactCounters()), certificates={"ca": 9.0}, peers=1,
        loads=changes.pop("loads", {}), depths=changes.pop("depths", {}),
        stores={"postgres": True, "valkey": False}, **changes,
    )  # fmt: skip


def finished(status: str, seconds: float):
    result = TaskResult(
        status=Status(status), exit_code=0, stdout="", stderr="", duration_s=seconds,
        node="exec1", tier=Tier.full,
    )  # fmt: skip
    fact = Fact.of(result, at=1.0, actor=NODE, subject="task-1", outcome=status)
    return msgspec.structs.replace(fact, offset=Offset("9-0"))


def test_an_empty_system_has_zeros_where_it_counts_and_nothing_where_nobody_knows():
    page = values(exposition(samples(observation())))
    assert page["angelos_tasks", "running"] == 0
    assert page["angelos_queue_waiting", "command"] == 0
    assert page["angelos_proposals", "waiting"] == 0
    assert page["angelos_store_up", "valkey"] == 0
    assert page["angelos_nodes", "execution", "connected"] == 0
    assert not any(name[0].startswith("angelos_journal_fsync") for name in page)


def test_the_whole_page_says_what_was_observed():
    nodes = {
        NODE: NodeRecord(id=NODE, role="execution", connected=True),
        PrincipalId("node/old"): NodeRecord(id=PrincipalId("node/old"), role="labs"),
    }
    proposal = ProposalRecord(
        id=ProposalId("prop-1"), repo="study", base=Revision("r"), author=PrincipalId("agent/a"),
        message="", digest="", changes=(), at=1.0, state="waiting",
    )  # fmt: skip
    restart = RestartRecord(count=3, at=1.0, cause=RestartCause.frozen)
    state = ControlState(
        offset=Offset("7-0"), nodes=nodes, proposals={proposal.id: proposal},
        restarts={"valkey": restart}, log_damage="an entry",
    )  # fmt: skip
    counters = FactCounters()
    for status, seconds in (("ok", 0.2), ("ok", 3.0), ("oom", 40.0)):
        counters.note(finished(status, seconds), now=40.0, for_control=True)
    load = NodeLoad(cpu=0.5, slots=4, slots_busy=1, boxes_ready=2, boxes_open=1)
    depth = QueueDepth(waiting={Lane.command: 5}, waiting_bytes=90, dropped={}, dead=2)
    page = values(
        exposition(
            samples(
                observation(
                    state=state, counters=counters, loads={NODE: load}, depths={NODE: depth},
                    pool=PoolStats(size=4, idle=1, limit=10, waiting=2),
                    journal=JournalReport(entries=8, aof_ok=1, fsync_age_s=0.3),
                )
            )
        )
    )  # fmt: skip
    assert page["angelos_nodes", "execution", "connected"] == 1
    assert page["angelos_nodes", "labs", "away"] == 1
    assert page["angelos_proposals", "waiting"] == 1
    assert page["angelos_restarts_total", "valkey"] == 3
    assert page["angelos_audit_damaged",] == 1
    assert page["angelos_tasks_finished_total", "ok"] == 2
    assert page["angelos_task_duration_seconds_bucket", "0.25"] == 1
    assert page["angelos_task_duration_seconds_count",] == 3
    assert page["angelos_task_duration_seconds_sum",] == pytest.approx(43.2)
    assert page["angelos_queue_waiting", "command"] == 5
    assert page["angelos_node_queue_waiting", "exec1"] == 5
    assert page["angelos_queue_dead_letters",] == 2
    assert page["angelos_node_slots", "exec1", "free"] == 3
    assert page["angelos_boxes", "exec1", "ready"] == 2
    assert page["angelos_pool_connections", "used"] == 3
    assert page["angelos_pool_waiting",] == 2
    assert page["angelos_journal_fsync_age_seconds",] == 0.3


def test_the_names_follow_the_rules_of_prometheus():
    for family in FAMILIES:
        assert family.name.startswith("angelos_")
        assert family.name.endswith("_total") == (family.type == "counter"), family.name
        assert family.help.endswith(".")
    with pytest.raises(KeyError):
        exposition({"angelos_new": [Sample((), 1)]})


def test_many_nodes_do_not_make_many_metrics():
    names = [PrincipalId(f"node/n{number}") for number in range(3 * MOST_NODES)]
    nodes = {name: NodeRecord(id=name, role="execution", connected=True) for name in names}
    page = samples(
        observation(state=ControlState(nodes=nodes), loads=dict.fromkeys(names, NodeLoad()))
    )
    assert sum(map(len, page.values())) < 20 * MOST_NODES
    assert page["angelos_nodes"][0].value == 3 * MOST_NODES


def test_a_label_cannot_break_the_page():
    odd = PrincipalId('node/a"} 1\nevil 7')
    page = exposition(samples(observation(loads={odd: NodeLoad(slots=1)})))
    assert ("angelos_node_slots", 'a"} 1\nevil 7', "free") in values(page)
    assert not any(line.startswith(b"evil") for line in page.splitlines())


def test_counting_is_bounded_whatever_peers_make_up():
    counters = FactCounters()
    for number in range(1000):
        fact = make_fact(f"kind.{number}", "x", outcome=str(number), offset=Offset("1-0"))
        counters.note(fact, now=1.0, for_control=False)
        bad = msgspec.structs.replace(
            make_fact(Kind.task_finished, "x", outcome=f"o{number}"),
            offset=Offset("1-0"), data=b"\xc1",
        )  # fmt: skip
        counters.note(bad, now=1.0, for_control=True)
    assert set(counters.facts) == {"unknown", "task.finished"}
    assert counters.finished == {"unknown": 1000}


def test_the_lag_is_the_age_of_the_oldest_fact_that_waits():
    lag = Lag()
    for number in range(1, 2000):
        lag.note(Offset(f"{number}-0"), float(number))
    assert lag.behind(Offset("0-0"), 2000.0) == 1999
    assert lag.behind(Offset("100-0"), 2000.0) == 1899
    assert lag.behind(Offset("1998-0"), 2000.0) > 0  # marks are bounded: at least the newest
    assert lag.behind(Offset("1999-0"), 2000.0) == 0


def test_load_is_read_from_proc(tmp_path):
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "stat").write_text("cpu  10 0 10 80 0 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (proc / "meminfo").write_text("MemTotal:       2000 kB\nMemAvailable:    500 kB\n")
    (proc / "self/statm").write_text("100 10 0 0 0 0 0\n")
    meter = LoadMeter(tmp_path, proc)
    (proc / "stat").write_text("cpu  40 0 20 140 0 0 0 0 0 0\n")
    load = meter.measure(SlotUsage(4, 1, 0), BoxCount(2, 1))
    assert load.cpu == 0.4
    assert load.memory_bytes == 1500 * 1024
    assert load.resident_bytes > 0 < load.disk_free_bytes
    (proc / "stat").write_text("nonsense")
    assert LoadMeter(tmp_path / "absent", tmp_path / "absent").measure(
        SlotUsage(1, 0, 0), BoxCount()
    ) == NodeLoad(slots=1)
    assert cpu_times("") == CpuTimes(0, 0)
    assert memory_used("MemTotal: 1 kB") == 0


@pytest.mark.parametrize("text", ["", "9464", ":9464", "host:", "host:70000", "host:-1", "host:٣"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(InvalidInput, match="no address"):
        parse_address(text)


async def test_a_node_says_how_it_is_where_its_operator_wants_it():
    state = {"connected": False}
    monitor = NodeMonitor(
        lambda: NodeLoad(slots=3, slots_busy=2), lambda: state["connected"], Tier.reduced, runs=True
    )

    def get(path):
        try:
            with urlopen(f"http://127.0.0.1:{listener.port}{path}", timeout=30) as answer:
                return answer.status, answer.read()
        except HTTPError as error:
            with error:
                return error.code, error.read()

    async with NodeListener("127.0.0.1:0", monitor) as listener:
        assert (await asyncio.to_thread(get, "/healthz"))[0] == 200
        status, body = await asyncio.to_thread(get, "/readyz")
        assert (status, json.loads(body)["parts"]["hub"]) == (503, "unavailable")
        state["connected"] = True
        assert (await asyncio.to_thread(get, "/readyz"))[0] == 200
        page = values((await asyncio.to_thread(get, "/metrics"))[1])
        assert page["angelos_hub_connected",] == 1
        assert page["angelos_isolation_tier", "reduced"] == 1
        assert page["angelos_node_slots", "self", "busy"] == 2
        with pytest.raises(Unavailable, match="cannot be served"):
            async with NodeListener(f"127.0.0.1:{listener.port}", monitor):
                pytest.fail("the port is taken")
