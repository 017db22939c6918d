"""What is kept of each agent, and what the detectors see in one fact about it. Pure.

    track, sightings = seen(track, fact, name, history, config)

What is kept is bounded: counts, the last weights, the last acts. A track that begins anew forgets,
so the most recent agents are kept.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from angelos.core.facts import (
    AccessRefused,
    AlarmSignal,
    Fact,
    FactPayload,
    Kind,
    PauseCause,
    PrincipalPaused,
    ProposalReceived,
    ProposalRefused,
    RefusalCause,
    TaskResult,
)
from angelos.core.ids import FactId, PrincipalId
from angelos.core.messages import Status
from angelos.core.paths import matches
from angelos.governance.detection.calls import (
    CallHistory,
    network_attempts,
    rare_calls,
    weights,
)
from angelos.governance.detection.models import DetectionConfig, Severity, Sighting
from angelos.governance.detection.rates import Rate, counted, odd_minutes, usual

CANARY = re.compile(r"angelc_[A-Za-z0-9_-]{43}")
"""A token that opens nothing: only who reads what it was put in can know it."""
CANARY_CODE = "canary"
_MAX_WEIGHTS, _MAX_ACTS, _MAX_PATHS, _MOST_OF_AN_ACT = 64, 20, 5, 10
_DENIED = 4.0
_UNNAMED = "a call that is not named"
_LEAST_CPU_S = 30.0
_PROBES = frozenset({"forbidden", "unauthenticated", "not-found"})


class Weight(msgspec.Struct, frozen=True):
    """Something refused that weighs."""

    at: float
    points: float
    fact: FactId
    what: str
    """A run, or a route; equal routes count up to a bound."""
    network: int = 0
    calls: tuple[tuple[str, float], ...] = ()
    """The refused calls of a run, with what each weighs."""


class AgentTrack(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of one agent."""

    weights: tuple[Weight, ...] = ()
    commits: Rate = Rate()
    cpu: Rate = Rate(mean=math.log1p(30.0), variance=0.25)
    odd_runs: tuple[bool, ...] = ()
    """Of the last five runs, which made calls that are rare for the role."""
    acts: tuple[FactId, ...] = ()
    """The last facts about it, for a person to look at."""
    alarmed: dict[AlarmSignal, float] = {}
    """When each alarm was last raised."""


Seen = tuple[AgentTrack, list[Sighting]]


def seen(
    track: AgentTrack,
    fact: Fact,
    agent: PrincipalId,
    history: CallHistory,
    canaries: frozenset[str],
    config: DetectionConfig,
) -> Seen:
    """Return what is remembered of an agent after a fact about it, and what the fact shows.

    Args:
        track: What was remembered before.
        fact: About the agent, whoever reports it.
        agent: Whom it is about.
        history: Of its role, before this fact.
        canaries: SHA-256 of the canary tokens, hex.
        config: Thresholds.
    """
    data = fact.payload()
    track = msgspec.structs.replace(track, acts=(*track.acts, fact.id)[-_MAX_ACTS:])
    sightings: list[Sighting] = []
    if fact.kind == Kind.task_finished:
        evidence = data.evidence if isinstance(data, TaskResult) else {}
        track, sightings = _run(track, fact, evidence, history, config)
    elif isinstance(data, AccessRefused):
        track, sightings = _refused(track, fact, data, config)
    elif isinstance(data, ProposalReceived):
        track, sightings = _proposed(track, fact, data, agent, config)
    elif isinstance(data, ProposalRefused):
        sightings = list(_policy(fact, data))
    elif isinstance(data, PrincipalPaused) and data.cause is PauseCause.budget:
        sightings = [_sighting(AlarmSignal.budget, Severity.notice, fact, data.reason, {})]
    if isinstance(data, FactPayload):
        sightings += _canary(fact, data, canaries)
    return track, sightings


def _sighting(
    signal: AlarmSignal,
    severity: Severity,
    fact: Fact,
    reason: str,
    figures: dict[str, object],
    acts: Sequence[FactId] = (),
) -> Sighting:
    return Sighting(
        signal=signal,
        severity=severity,
        reason=reason,
        figures=figures,
        acts=tuple(dict.fromkeys((*acts, fact.id)))[-_MAX_ACTS:],
    )


# -- refused calls and routes ----------------------------------------------------------------


def _run(
    track: AgentTrack,
    fact: Fact,
    evidence: Mapping[str, object],
    history: CallHistory,
    config: DetectionConfig,
) -> Seen:
    calls, network = weights(evidence), network_attempts(evidence)
    if fact.outcome == Status.denied and not calls:
        calls[_UNNAMED] = _DENIED
    sightings: list[Sighting] = []
    if calls or network:
        what = f"run {fact.subject}"
        weight = Weight(fact.at, 0.0, fact.id, what, network, tuple(calls.items()))
        track, sightings = _weighed(track, fact, weight, config)
    track, spikes = _spent(track, fact, evidence, config)
    rare = rare_calls(history, evidence, config.rare_call_share, config.role_runs)
    odd = (*track.odd_runs, bool(rare))[-5:]
    track = msgspec.structs.replace(track, odd_runs=odd)
    if rare and sum(odd) >= config.persistence:
        reason = (
            f"{sum(odd)} of its last {len(odd)} runs made system calls that its role does not:"
            f" {', '.join(rare[:_MAX_PATHS])}"
        )
        figures: dict[str, object] = {"runs": sum(odd), "of": len(odd), "calls": list(rare[:20]),
                                      "role_runs": history.runs}  # fmt: skip
        sightings.append(
            _sighting(AlarmSignal.system_calls, Severity.statistical, fact, reason, figures)
        )
    return track, sightings + spikes


def _refused(track: AgentTrack, fact: Fact, data: AccessRefused, config: DetectionConfig) -> Seen:
    if fact.outcome not in _PROBES and fact.outcome:
        return track, []
    count = float(min(max(1, data.count), _MOST_OF_AN_ACT))
    weight = Weight(fact.at, count, fact.id, f"{data.door} {data.act}"[:200])
    return _weighed(track, fact, weight, config)


def _weighed(track: AgentTrack, fact: Fact, weight: Weight, config: DetectionConfig) -> Seen:
    since = fact.at - config.window_s
    rows = _bounded([*(w for w in track.weights if w.at > since), weight])
    track = msgspec.structs.replace(track, weights=rows)
    total = _weight_of_routes(rows) + _weight_of_runs(rows, config)
    network = sum(row.network for row in rows)
    seconds = max(0.0, fact.at - rows[0].at)
    acts = [row.fact for row in rows]
    sightings: list[Sighting] = []
    if total >= config.notice_score:
        severity = Severity.certain if total >= config.quarantine_score else Severity.notice
        reason = (
            f"its refused calls within {seconds:.0f} s weigh {total:g}"
            f" ({config.quarantine_score:g} are taken for probing), the last: {weight.what}"
        )
        figures: dict[str, object] = {
            "score": total,
            "seconds": seconds,
            "acts": len({row.what for row in rows}),
        }
        sightings.append(_sighting(AlarmSignal.probing, severity, fact, reason, figures, acts))
    if weight.network and network >= config.egress_calls:
        reason = f"it tried {network} times within {seconds:.0f} s to reach a network"
        figures = {"attempts": network, "seconds": seconds}
        sightings.append(
            _sighting(AlarmSignal.egress, Severity.certain, fact, reason, figures, acts)
        )
    return track, sightings


def _bounded(rows: Sequence[Weight]) -> tuple[Weight, ...]:
    """Return as many rows as are kept; of too many, those that weigh together are one row.

    So nobody has what weighs forgotten by a crowd of acts that weigh nothing more.
    """
    if len(rows) <= _MAX_WEIGHTS:
        return tuple(rows)
    merged: dict[object, Weight] = {}
    for row in rows:
        key = row.fact if row.calls else row.what if row.points else ""
        before = merged.pop(key, None)
        merged[key] = row if before is None else _together(before, row)
    return tuple(merged.values())[-_MAX_WEIGHTS:]


def _together(before: Weight, row: Weight) -> Weight:
    return msgspec.structs.replace(
        row,
        points=min(before.points + row.points, _MOST_OF_AN_ACT),
        network=before.network + row.network,
    )


def _weight_of_routes(rows: Sequence[Weight]) -> float:
    """Return how much refused routes weigh; each up to a bound."""
    by_act: dict[str, float] = {}
    for row in rows:
        by_act[row.what] = min(by_act.get(row.what, 0.0) + row.points, _MOST_OF_AN_ACT)
    return sum(by_act.values())


def _weight_of_runs(rows: Sequence[Weight], config: DetectionConfig) -> float:
    """Return how much refused calls weigh: each call once, a run up to a bound.

    One program that tries what its box allows is reported, and may be run again; trying on with
    other calls, or the same again and again, is what no honest agent does.
    """
    counted: set[str] = set()
    unnamed = sum(points for row in rows for call, points in row.calls if call == _UNNAMED)
    total = min(unnamed, config.run_score)
    for row in (row for row in rows if row.calls and row.calls[0][0] != _UNNAMED):
        fresh = sum(points for call, points in row.calls if call not in counted)
        counted.update(call for call, _ in row.calls)
        total += min(fresh, config.run_score) if fresh else config.repeat_score
    return total


# -- rates -----------------------------------------------------------------------------------


def _spent(
    track: AgentTrack, fact: Fact, evidence: Mapping[str, object], config: DetectionConfig
) -> Seen:
    value = evidence.get("cpu_s")
    spent = float(value) if isinstance(value, int | float) and 0 <= value < 1e9 else 0.0  # noqa: PLR2004
    rate = counted(track.cpu, fact.at, spent, config.rate_deviations, _LEAST_CPU_S)
    track = msgspec.structs.replace(track, cpu=rate)
    return track, _rate_sightings(AlarmSignal.cpu, rate, track, fact, config, "CPU-seconds")


def _rate_sightings(
    signal: AlarmSignal,
    rate: Rate,
    track: AgentTrack,
    fact: Fact,
    config: DetectionConfig,
    unit: str,
) -> list[Sighting]:
    minutes = odd_minutes(rate)
    if rate.minute not in rate.odd or minutes < config.persistence:
        return []
    reason = (
        f"{minutes} of the last five minutes had far more {unit} than usual: {rate.amount:.0f} in"
        f" this one, usually {usual(rate):.1f}"
    )
    figures: dict[str, object] = {"minutes": minutes, "amount": rate.amount, "usual": usual(rate)}
    return [_sighting(signal, Severity.statistical, fact, reason, figures, track.acts)]


# -- proposals -------------------------------------------------------------------------------


def _proposed(
    track: AgentTrack,
    fact: Fact,
    data: ProposalReceived,
    agent: PrincipalId,
    config: DetectionConfig,
) -> Seen:
    rate = counted(track.commits, fact.at, 1.0, config.rate_deviations)
    track = msgspec.structs.replace(track, commits=rate)
    sightings = _rate_sightings(AlarmSignal.commits, rate, track, fact, config, "proposals")
    patterns = tuple(pattern.lower() for pattern in config.self_paths)
    changed = data.paths or tuple(change.path for change in data.changes)
    own = [p for p in changed if matches(p.lower(), patterns) or _is_own(p, agent)]
    if own:
        reason = f"proposed a change to what holds or describes it: {', '.join(own[:_MAX_PATHS])}"
        figures: dict[str, object] = {"paths": own[:20]}
        sightings.append(
            _sighting(AlarmSignal.self_change, Severity.certain, fact, reason, figures)
        )
    return track, sightings


def _is_own(path: str, agent: PrincipalId) -> bool:
    """Return whether a path is an agent's own manifest, or one of its tests.

    >>> _is_own("agents/eve/manifest.toml", PrincipalId("agent/eve"))
    True
    >>> _is_own("src/eve.py", PrincipalId("agent/eve"))
    False
    """
    name = agent.partition("/")[2].lower()
    parts = path.lower().split("/")
    folders, file = parts[:-1], parts[-1]
    if "agents" in folders:
        below = parts[folders.index("agents") + 1 :]
        return below[0].partition(".")[0] == name or f"test_{name}" == file.partition(".")[0]
    return False


def _policy(fact: Fact, data: ProposalRefused) -> Iterator[Sighting]:
    if fact.outcome == RefusalCause.policy and data.policy_paths:
        paths = data.policy_paths[:_MAX_PATHS]
        reason = f"proposed a change to the policy itself: {', '.join(paths)}"
        yield _sighting(
            AlarmSignal.self_change, Severity.certain, fact, reason, {"paths": list(paths)}
        )


# -- canaries --------------------------------------------------------------------------------


def _canary(fact: Fact, data: FactPayload, canaries: frozenset[str]) -> Iterator[Sighting]:
    """Yield whether what an agent says holds a canary token, or it was used at a door."""
    used = isinstance(data, AccessRefused) and fact.outcome == CANARY_CODE
    if used or (canaries and any(_is_canary(text, canaries) for text in _texts(data))):
        where = "used" if used else "read"
        reason = f"it has {where} a canary token, which opens nothing and which nobody gave it"
        yield _sighting(AlarmSignal.canary, Severity.certain, fact, reason, {"in": fact.subject})


def _is_canary(text: str, canaries: frozenset[str]) -> bool:
    return any(canary_digest(m.group()) in canaries for m in CANARY.finditer(text))


def canary_digest(token: str) -> str:
    """Return by what a canary token is known: its SHA-256, hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def _texts(data: FactPayload) -> Iterator[str]:
    if isinstance(data, TaskResult):
        yield data.stdout
        yield data.stderr
        for bundle in data.displays:
            yield str(bundle)
    elif isinstance(data, ProposalReceived):
        yield data.message
        yield from (change.diff for change in data.changes)
