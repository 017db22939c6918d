"""Who misbehaves: facts in, effects out; no waiting here.

Deterministic signs stop a principal (quarantine); what may be a mistake is only pointed out
(a flag). An agent that proposes a change to the policy is quarantined; one whose runs the guard
or the sandbox denies again and again is flagged.

    state, effects = step(Watch(), fact, GovernanceConfig())

The state is a fold over the journal, so it is the same after a restart, and a quarantine that
was carried out before a crash is not asked for again: `principal.quarantined` settles it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from angelos.core.facts import Fact, Kind, ProposalRefused
from angelos.core.ids import FactId, PrincipalId, TaskId
from angelos.core.messages import Status
from angelos.governance.config import GovernanceConfig

WATCHED = (
    Kind.proposal_refused, Kind.task_accepted, Kind.task_finished, Kind.principal_quarantined,
    Kind.principal_released, Kind.principal_flagged,
)  # fmt: skip
_MAX_TASKS = 10_000
_MAX_PATHS = 5


class Quarantine(msgspec.Struct, frozen=True):
    """Stop this principal."""

    principal: PrincipalId
    reason: str
    because: FactId


class Flag(msgspec.Struct, frozen=True):
    """Point this principal out; nothing is stopped. `id` is the same whenever it is derived."""

    id: FactId
    principal: PrincipalId
    reason: str
    evidence: dict[str, Any]


Effect = Quarantine | Flag


class Watch(msgspec.Struct, frozen=True):
    """What is known so far."""

    owed: Mapping[PrincipalId, Quarantine] = {}
    """Quarantines that were asked for and that no fact settles yet."""
    tasks: Mapping[TaskId, PrincipalId] = {}
    """Running tasks of agents, the oldest first; bounded."""
    denied: Mapping[PrincipalId, tuple[float, ...]] = {}
    """When runs of agents were denied lately, Unix seconds."""
    flagged: frozenset[FactId] = frozenset()
    """Flags that are in the journal."""


def step(watch: Watch, fact: Fact, config: GovernanceConfig) -> tuple[Watch, list[Effect]]:
    """Return the state after `fact`, and what to do about it."""
    if fact.kind == Kind.proposal_refused:
        return _refused(watch, fact)
    if fact.kind == Kind.task_accepted:
        return _accepted(watch, fact), []
    if fact.kind == Kind.task_finished:
        return _finished(watch, fact, config)
    if fact.kind in {Kind.principal_quarantined, Kind.principal_released}:
        return _settled(watch, PrincipalId(fact.subject)), []
    if fact.kind == Kind.principal_flagged:
        return msgspec.structs.replace(watch, flagged=watch.flagged | {fact.id}), []
    return watch, []


def owed(watch: Watch, effects: list[Effect]) -> list[Effect]:
    """Return those of `effects` that the facts since have not settled."""
    return [
        effect
        for effect in effects
        if (isinstance(effect, Quarantine) and watch.owed.get(effect.principal) == effect)
        or (isinstance(effect, Flag) and effect.id not in watch.flagged)
    ]


def _refused(watch: Watch, fact: Fact) -> tuple[Watch, list[Effect]]:
    agent = _agent(fact)
    refused = fact.payload()
    if agent is None or fact.outcome != "policy" or not isinstance(refused, ProposalRefused):
        return watch, []
    if not refused.policy_paths or agent in watch.owed:
        return watch, []
    named = ", ".join(refused.policy_paths[:_MAX_PATHS])
    effect = Quarantine(agent, f"proposed a change to the policy itself: {named}", fact.id)
    return msgspec.structs.replace(watch, owed={**watch.owed, agent: effect}), [effect]


def _accepted(watch: Watch, fact: Fact) -> Watch:
    agent = _agent(fact)
    if agent is None:
        return watch
    tasks = {**watch.tasks, TaskId(fact.subject): agent}
    while len(tasks) > _MAX_TASKS:
        del tasks[next(iter(tasks))]
    return msgspec.structs.replace(watch, tasks=tasks)


def _finished(watch: Watch, fact: Fact, config: GovernanceConfig) -> tuple[Watch, list[Effect]]:
    task = TaskId(fact.subject)
    agent = _agent(fact) or watch.tasks.get(task)
    if task in watch.tasks:
        rest = {known: who for known, who in watch.tasks.items() if known != task}
        watch = msgspec.structs.replace(watch, tasks=rest)
    if agent is None or fact.outcome != Status.denied:
        return watch, []
    since = fact.at - config.denied_window_s
    times = (*(at for at in watch.denied.get(agent, ()) if at > since), fact.at)
    effects: list[Effect] = []
    if len(times) >= config.denied_to_flag:
        effects.append(_flag(agent, fact, times))
        times = ()
    denied = {who: then for who, then in watch.denied.items() if who != agent}
    if times:
        denied[agent] = times
    return msgspec.structs.replace(watch, denied=denied), effects


def _flag(agent: PrincipalId, fact: Fact, times: tuple[float, ...]) -> Flag:
    seconds = max(times) - min(times)
    digest = hashlib.sha256(f"flag {fact.id}".encode()).hexdigest()
    return Flag(
        FactId(f"fact-{digest[:32]}"),
        agent,
        f"{len(times)} runs were denied by the guard or the sandbox within {seconds:.0f} s",
        {"task": fact.subject, "denied": len(times), "seconds": seconds},
    )


def _settled(watch: Watch, principal: PrincipalId) -> Watch:
    rest = {who: effect for who, effect in watch.owed.items() if who != principal}
    denied = {who: times for who, times in watch.denied.items() if who != principal}
    return msgspec.structs.replace(watch, owed=rest, denied=denied)


def _agent(fact: Fact) -> PrincipalId | None:
    """Return the agent that is behind a fact; people and our own parts are not watched."""
    for who in (fact.on_behalf_of, fact.actor):
        if who is not None and who.startswith("agent/"):
            return who
    return None
