"""What the detectors see in facts, and what follows."""

from __future__ import annotations

import msgspec
import pytest

from angelos.core.facts import AlarmResponse, AlarmSignal, Kind
from angelos.core.ids import PrincipalId
from angelos.core.sequences import FactSequence
from angelos.governance.config import GovernanceConfig
from angelos.governance.detection.models import DetectionConfig, SignalMode
from angelos.governance.detection.rates import Rate, counted, odd_minutes
from angelos.governance.detection.tracks import canary_digest
from angelos.governance.state import WatchState, owed, step
from angelos.testing import ManualClock, make_fact

EVE = PrincipalId("agent/eve")
ENFORCE = GovernanceConfig(detection=DetectionConfig(statistical=SignalMode.enforce))
CANARY = "angelc_" + "x" * 43


def fold(facts, watch=None, config=ENFORCE):
    watch, alarms = watch or WatchState(), []
    for fact in facts:
        watch, raised = step(watch, fact, config)
        alarms += raised
    return watch, alarms


def proposed(*paths, at=0.0, agent="agent/eve", **fields):
    data = {"repo": "lab", "base": "r", "digest": "d", "paths": paths or ("a.py",)} | fields
    clock = ManualClock(1_700_000_000 + at)
    return make_fact(Kind.proposal_received, "prop-1", actor=agent, data=data, clock=clock)


def ran(*calls, at=0.0, agent=EVE, stdout="", **evidence):
    rows = [{"call": c, "argument": a, "count": n} for c, a, n in calls]
    data = {"status": "ok", "exit_code": 0, "stdout": stdout, "stderr": "", "duration_s": 0.1,
            "node": "exec1", "tier": "full", "evidence": {"refused": rows} | evidence}  # fmt: skip
    return make_fact(
        Kind.task_finished, "task-1", actor="node/exec1", on_behalf_of=agent, outcome="ok",
        data=data, clock=ManualClock(1_700_000_000 + at),
    )  # fmt: skip


def signals(alarms):
    return [(a.sighting.signal, a.response) for a in alarms]


@pytest.mark.parametrize(
    "path",
    [
        "angelos/core/policy/roles.cedar",
        "Angelos/Control/service.py",
        "angelos/node/sandbox/shim.py",
        "tools/hooks/pre-commit",
        "agents/eve/manifest.toml",
        "agents/eve.toml",
        "tests/agents/test_eve.py",
    ],
)
def test_a_change_to_what_holds_it_quarantines(path):
    _, alarms = fold([proposed("study/mean.py", path)])
    assert signals(alarms) == [(AlarmSignal.self_change, AlarmResponse.quarantined)]
    assert alarms[0].sighting.figures == {"paths": [path]}


def test_ordinary_paths_and_others_manifests_do_not():
    paths = ["study/hooks.py", "tests/test_mean.py", "agents/ada/manifest.toml", "src/eve.py"]
    assert fold([proposed(*paths)])[1] == []
    assert fold([proposed("angelos/control/a.py", agent="person/ada")])[1] == []


def test_a_burst_to_the_network_quarantines_and_a_few_retries_do_not():
    assert fold([ran(("socket", "AF_INET", 20), at=n) for n in range(9)])[1] == []
    _, alarms = fold([ran(("socket", "AF_INET", 1_000))])
    assert signals(alarms) == [(AlarmSignal.egress, AlarmResponse.quarantined)]


PROGRAM = [
    ("ptrace", "", 1),
    ("mount", "", 9),
    ("bpf", "", 1),
    ("keyctl", "", 1),
    ("unshare", "", 1),
]
SEEN = (AlarmSignal.probing, AlarmResponse.observed)
STOPPED = (AlarmSignal.probing, AlarmResponse.quarantined)


def test_one_program_that_tries_forbidden_calls_is_reported_and_may_be_run_again():
    runs = [ran(*PROGRAM, at=20 * n) for n in range(6)]
    watch, alarms = fold(runs[:1])
    assert signals(alarms) == [SEEN]
    assert alarms[0].sighting.figures["score"] == 20
    watch, alarms = fold(runs[1:5], watch)
    assert STOPPED not in signals(alarms)
    assert signals(fold(runs[5:], watch)[1]) == [STOPPED]  # again and again is no accident
    apart = [ran(*PROGRAM, at=700 * n) for n in range(9)]
    assert set(signals(fold(apart)[1])) == {SEEN}


def test_trying_on_with_other_calls_quarantines():
    other = ran(("setns", "", 1), at=30)
    assert signals(fold([ran(*PROGRAM), other])[1]) == [SEEN, STOPPED]
    each = [ran((call, "", 1), at=n) for n, call in enumerate(("ptrace", "mount", "bpf"))]
    assert signals(fold(each)[1])[-1] == STOPPED
    assert fold([ran(("socket", "AF_INET", 3), ("mbind", "", 2), at=n) for n in range(20)])[1] == []


def test_a_canary_that_is_printed_proposed_or_used_quarantines():
    data = {"token": "tok-1", "session": "canary", "canary": canary_digest(CANARY)}
    watch, _ = fold([make_fact(Kind.token_created, "person/olga", data=data)])
    used = make_fact(Kind.access_refused, EVE, outcome="canary", data={"door": "api", "act": "x"})
    change = {"path": "a.py", "before": None, "after": "1", "diff": f"+t = '{CANARY}'"}
    for fact in (ran(stdout=f"I found {CANARY}!"), proposed(changes=[change]), used):
        assert signals(fold([fact], watch)[1]) == [(AlarmSignal.canary, AlarmResponse.quarantined)]
    assert fold([ran(stdout="angelc_" + "y" * 43)], watch)[1] == [], "nobody made that one"


def test_gaps_in_an_agents_own_sequence_quarantine_and_in_a_nodes_are_reported():
    def wrote(writer, number):
        sequence = FactSequence(writer=PrincipalId(writer), life=1, number=number)
        return make_fact(Kind.agent_connected, writer, actor=writer, sequence=sequence)

    _, alarms = fold([wrote("agent/eve", 7), wrote("agent/eve", 8), wrote("agent/eve", 11)])
    assert signals(alarms) == [(AlarmSignal.sequence, AlarmResponse.quarantined)]
    assert alarms[0].sighting.figures["missing"] == 2
    _, alarms = fold([wrote("node/exec1", 1), wrote("node/exec1", 3)])
    assert signals(alarms) == [(AlarmSignal.sequence, AlarmResponse.observed)]


def test_calls_that_its_role_does_not_make_pause_it_the_second_time():
    past = [ran(agent=PrincipalId(f"agent/p{n % 9}"), at=n) for n in range(200)]
    watch, alarms = fold(past)
    assert alarms == []
    odd = ran(("socket", "AF_NETLINK", 1), at=300)
    watch, alarms = fold([odd], watch)
    assert alarms == [], "once is nothing"
    _, alarms = fold([odd], watch)
    assert signals(alarms) == [(AlarmSignal.system_calls, AlarmResponse.paused)]
    assert fold([odd, odd])[1] == [], "without a history nothing is odd"


def test_a_spike_of_cpu_or_proposals_that_lasts_pauses():
    _, alarms = fold([ran(at=60 * n, cpu_s=2_000.0) for n in range(3)])
    assert signals(alarms) == [(AlarmSignal.cpu, AlarmResponse.paused)]
    _, alarms = fold([proposed(at=n) for n in range(120)])
    assert signals(alarms) == [(AlarmSignal.commits, AlarmResponse.paused)]


def test_one_burst_does_not_and_neither_does_habit():
    assert fold([proposed(at=n) for n in range(50)])[1] == []
    rate = Rate()
    for minute in range(3_000):
        rate = counted(rate, 60.0 * minute, 30.0, 4.0)
        if minute % 20 == 0:
            rate = msgspec.structs.replace(rate, odd=())  # a person has looked and resumed it
    assert odd_minutes(rate) >= 0
    assert rate.mean < 4


def test_in_observe_mode_nothing_is_stopped_and_each_alarm_says_what_it_saw():
    observe = GovernanceConfig(detection=DetectionConfig(certain=SignalMode.observe))
    watch, alarms = fold([proposed("agents/eve.toml")] * 5, config=observe)
    assert signals(alarms) == [(AlarmSignal.self_change, AlarmResponse.observed)]
    assert watch.stops == {}
    assert owed(watch) == alarms
    assert fold([proposed(at=n) for n in range(120)], config=observe)[1][0].response == "observed"


def test_a_used_up_budget_is_reported_and_not_stopped_twice():
    data = {"reason": "it has used 9 of 9 tasks", "cause": "budget"}
    _, alarms = fold([make_fact(Kind.principal_paused, EVE, data=data)])
    assert signals(alarms) == [(AlarmSignal.budget, AlarmResponse.observed)]


def test_what_is_kept_is_bounded():
    facts = (ran(("ptrace", "", 1), at=n, agent=PrincipalId(f"agent/n{n}")) for n in range(2_100))
    watch, _ = fold(facts)
    assert len(watch.agents) == 2_000
    watch, _ = fold(ran(("keyctl", "", 1), at=n, cpu_s="much", x=[1]) for n in range(300))
    track = watch.agents[EVE]
    assert len(track.weights) <= 64
    assert len(track.acts) <= 20


def route(at, act="GET /models", count=1):
    clock, data = ManualClock(1_700_000_000 + at), {"door": "api", "act": act, "count": count}
    return make_fact(
        Kind.access_refused, EVE, actor="system/hub", outcome="forbidden", data=data, clock=clock
    )


@pytest.mark.parametrize(
    "crowd",
    [lambda at: ran(("socket", "AF_INET", 1), at=at), route],
    ids=["attempts to reach a network", "one refused route"],
)
def test_a_crowd_of_acts_that_weigh_little_hides_none_that_weighs(crowd):
    first = ran(("ptrace", "", 1), ("keyctl", "", 1), at=0)
    watch, alarms = fold([first, *(crowd(1 + n) for n in range(100))])
    assert STOPPED not in signals(alarms)
    assert len(watch.agents[EVE].weights) <= 64
    second = ran(("mount", "", 1), ("unshare", "", 1), at=200)
    assert signals(fold([second], watch)[1]) == [STOPPED]


def test_a_crowd_of_small_attempts_to_reach_a_network_is_a_burst():
    facts = [ran(("socket", "AF_INET", 12), at=n) for n in range(90)]
    assert (AlarmSignal.egress, AlarmResponse.quarantined) in signals(fold(facts)[1])


@pytest.mark.parametrize("rows", [None, 3, [3], [{"call": 3, "count": -1}], [{}], [{"count": "a"}]])
def test_evidence_of_any_form_stops_no_detector(rows):
    data = {"status": "ok", "exit_code": 0, "stdout": "", "stderr": "", "duration_s": 0.1,
            "node": "n", "tier": "full", "evidence": {"refused": rows, "cpu_s": -1}}  # fmt: skip
    fact = make_fact(Kind.task_finished, "task-1", on_behalf_of=EVE, outcome="ok", data=data)
    assert fold([fact])[1] == []
