"""Agents that are paused, and what they have used of their budget: pure.

>>> paused(ControlState(), PrincipalId("agent/ada")) is None
True
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated

import msgspec

from angelos.control.state.models import (
    AgentUsage,
    ControlState,
    PauseRecord,
    TaskRecord,
    replace,
)
from angelos.core.facts import Fact, PrincipalPaused, PrincipalResumed, TaskResult
from angelos.core.ids import PrincipalId, TaskId
from angelos.core.permissions import ALL_AGENTS

HOUR_S = 3600.0
_MINUTE_S = 60.0
Amount = Annotated[float, msgspec.Meta(ge=0)]


class AgentBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an agent may use within an hour; infinite (`inf`): as much as it likes.

    What one task may use are its limits.
    """

    cpu_s: Amount = 4 * HOUR_S
    wall_s: Amount = 16 * HOUR_S
    memory_gb_s: Amount = 16 * HOUR_S
    """Peak memory of each run times its time."""
    tasks: Amount = 2_000
    proposals: Amount = math.inf
    """Beside `AuthorLimits`, which only refuse."""
    tokens: Amount = math.inf
    """Of models, where a run's evidence names them."""
    money: Amount = math.inf
    """Likewise, in the unit that is reported."""


class BudgetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budgets of agents; `[budgets]` of `angelos.toml` in the data directory.

    >>> config = BudgetConfig(agents={"ada": {"tasks": 5}})
    >>> config.of(PrincipalId("agent/ada")).tasks, config.of(PrincipalId("agent/eve")).tasks
    (5.0, 2000)
    """

    every: AgentBudget = AgentBudget()
    agents: dict[str, dict[str, Amount]] = {}
    """By name, what is different for one agent."""

    def __post_init__(self) -> None:
        unknown = {key for row in self.agents.values() for key in row} - set(_FIGURES)
        if unknown:
            raise ValueError(f"a budget has no {', '.join(sorted(unknown))}")

    def of(self, agent: PrincipalId) -> AgentBudget:
        """Return the budget of an agent."""
        own = self.agents.get(agent.partition("/")[2], {})
        return msgspec.structs.replace(self.every, **{k: float(v) for k, v in own.items()})


_FIGURES = {
    "cpu_s": "CPU-seconds",
    "wall_s": "seconds of running",
    "memory_gb_s": "gigabyte-seconds of memory",
    "tasks": "tasks",
    "proposals": "proposals",
    "tokens": "tokens of models",
    "money": "of money for models",
}
"""The figures of a budget, and their names."""


def is_agent(principal: PrincipalId) -> bool:
    """Return whether a principal can be paused."""
    return principal.startswith("agent/")


def paused(state: ControlState, principal: PrincipalId | None) -> PauseRecord | None:
    """Return the pause that holds a principal, if one does."""
    if principal is None or not is_agent(principal):
        return None
    for subject in (ALL_AGENTS, principal):
        record = state.pauses.get(subject)
        if record is not None and record.paused:
            return record
    return None


def holds(state: ControlState, task: TaskRecord) -> bool:
    """Return whether a task stands still."""
    return paused(state, task.by) is not None


def pause(state: ControlState, fact: Fact) -> ControlState:
    """Record that an agent, or all of them, are paused."""
    data, subject = fact.read(PrincipalPaused), PrincipalId(fact.subject)
    if (record := state.pauses.get(subject)) is not None and record.paused:
        return state
    record = PauseRecord(
        fact=fact.id, paused=True, at=fact.at, reason=data.reason, cause=data.cause
    )
    return replace(state, pauses={**state.pauses, subject: record})


def resume(state: ControlState, fact: Fact) -> ControlState:
    """Record that it goes on: its open tasks get the time back for which they stood still."""
    fact.read(PrincipalResumed)
    subject = PrincipalId(fact.subject)
    before = state.pauses.get(subject)
    if before is None or not before.paused:
        return state
    record = PauseRecord(
        fact=fact.id, paused=False, at=fact.at, reason=before.reason, cause=before.cause
    )
    held = {task.id for task in state.tasks.values() if task.open and holds(state, task)}
    state = replace(state, pauses={**state.pauses, subject: record})
    freed = {
        task: _later(state.tasks[task], fact.at - max(before.at, state.tasks[task].at))
        for task in held
        if not holds(state, state.tasks[task])
    }
    if subject != ALL_AGENTS:
        usage = {agent: used for agent, used in state.usage.items() if agent != subject}
        state = replace(state, usage=usage)
    return replace(state, tasks={**state.tasks, **freed})


def _later(task: TaskRecord, seconds: float) -> TaskRecord:
    more = max(0.0, seconds)
    return msgspec.structs.replace(task, wall_s=task.wall_s + more, deadline=task.deadline + more)


# -- budgets ---------------------------------------------------------------------------------


def counted(state: ControlState, fact: Fact) -> ControlState:
    """Count what a task of an agent has used; called before its end is folded."""
    task = state.tasks.get(TaskId(fact.subject))
    if task is None or not task.open or not is_agent(task.by):
        return state
    result = fact.read(TaskResult)
    evidence = result.evidence
    used = AgentUsage(
        at=fact.at - fact.at % _MINUTE_S,
        tasks=1,
        wall_s=result.duration_s,
        cpu_s=_number(evidence.get("cpu_s")),
        memory_gb_s=_number(evidence.get("memory_bytes")) / 1e9 * result.duration_s,
        tokens=_number(evidence.get("tokens")),
        money=_number(evidence.get("money")),
    )
    rows = [row for row in state.usage.get(task.by, ()) if row.at > fact.at - HOUR_S - _MINUTE_S]
    if rows and rows[-1].at == used.at:
        used = _sum([rows.pop(), used])
    return replace(state, usage={**state.usage, task.by: (*rows, used)})


def used(state: ControlState, agent: PrincipalId, now: float) -> AgentUsage:
    """Return what an agent has used within the last hour, or since it was resumed."""
    return _sum([row for row in state.usage.get(agent, ()) if row.at > now - HOUR_S])


def exhausted(
    state: ControlState, now: float, budgets: BudgetConfig
) -> Iterator[tuple[PrincipalId, str]]:
    """Yield the agents that have used up their budget and are not paused, each with the reason."""
    recent = [p.author for p in state.proposals.values() if p.at > now - HOUR_S]
    for agent in dict.fromkeys([*state.usage, *filter(is_agent, recent)]):
        if paused(state, agent) is None and (reason := _reason(state, agent, now, budgets)):
            yield agent, reason


def figures(state: ControlState, agent: PrincipalId, now: float) -> dict[str, float]:
    """Return what an agent has used of each figure of its budget."""
    row = used(state, agent, now)
    resumed = state.pauses[agent].at if agent in state.pauses else 0.0
    since = max(now - HOUR_S, resumed)
    proposals = sum(p.author == agent and p.at > since for p in state.proposals.values())
    spent = msgspec.structs.asdict(row) | {"proposals": proposals}
    return {name: spent[name] for name in _FIGURES}


def _reason(state: ControlState, agent: PrincipalId, now: float, budgets: BudgetConfig) -> str:
    most = msgspec.structs.asdict(budgets.of(agent))
    for name, figure in figures(state, agent, now).items():
        if figure >= most[name]:
            return f"it has used {figure:g} of {most[name]:g} {_FIGURES[name]} within an hour"
    return ""


def _sum(rows: list[AgentUsage]) -> AgentUsage:
    return AgentUsage(
        at=rows[-1].at if rows else 0.0,
        tasks=sum(row.tasks for row in rows),
        wall_s=sum(row.wall_s for row in rows),
        cpu_s=sum(row.cpu_s for row in rows),
        memory_gb_s=sum(row.memory_gb_s for row in rows),
        tokens=sum(row.tokens for row in rows),
        money=sum(row.money for row in rows),
    )


def _number(value: object) -> float:
    """Return a figure of a node's evidence; what is none counts nothing."""
    good = isinstance(value, int | float) and 0 <= value < 1e18  # noqa: PLR2004 - not inf, not nan
    return float(value) if isinstance(value, int | float) and good else 0.0
