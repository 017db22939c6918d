"""What the dashboard knows and shows: facts in, view out, nothing awaited.

A fact says that something changed; what it is now is asked of the system, so `followed` returns
what has to be asked again. Only live output is taken from the facts themselves.

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
_TASK_KINDS = frozenset({Kind.task_accepted, Kind.task_finished, Kind.task_cancelled})
_SYSTEM_KINDS = ("node.", "checkout.", "branch.", "rollback.", "system.", "policy.")


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known, bounded."""

    connected: bool = False
    detail: str = "Connecting…"
    status: StatusView | None = None
    tasks: Mapping[str, TaskView] = {}
    output: Mapping[str, str] = {}
    """Live output by task, until its result is there."""
    proposals: Mapping[str, ProposalView] = {}
    notices: Mapping[str, str] = {}
    """What went wrong with a review, by proposal."""
    failures: Mapping[str, int] = {}
    """How often that was, by proposal: the same words twice are two answers."""


class Stale(msgspec.Struct, frozen=True, kw_only=True):
    """What has to be asked again."""

    system: bool = False
    tasks: frozenset[str] = frozenset()
    proposals: frozenset[str] = frozenset()

    def __or__(self, other: Stale) -> Stale:
        """Return both together."""
        return Stale(
            system=self.system or other.system,
            tasks=self.tasks | other.tasks,
            proposals=self.proposals | other.proposals,
        )

    def __bool__(self) -> bool:
        return self.system or bool(self.tasks) or bool(self.proposals)


def loaded(
    state: State,
    status: StatusView,
    tasks: Iterable[TaskView],
    proposals: Iterable[ProposalView],
) -> State:
    """Return the state after the system was asked for everything."""
    fresh = replace(state, connected=True, detail="", status=status, tasks={}, proposals={})
    for task in tasks:
        fresh = with_task(fresh, task)
    for proposal in proposals:
        fresh = with_proposal(fresh, proposal)
    return fresh


def lost(state: State, why: str) -> State:
    """Return the state without a connection; what was known stays in sight."""
    return replace(state, connected=False, detail=why)


def followed(state: State, fact: Fact) -> tuple[State, Stale]:
    """Return the state after a fact, and what it made stale."""
    payload = fact.payload()
    if isinstance(payload, TaskOutput):
        # One character more than is shown: then it is seen that something is cut off.
        known = (state.output.get(fact.subject, "") + payload.text)[-MAX_OUTPUT - 1 :]
        output = _newest({**state.output, fact.subject: known}, MAX_TASKS)
        return replace(state, output=output), Stale()
    if isinstance(payload, TaskStarted):
        return _begun(state, fact.subject, payload.attempt), Stale(tasks=frozenset({fact.subject}))
    if fact.kind in _TASK_KINDS:
        return state, Stale(tasks=frozenset({fact.subject}))
    if fact.kind.startswith("proposal."):
        return state, Stale(proposals=frozenset({fact.subject}))
    return state, Stale(system=fact.kind.startswith(_SYSTEM_KINDS))


def _begun(state: State, task: str, attempt: int) -> State:
    """Return the state without what a task printed before its node died, saying so."""
    if attempt == 1 and task not in state.output:
        return state
    notice = f"[started again, attempt {attempt}]\n" if attempt != 1 else "[started again]\n"
    return replace(state, output={**state.output, task: notice})


def to_ask(stale: Stale) -> list[str]:
    """Return the tasks to ask for, oldest first: of thousands, those that will be shown."""
    return sorted(stale.tasks)[-MAX_TASKS:]


def with_status(state: State, status: StatusView) -> State:
    """Return the state with the system as it is now."""
    return replace(state, status=status)


def with_task(state: State, task: TaskView) -> State:
    """Return the state with a task as it is now; the oldest fall out."""
    tasks = _newest({**state.tasks, task.id: task}, MAX_TASKS)
    output = {
        key: text
        for key, text in state.output.items()
        if key in tasks and tasks[key].result is None
    }
    return replace(state, tasks=tasks, output=output)


def with_proposal(state: State, proposal: ProposalView) -> State:
    """Return the state with a proposal as it is now; the oldest that wait for nobody fall out."""
    known = {**state.proposals, proposal.id: proposal}
    waiting = {key: view for key, view in known.items() if view.state == "waiting"}
    rest = _newest(
        {key: view for key, view in known.items() if key not in waiting},
        max(MAX_PROPOSALS - len(waiting), MAX_RECENT),
    )
    proposals = _newest(waiting, MAX_PROPOSALS) | rest
    notices = {k: v for k, v in state.notices.items() if k in waiting}
    failures = {k: v for k, v in state.failures.items() if k in waiting}
    return replace(state, proposals=proposals, notices=notices, failures=failures)


def noticed(state: State, proposal: str, text: str) -> State:
    """Return the state with what went wrong with a review."""
    if proposal not in state.proposals:
        return state
    return replace(
        state,
        notices={**state.notices, proposal: text},
        failures={**state.failures, proposal: state.failures.get(proposal, 0) + 1},
    )


def view(state: State) -> dict[str, Any]:
    """Return what is shown, as plain JSON; every text is safe to print, none is markup."""
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
    r"""Return text in which nothing hides: control and direction characters are spelled out.

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


def _newest(known: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Return the entries with the largest ids; ids sort by time."""
    return {key: known[key] for key in sorted(known, reverse=True)[:limit]}


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
        "needs": proposal.needs,
        "approvals": [visible(person) for person in proposal.approvals],
        "notice": visible(notice),
        "failures": failures,
        "hidden": max(len(proposal.changes) - MAX_CHANGES, 0),
        "changes": [
            {
                "path": visible(change.path),
                "diff": visible(change.diff[:MAX_DIFF]),
                "cut": len(change.diff) > MAX_DIFF,
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
