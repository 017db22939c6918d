"""Who is quarantined, who is flagged, and that a restart asks for nothing twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from angelos.core.facts import AlarmResponse, Kind
from angelos.core.ids import PrincipalId, is_id
from angelos.governance.config import GovernanceConfig
from angelos.governance.state import WatchState, owed, step
from angelos.testing import ManualClock, make_fact

CONFIG = GovernanceConfig()
EVE = PrincipalId("agent/eve")


def policy_refusal(actor="agent/eve", **fields):
    fields = {"outcome": "policy", "data": {"policy_paths": ["angelos.toml"]}} | fields
    return make_fact(Kind.proposal_refused, "prop-1", actor=actor, **fields)


def denied(task="task-1", actor="node/exec1", at=None, **fields):
    clock = ManualClock(at or 1_700_000_000)
    return make_fact(Kind.task_finished, task, actor=actor, clock=clock, outcome="denied", **fields)


def fold(facts, watch=None):
    watch, effects = watch or WatchState(), []
    for fact in facts:
        watch, new = step(watch, fact, CONFIG)
        effects += new
    return watch, effects


def test_an_agent_that_proposes_a_change_to_the_policy_is_quarantined():
    trigger = policy_refusal()
    _, alarms = fold([trigger])
    (alarm,) = alarms
    assert (alarm.principal, alarm.response) == (EVE, AlarmResponse.quarantined)
    assert alarm.sighting.acts == (trigger.id,)
    assert "angelos.toml" in alarm.sighting.reason


def test_so_is_one_on_whose_behalf_the_server_refused_it():
    _, effects = fold([policy_refusal(actor="system/control", on_behalf_of=EVE)])
    assert [e.principal for e in effects] == [EVE]


def test_people_stale_proposals_and_refusals_without_policy_paths_are_left_alone():
    _, effects = fold([
        policy_refusal(actor="person/ada"),
        policy_refusal(outcome="stale"),
        policy_refusal(data={}),
        policy_refusal(data={"policy_paths": []}),
        policy_refusal(data={"policy_paths": "angelos.toml"}),
    ])  # fmt: skip
    assert effects == []


def reported(alarm):
    fact = make_fact(Kind.principal_flagged, alarm.principal)
    return type(fact)(**{**_fields(fact), "id": alarm.id})


def test_it_is_asked_for_once_until_it_is_settled_and_again_after_a_release():
    quarantined = make_fact(Kind.principal_quarantined, EVE)
    released = make_fact(Kind.principal_released, EVE)
    watch, alarms = fold([policy_refusal(), policy_refusal()])
    assert len(alarms) == 1
    assert owed(watch) == alarms
    watch, _ = fold([reported(alarms[0])], watch)
    assert owed(watch) == alarms, "reported, and not quarantined yet"
    watch, more = fold([quarantined, policy_refusal()], watch)
    assert (owed(watch), more) == ([], [])
    _, again = fold([released, policy_refusal()], watch)
    assert len(again) == 1


def test_runs_denied_again_and_again_are_reported_and_stop_nobody():
    accepted = [make_fact(Kind.task_accepted, f"task-{i}", actor="agent/eve") for i in range(3)]
    finished = [denied(f"task-{i}") for i in range(3)]
    watch, alarms = fold([*accepted, *finished])
    (alarm,) = alarms
    assert (alarm.principal, alarm.response) == (EVE, AlarmResponse.observed)
    assert is_id(alarm.id)
    assert alarm.sighting.figures["score"] == 12
    assert not watch.tasks
    settled, _ = fold([make_fact(Kind.principal_flagged, EVE)], watch)
    assert owed(settled) == alarms, "another report settles nothing"
    assert owed(fold([reported(alarm)], watch)[0]) == []


def test_runs_that_end_well_are_weighed_by_what_they_attempted():
    def ran(*calls):
        rows = [{"call": call, "count": 1} for call in calls]
        result = {"status": "ok", "exit_code": 0, "stdout": "", "stderr": "", "duration_s": 0.1,
                  "node": "exec1", "tier": "full", "evidence": {"refused": rows}}  # fmt: skip
        return make_fact(
            Kind.task_finished, "task-1", actor="node/exec1", outcome="ok", data=result,
            on_behalf_of=EVE,
        )  # fmt: skip

    assert fold([ran("mbind", "personality")] * 9)[1] == []
    _, (alarm,) = fold([ran("mount")])
    assert alarm.response is AlarmResponse.observed
    watch, (alarm,) = fold([ran("mount", "ptrace", "bpf")])
    assert alarm.response is AlarmResponse.observed  # one program alone
    _, (alarm,) = fold([ran("setns")], watch)
    assert alarm.response is AlarmResponse.quarantined


def _fields(fact):
    return {name: getattr(fact, name) for name in fact.__struct_fields__}


def test_two_denials_or_three_over_a_day_are_no_flag():
    day = 86_400
    assert fold([denied(on_behalf_of=EVE)] * 2)[1] == []
    slow = [denied(on_behalf_of=EVE, at=1_700_000_000 + n * day) for n in range(3)]
    assert fold(slow)[1] == []


def test_each_agent_is_counted_for_itself():
    mallory = PrincipalId("agent/mallory")
    facts = [denied(on_behalf_of=who) for who in (EVE, mallory, EVE, mallory)]
    assert fold(facts)[1] == []
    assert [e.principal for e in fold([*facts, denied(on_behalf_of=mallory)])[1]] == [mallory]


makers = st.sampled_from([
    lambda n: policy_refusal(actor=f"agent/a{n}"),
    lambda n: make_fact(Kind.principal_quarantined, f"agent/a{n}"),
    lambda n: make_fact(Kind.principal_released, f"agent/a{n}"),
    lambda n: make_fact(Kind.task_accepted, f"task-{n}", actor=f"agent/a{n}"),
    lambda n: denied(f"task-{n}"),
    lambda n: denied(f"task-{n}", on_behalf_of=PrincipalId(f"agent/a{n}")),
    lambda n: make_fact(Kind.proposal_merged, f"prop-{n}"),
])  # fmt: skip


@given(st.lists(st.tuples(makers, st.integers(0, 2)), max_size=40), st.integers(0, 40))
def test_a_restart_at_any_point_owes_what_was_not_settled(story, cut):
    facts = [make(n) for make, n in story]
    watch, _ = fold(facts[:cut])
    whole, _ = fold(facts)
    assert fold(facts[cut:], watch)[0] == whole
    policy = {a.id for a in fold(facts)[1] if "policy" in a.sighting.reason}
    triggers = {a.principal for a in whole.stops.values() if a.id in policy}
    expected = set()
    away = set()
    for fact in facts:  # the simplest model: triggered, and not settled since
        if fact.kind == Kind.proposal_refused and fact.actor not in away:
            expected.add(fact.actor)
        if fact.kind in {Kind.principal_quarantined, Kind.principal_released}:
            expected.discard(fact.subject)
        if fact.kind == Kind.principal_quarantined:
            away.add(fact.subject)
        if fact.kind == Kind.principal_released:
            away.discard(fact.subject)
    assert triggers == expected


def refused(who="agent/eve", count=1, at=1_700_000_000.0):
    data = {"door": "api", "act": "POST /people", "count": count}
    fact = make_fact(Kind.access_refused, who, actor="system/door", data=data)
    return type(fact)(**{**_fields(fact), "at": at})


def test_an_agent_whose_calls_are_refused_again_and_again_is_reported_once():
    assert fold([refused(count=9)])[1] == []
    _, (alarm,) = fold([refused(count=9), refused(), refused()])
    assert (alarm.principal, alarm.sighting.figures["score"]) == (EVE, 10)
    assert fold([refused(count=1_000)] * 9)[1][0].response is AlarmResponse.observed


def test_refused_people_and_calls_of_long_ago_are_no_flag():
    assert fold([refused("person/vic", count=1_000)])[1] == []
    old = 1_700_000_000.0 - CONFIG.detection.window_s - 1
    assert fold([refused(count=9, at=old), refused(count=9)])[1] == []
