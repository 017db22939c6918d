"""Which principals misbehave: facts in, effects out. Pure.

Deterministic signs stop a principal (quarantine); what may be a mistake is only reported (a
flag). An agent that proposes a change to the policy is quarantined; one whose runs the guard or
the sandbox denies again and again is flagged.

    state, effects = step(WatchState(), fact, GovernanceConfig())

The state is a fold of the journal, so it is the same after a restart. A quarantine that was
carried out before a crash is not requested again: `principal.quarantined` settles it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from angelos.core.facts import AccessRefused, Fact, Kind, ProposalRefused, RefusalCause, TaskResult
from angelos.core.ids import FactId, PrincipalId, TaskId
from angelos.core.messages import Status
from angelos.core.system_calls import weighing_calls
from angelos.governance.config import GovernanceConfig

WATCHED = (
    Kind.proposal_refused,
    Kind.access_refused,
    Kind.task_accepted,
    Kind.task_finished,
    Kind.principal_quarantined,
    Kind.principal_released,
    Kind.principal_flagged,
)
_MAX_TASKS = 10_000
_MAX_PATHS = 5


class QuarantineRequest(msgspec.Struct, frozen=True):
    """Stop this principal."""

    principal: PrincipalId
    reason: str
    because: FactId


class FlagRequest(msgspec.Struct, frozen=True):
    """Report this principal; nothing is stopped. `id` depends on the facts alone."""

    id: FactId
    principal: PrincipalId
    reason: str
    evidence: dict[str, Any]


Effect = QuarantineRequest | FlagRequest


class WatchState(msgspec.Struct, frozen=True):
    """What the facts so far say about principals."""

    owed: Mapping[PrincipalId, QuarantineRequest] = {}
    """Quarantines that were requested and that no fact settles yet."""
    tasks: Mapping[TaskId, PrincipalId] = {}
    """Running tasks of agents, the oldest first; bounded."""
    denied: Mapping[PrincipalId, tuple[float, ...]] = {}
    """When runs of agents were denied recently, or made calls that weigh, Unix seconds."""
    refused: Mapping[PrincipalId, tuple[tuple[float, int], ...]] = {}
    """When calls of agents were refused recently, Unix seconds, and how many."""
    flagged: frozenset[FactId] = frozenset()
    """Flags that are in the journal."""


Step = tuple[WatchState, list[Effect]]


def step(watch: WatchState, fact: Fact, config: GovernanceConfig) -> Step:
    """Return the state after `fact`, and the effects that it makes necessary."""
    if fact.kind == Kind.proposal_refused:
        return _refused(watch, fact)
    if fact.kind == Kind.task_accepted:
        return _accepted(watch, fact), []
    if fact.kind in {Kind.task_finished, Kind.access_refused}:
        count = _finished if fact.kind == Kind.task_finished else _access_refused
        return count(watch, fact, config)
    if fact.kind in {Kind.principal_quarantined, Kind.principal_released}:
        return _settled(watch, PrincipalId(fact.subject)), []
    if fact.kind == Kind.principal_flagged:
        return msgspec.structs.replace(watch, flagged=watch.flagged | {fact.id}), []
    return watch, []


def owed(watch: WatchState, effects: list[Effect]) -> list[Effect]:
    """Return those of `effects` that no later fact has settled."""
    return [
        effect
        for effect in effects
        if (isinstance(effect, QuarantineRequest) and watch.owed.get(effect.principal) == effect)
        or (isinstance(effect, FlagRequest) and effect.id not in watch.flagged)
    ]


def _refused(watch: WatchState, fact: Fact) -> Step:
    agent = _agent(fact)
    refused = fact.payload()
    if (
        agent is None
        or fact.outcome != RefusalCause.policy
        or not isinstance(refused, ProposalRefused)
    ):
        return watch, []
    if not refused.policy_paths or agent in watch.owed:
        return watch, []
    named = ", ".join(refused.policy_paths[:_MAX_PATHS])
    effect = QuarantineRequest(agent, f"proposed a change to the policy itself: {named}", fact.id)
    return msgspec.structs.replace(watch, owed={**watch.owed, agent: effect}), [effect]


def _access_refused(watch: WatchState, fact: Fact, config: GovernanceConfig) -> Step:
    """Count refused calls of an agent; it is flagged when there are many."""
    agent, data = PrincipalId(fact.subject), fact.payload()
    if not agent.startswith("agent/") or not isinstance(data, AccessRefused):
        return watch, []
    since = fact.at - config.denied_window_s
    calls = (*(call for call in watch.refused.get(agent, ()) if call[0] > since),
             (fact.at, max(1, data.count)))  # fmt: skip
    count = sum(number for _, number in calls)
    rest = {key: value for key, value in watch.refused.items() if key != agent}
    if count < config.refused_to_flag:
        return msgspec.structs.replace(watch, refused=rest | {agent: calls}), []
    seconds = max(0.0, fact.at - calls[0][0])
    digest = hashlib.sha256(f"refused {fact.id}".encode()).hexdigest()
    effect = FlagRequest(
        FactId(f"fact-{digest[:32]}"),
        agent,
        f"{count} of its calls were refused within {seconds:.0f} s, the last: {data.act}",
        {"refused": count, "seconds": seconds, "act": data.act},
    )
    return msgspec.structs.replace(watch, refused=rest), [effect]


def _accepted(watch: WatchState, fact: Fact) -> WatchState:
    agent = _agent(fact)
    if agent is None:
        return watch
    tasks = {**watch.tasks, TaskId(fact.subject): agent}
    while len(tasks) > _MAX_TASKS:
        del tasks[next(iter(tasks))]
    return msgspec.structs.replace(watch, tasks=tasks)


def _finished(watch: WatchState, fact: Fact, config: GovernanceConfig) -> Step:
    task = TaskId(fact.subject)
    agent = _agent(fact) or watch.tasks.get(task)
    if task in watch.tasks:
        rest = {key: agent for key, agent in watch.tasks.items() if key != task}
        watch = msgspec.structs.replace(watch, tasks=rest)
    if agent is None or (fact.outcome != Status.denied and not _attempted(fact)):
        return watch, []
    since = fact.at - config.denied_window_s
    times = (*(at for at in watch.denied.get(agent, ()) if at > since), fact.at)
    effects: list[Effect] = []
    if len(times) >= config.denied_to_flag:
        effects.append(_flag(agent, fact, times))
        times = ()
    denied = {key: times for key, times in watch.denied.items() if key != agent}
    if times:
        denied[agent] = times
    return msgspec.structs.replace(watch, denied=denied), effects


def _attempted(fact: Fact) -> bool:
    """Return whether a run made refused calls that weigh, however it ended."""
    result = fact.payload()
    return isinstance(result, TaskResult) and bool(weighing_calls(result.evidence))


def _flag(agent: PrincipalId, fact: Fact, times: tuple[float, ...]) -> FlagRequest:
    seconds = max(times) - min(times)
    digest = hashlib.sha256(f"flag {fact.id}".encode()).hexdigest()
    return FlagRequest(
        FactId(f"fact-{digest[:32]}"),
        agent,
        f"{len(times)} runs within {seconds:.0f} s were denied, or made system calls that no"
        " innocent program makes",
        {"task": fact.subject, "denied": len(times), "seconds": seconds},
    )


def _settled(watch: WatchState, principal: PrincipalId) -> WatchState:
    rest = {key: effect for key, effect in watch.owed.items() if key != principal}
    denied = {key: times for key, times in watch.denied.items() if key != principal}
    return msgspec.structs.replace(watch, owed=rest, denied=denied)


def _agent(fact: Fact) -> PrincipalId | None:
    """Return the agent behind a fact; people and the system itself are not watched."""
    for principal in (fact.on_behalf_of, fact.actor):
        if principal is not None and principal.startswith("agent/"):
            return principal
    return None
