"""Which principals misbehave: facts in, alarms out. Pure.

Certain signs stop an agent (quarantine); what may be a mistake is reported, or pauses it until a
person has looked. `detection` says what is a sign; here it is kept whose it is, what was done
about it, and what is still owed.

    state, alarms = step(WatchState(), fact, GovernanceConfig())

The state is a fold of the journal, so it is the same after a restart. What was carried out before
a crash is not requested again: the alarm's own fact and `principal.quarantined` settle it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.facts import (
    AgentEnrolled,
    AlarmResponse,
    AlarmSignal,
    Fact,
    Kind,
    TaskResult,
    TokenCreated,
)
from angelos.core.ids import FactId, PrincipalId, TaskId
from angelos.core.sequences import FactSequence, check_sequence, latest
from angelos.governance.config import GovernanceConfig
from angelos.governance.detection.calls import CallHistory, learned
from angelos.governance.detection.models import Alarm, Severity, Sighting, alarm
from angelos.governance.detection.tracks import AgentTrack, seen

WATCHED = (
    Kind.proposal_received,
    Kind.proposal_refused,
    Kind.access_refused,
    Kind.task_accepted,
    Kind.task_finished,
    Kind.token_created,
    Kind.agent_enrolled,
    Kind.principal_paused,
    Kind.principal_resumed,
    Kind.principal_quarantined,
    Kind.principal_released,
    Kind.principal_flagged,
)
"""What is read of the past; of what comes now also the sequences of every fact."""
_MAX_TASKS = 10_000
_MAX_AGENTS = 2_000
_MAX_WRITERS = 5_000
_MAX_CANARIES = 1_000
_ROLE = "agent"
_K = TypeVar("_K")
_V = TypeVar("_V")


class WatchState(msgspec.Struct, frozen=True, kw_only=True):
    """What the facts so far say about principals; bounded."""

    unreported: Mapping[FactId, Alarm] = {}
    """Alarms that are not in the journal yet."""
    stops: Mapping[PrincipalId, Alarm] = {}
    """Quarantines and pauses that were requested and that no fact settles yet."""
    tasks: Mapping[TaskId, PrincipalId] = {}
    """Running tasks of agents, the oldest first."""
    agents: Mapping[PrincipalId, AgentTrack] = {}
    """The least recent first."""
    quarantined: frozenset[PrincipalId] = frozenset()
    """What they still do is no news."""
    roles: Mapping[PrincipalId, str] = {}
    calls: Mapping[str, CallHistory] = {}
    """Of each role."""
    canaries: frozenset[str] = frozenset()
    """SHA-256 of each canary token, hex."""
    sequences: Mapping[PrincipalId, FactSequence] = {}
    """The last of each writer."""


Step = tuple[WatchState, list[Alarm]]


def step(watch: WatchState, fact: Fact, config: GovernanceConfig) -> Step:
    """Return the state after `fact`, and the alarms that it raises."""
    alarms: list[Alarm] = []
    if fact.sequence is not None:
        watch, alarms = _counted(watch, fact, fact.sequence, config)
    if fact.kind in _SETTLING:
        watch = _settled(watch, fact)
    elif fact.kind == Kind.token_created:
        watch = _canaries(watch, fact)
    elif fact.kind == Kind.agent_enrolled:
        watch = _enrolled(watch, fact)
    elif fact.kind == Kind.task_accepted:
        watch = _accepted(watch, fact)
    if fact.kind in _TELLING:
        watch, more = _about(watch, fact, config)
        alarms += more
    return watch, alarms


_SETTLING = frozenset(
    {
        Kind.principal_flagged,
        Kind.principal_quarantined,
        Kind.principal_released,
        Kind.principal_paused,
        Kind.principal_resumed,
    }
)
_TELLING = frozenset(
    {
        Kind.proposal_received,
        Kind.proposal_refused,
        Kind.access_refused,
        Kind.task_finished,
        Kind.principal_paused,
    }
)


def owed(watch: WatchState) -> list[Alarm]:
    """Return the alarms that no later fact has settled."""
    return list({a.id: a for a in (*watch.unreported.values(), *watch.stops.values())}.values())


# -- what a fact says about an agent ---------------------------------------------------------


def _about(watch: WatchState, fact: Fact, config: GovernanceConfig) -> Step:
    agent, watch = _agent(watch, fact)
    if agent is None:
        return watch, []
    role = watch.roles.get(agent, _ROLE)
    history = watch.calls.get(role, CallHistory())
    before = watch.agents.get(agent, AgentTrack())
    track, sightings = seen(before, fact, agent, history, watch.canaries, config.detection)
    data = fact.payload()
    if isinstance(data, TaskResult):
        calls = {**watch.calls, role: learned(history, data.evidence)}
        watch = msgspec.structs.replace(watch, calls=calls)
    alarms: list[Alarm] = []
    for sighting in sightings:
        if (raised := _raised(watch, track, agent, fact, sighting, config)) is not None:
            alarmed = {**track.alarmed, sighting.signal: fact.at}
            track = msgspec.structs.replace(track, alarmed=alarmed)
            watch = _with_alarm(watch, raised)
            alarms.append(raised)
    agents = {key: value for key, value in watch.agents.items() if key != agent}
    return msgspec.structs.replace(
        watch, agents=_newest({**agents, agent: track}, _MAX_AGENTS)
    ), alarms


def _raised(
    watch: WatchState,
    track: AgentTrack,
    agent: PrincipalId,
    fact: Fact,
    sighting: Sighting,
    config: GovernanceConfig,
) -> Alarm | None:
    """Return the alarm, unless the same was raised lately or the agent is being stopped."""
    response = config.detection.response(sighting.severity)
    pending = watch.stops.get(agent)
    stopping = pending is not None and pending.response is AlarmResponse.quarantined
    if stopping or agent in watch.quarantined:
        return None
    last = track.alarmed.get(sighting.signal)
    lately = last is not None and fact.at - last < config.detection.window_s
    if lately and response is not AlarmResponse.quarantined:
        return None
    return alarm(agent, sighting, fact.id, response)


def _with_alarm(watch: WatchState, raised: Alarm) -> WatchState:
    unreported = {**watch.unreported, raised.id: raised}
    watch = msgspec.structs.replace(watch, unreported=unreported)
    if raised.response is AlarmResponse.observed:
        return watch
    return msgspec.structs.replace(watch, stops={**watch.stops, raised.principal: raised})


def _agent(watch: WatchState, fact: Fact) -> tuple[PrincipalId | None, WatchState]:
    """Return the agent that a fact is about; people and the system itself are not watched."""
    if fact.kind in {Kind.access_refused, Kind.principal_paused}:
        subject = PrincipalId(fact.subject)
        return (subject if _is_agent(subject) else None), watch
    task = TaskId(fact.subject)
    agent = next((p for p in (fact.on_behalf_of, fact.actor) if p and _is_agent(p)), None)
    if fact.kind == Kind.task_finished and task in watch.tasks:
        agent = agent or watch.tasks[task]
        rest = {key: value for key, value in watch.tasks.items() if key != task}
        watch = msgspec.structs.replace(watch, tasks=rest)
    return agent, watch


def _is_agent(principal: PrincipalId) -> bool:
    return principal.startswith("agent/")


def _accepted(watch: WatchState, fact: Fact) -> WatchState:
    agent = next((p for p in (fact.on_behalf_of, fact.actor) if p and _is_agent(p)), None)
    if agent is None:
        return watch
    tasks = _newest({**watch.tasks, TaskId(fact.subject): agent}, _MAX_TASKS)
    return msgspec.structs.replace(watch, tasks=tasks)


def _enrolled(watch: WatchState, fact: Fact) -> WatchState:
    data = fact.payload()
    role = data.role if isinstance(data, AgentEnrolled) else ""
    roles = _newest({**watch.roles, PrincipalId(fact.subject): role or _ROLE}, _MAX_AGENTS)
    return msgspec.structs.replace(watch, roles=roles)


def _canaries(watch: WatchState, fact: Fact) -> WatchState:
    data = fact.payload()
    if not isinstance(data, TokenCreated) or not data.canary or len(watch.canaries) > _MAX_CANARIES:
        return watch
    return msgspec.structs.replace(watch, canaries=watch.canaries | {data.canary})


# -- what was done ---------------------------------------------------------------------------


def _settled(watch: WatchState, fact: Fact) -> WatchState:
    """Return the state without what a fact settles."""
    principal = PrincipalId(fact.subject)
    if fact.kind == Kind.principal_flagged:
        rest = {key: value for key, value in watch.unreported.items() if key != fact.id}
        return msgspec.structs.replace(watch, unreported=rest)
    stop = watch.stops.get(principal)
    pausing = fact.kind in {Kind.principal_paused, Kind.principal_resumed}
    if stop is not None and not (pausing and stop.response is AlarmResponse.quarantined):
        stops = {key: value for key, value in watch.stops.items() if key != principal}
        watch = msgspec.structs.replace(watch, stops=stops)
    if fact.kind == Kind.principal_quarantined:
        quarantined = watch.quarantined | {principal}
        watch = msgspec.structs.replace(watch, quarantined=quarantined)
    if fact.kind == Kind.principal_released:
        quarantined = watch.quarantined - {principal}
        watch = msgspec.structs.replace(watch, quarantined=quarantined)
    if fact.kind in {Kind.principal_released, Kind.principal_resumed}:
        # Whoever let it go on has seen what it did: it begins anew, with the habits that it had.
        track = watch.agents.get(principal, AgentTrack())
        fresh = AgentTrack(commits=track.commits, cpu=track.cpu)
        agents = {key: value for key, value in watch.agents.items() if key != principal}
        watch = msgspec.structs.replace(watch, agents={**agents, principal: fresh})
    return watch


# -- sequences -------------------------------------------------------------------------------


def _counted(
    watch: WatchState, fact: Fact, sequence: FactSequence, config: GovernanceConfig
) -> Step:
    """Compare a fact's number with the last of its writer; the first that is read begins."""
    last = watch.sequences.get(sequence.writer)
    try:
        after = check_sequence(last or sequence, sequence) if last else None
    except InvalidInput:
        return watch, []
    rest = {key: value for key, value in watch.sequences.items() if key != sequence.writer}
    sequences = _newest({**rest, sequence.writer: latest(last, sequence)}, _MAX_WRITERS)
    watch = msgspec.structs.replace(watch, sequences=sequences)
    if after is None or after.sound:
        return watch, []
    severity = Severity.certain if _is_agent(sequence.writer) else Severity.notice
    sighting = Sighting(
        signal=AlarmSignal.sequence,
        severity=severity,
        reason=f"its facts do not follow each other ({after.kind}, {after.missing} missing)",
        figures={"kind": str(after.kind), "missing": after.missing, "number": sequence.number},
        acts=(fact.id,),
    )
    response = config.detection.response(severity)
    raised = alarm(sequence.writer, sighting, fact.id, response)
    return _with_alarm(watch, raised), [raised]


def _newest(items: dict[_K, _V], most: int) -> dict[_K, _V]:
    while len(items) > most:
        del items[next(iter(items))]
    return items
