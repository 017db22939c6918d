"""What the dashboard shows: facts in, view out. Pure.

A fact says that an item changed; its present state is requested from the system. So `followed`
returns the items that became stale. Only live output is taken from the facts themselves.

    state, stale = followed(state, fact)      # stale.tasks == {"task-1"}
    state = with_task(state, await angelos.tasks["task-1"].view())
    publish(view(state))
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from angelos.core.api import ProposalView, StatusView, TaskView
from angelos.core.facts import Fact, Kind, TaskOutput, TaskStarted

MAX_TASKS = 20
MAX_PROPOSALS = 50
MAX_RECENT = 8
MAX_OUTPUT = 8_000
"""Characters of one task's output that are shown: the last ones."""
MAX_DIFF = 20_000
"""Characters of one file's diff that are shown: the first ones."""
MAX_CHANGES = 30
_TASK_KINDS = frozenset(
    {Kind.task_accepted, Kind.task_finished, Kind.task_reported, Kind.task_cancelled}
)
_SYSTEM_KINDS = ("node.", "checkout.", "branch.", "rollback.", "system.", "policy.")


class DashboardState(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the dashboard shows, bounded."""

    connected: bool = False
    detail: str = "Connecting…"
    status: StatusView | None = None
    tasks: Mapping[str, TaskView] = {}
    output: Mapping[str, str] = {}
    """Live output by task, until its result is there."""
    proposals: Mapping[str, ProposalView] = {}
    notices: Mapping[str, str] = {}
    """Why a review failed, by proposal."""
    failures: Mapping[str, int] = {}
    """How many reviews failed, by proposal: the same text twice is two failures."""


class StaleItems(msgspec.Struct, frozen=True, kw_only=True):
    """The items that have to be requested again."""

    system: bool = False
    tasks: frozenset[str] = frozenset()
    proposals: frozenset[str] = frozenset()

    def __or__(self, more: StaleItems) -> StaleItems:
        """Return both together."""
        return StaleItems(
            system=self.system or more.system,
            tasks=self.tasks | more.tasks,
            proposals=self.proposals | more.proposals,
        )

    def __bool__(self) -> bool:
        return self.system or bool(self.tasks) or bool(self.proposals)


def loaded(
    state: DashboardState,
    status: StatusView,
    tasks: Iterable[TaskView],
    proposals: Iterable[ProposalView],
) -> DashboardState:
    """Return the state after everything was requested from the system."""
    fresh = replace(state, connected=True, detail="", status=status, tasks={}, proposals={})
    for task in tasks:
        fresh = with_task(fresh, task)
    for proposal in proposals:
        fresh = with_proposal(fresh, proposal)
    return fresh


def lost(state: DashboardState, detail: str) -> DashboardState:
    """Return the state without a connection; the rest stays visible."""
    return replace(state, connected=False, detail=detail)


def followed(state: DashboardState, fact: Fact) -> tuple[DashboardState, StaleItems]:
    """Return the state after a fact, and the items that it made stale."""
    payload = fact.payload()
    if isinstance(payload, TaskOutput):
        # One character more than is shown, so that the view knows that some is cut off.
        gap = f"\n... {payload.omitted} bytes left out ...\n" if payload.omitted else ""
        text = (state.output.get(fact.subject, "") + gap + payload.text)[-MAX_OUTPUT - 1 :]
        output = _newest({**state.output, fact.subject: text}, MAX_TASKS)
        return replace(state, output=output), StaleItems()
    if isinstance(payload, TaskStarted):
        return _begun(state, fact.subject, payload.attempt), StaleItems(
            tasks=frozenset({fact.subject})
        )
    if fact.kind in _TASK_KINDS:
        return state, StaleItems(tasks=frozenset({fact.subject}))
    if fact.kind.startswith("proposal."):
        return state, StaleItems(proposals=frozenset({fact.subject}))
    return state, StaleItems(system=fact.kind.startswith(_SYSTEM_KINDS))


def _begun(state: DashboardState, task: str, attempt: int) -> DashboardState:
    """Return the state with a notice in place of the output before the task's node died."""
    if attempt == 1 and task not in state.output:
        return state
    notice = f"[started again, attempt {attempt}]\n" if attempt != 1 else "[started again]\n"
    return replace(state, output={**state.output, task: notice})


def tasks_to_request(stale: StaleItems) -> list[str]:
    """Return the tasks to request, oldest first: of thousands, those that will be shown."""
    return sorted(stale.tasks)[-MAX_TASKS:]


def with_status(state: DashboardState, status: StatusView) -> DashboardState:
    """Return the state with the system's present status."""
    return replace(state, status=status)


def with_task(state: DashboardState, task: TaskView) -> DashboardState:
    """Return the state with a task's present view; the oldest tasks are dropped."""
    tasks = _newest({**state.tasks, task.id: task}, MAX_TASKS)
    output = {
        key: text
        for key, text in state.output.items()
        if key in tasks and tasks[key].result is None
    }
    return replace(state, tasks=tasks, output=output)


def with_proposal(state: DashboardState, proposal: ProposalView) -> DashboardState:
    """Return the state with a proposal's present view; the oldest settled ones are dropped."""
    views = {**state.proposals, proposal.id: proposal}
    waiting = {key: view for key, view in views.items() if view.state == "waiting"}
    rest = _newest(
        {key: view for key, view in views.items() if key not in waiting},
        max(MAX_PROPOSALS - len(waiting), MAX_RECENT),
    )
    proposals = _newest(waiting, MAX_PROPOSALS) | rest
    notices = {k: v for k, v in state.notices.items() if k in waiting}
    failures = {k: v for k, v in state.failures.items() if k in waiting}
    return replace(state, proposals=proposals, notices=notices, failures=failures)


def noticed(state: DashboardState, proposal: str, text: str) -> DashboardState:
    """Return the state with the notice of a failed review."""
    if proposal not in state.proposals:
        return state
    return replace(
        state,
        notices={**state.notices, proposal: text},
        failures={**state.failures, proposal: state.failures.get(proposal, 0) + 1},
    )


def view(state: DashboardState) -> dict[str, Any]:
    """Return the view as plain JSON; every text is safe to print, none is markup."""
    status = state.status
    proposals = sorted(state.proposals.values(), key=lambda p: p.id, reverse=True)
    return {
        "system": {
            "connected": state.connected,
            "detail": visible(state.detail),
            "tier": str(status.tier) if status else "",
            "banner": visible(status.banner) if status else "",
            "repos": [
                {"name": visible(repo.name), "main": repo.main[:12], "dev": repo.dev[:12]}
                for repo in (status.repos if status else ())
            ],
        },
        "nodes": [
            {
                "name": visible(node.id.partition("/")[2]),
                "role": node.role,
                "connected": node.connected,
                "tier": str(node.tier),
                "running": node.running,
                "revisions": [
                    {"repo": visible(repo), "revision": revision[:12]}
                    for repo, revision in sorted(node.revisions.items())
                ],
            }
            for node in sorted(status.nodes if status else (), key=lambda node: node.id)
        ],
        "approvals": [
            _approval(p, state.notices.get(p.id, ""), state.failures.get(p.id, 0))
            for p in proposals
            if p.state == "waiting"
        ],
        "recent": [_recent(p) for p in proposals if p.state != "waiting"][:MAX_RECENT],
        "tasks": [
            _task(task, state.output.get(task.id, ""))
            for task in sorted(state.tasks.values(), key=lambda task: task.id, reverse=True)
        ],
    }


def visible(text: str) -> str:
    r"""Return text without hidden characters: control and direction characters are spelled out.

    A right-to-left override makes a diff read otherwise than it runs (CVE-2021-42574).

    >>> visible("ok\x1b[31m")
    'ok<U+001B>[31m'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        f"<U+{ord(c):04X}>" if c not in "\n\t" and unicodedata.category(c) in _HIDDEN else c
        for c in text.replace("\r\n", "\n")
    )


_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def _newest(items: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the entries with the largest ids; ids sort by time."""
    return {key: items[key] for key in sorted(items, reverse=True)[:limit]}


def _task(task: TaskView, live: str) -> dict[str, Any]:
    result = task.result
    output = live if result is None else result.stdout + result.stderr
    return {
        "id": task.id,
        "label": visible(task.label) or task.id,
        "by": visible(task.by),
        "node": visible(task.node),
        "state": task.state,
        "status": str(result.status) if result else "cancelling" if task.reason else task.state,
        "reason": visible(task.reason),
        "seconds": round(result.duration_s, 2) if result else None,
        "output": visible(output[-MAX_OUTPUT:]),
        "cut": len(output) > MAX_OUTPUT,
    }


def _approval(proposal: ProposalView, notice: str, failures: int) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "digest": proposal.digest,
        "repo": visible(proposal.repo),
        "base": proposal.base[:12],
        "author": visible(proposal.author),
        "message": visible(proposal.message),
        "reason": visible(proposal.reason),
        "long": proposal.long,
        "commit": proposal.commit or "",
        "needs": proposal.needs,
        "approvals": [visible(person) for person in proposal.approvals],
        "notice": visible(notice),
        "failures": failures,
        "hidden": max(len(proposal.changes) - MAX_CHANGES, 0),
        "changes": [
            {
                "path": visible(change.path),
                "diff": visible(change.diff[:MAX_DIFF]),
                "cut": change.cut or len(change.diff) > MAX_DIFF,
            }
            for change in proposal.changes[:MAX_CHANGES]
        ],
        "steps": [
            {
                "name": visible(step.name),
                "status": visible(step.status),
                "seconds": round(step.seconds, 2),
                "output": visible(step.output[-MAX_OUTPUT:]),
            }
            for step in proposal.steps
        ],
    }


def _recent(proposal: ProposalView) -> dict[str, Any]:
    return {
        "id": proposal.id,
        "state": proposal.state,
        "author": visible(proposal.author),
        "message": visible(proposal.message),
        "reason": visible(proposal.reason),
        "revision": (proposal.revision or "")[:12],
    }
