"""Facts and views for the dashboard's tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from angelos.core.api import NodeView, ProposalView, RepoView, StatusView, TaskView
from angelos.core.facts import Fact, Kind, StepResult, TaskResult
from angelos.core.messages import Tier
from angelos.core.repository import Change
from angelos.testing import make_fact


def fact(kind: str, subject: str, **data) -> Fact:
    if kind == Kind.task_output:
        data = {"stream": "stdout", **data}
    return make_fact(kind, subject, actor="node/exec1", data=data)


def task(number: int = 1, **more) -> TaskView:
    known = {
        "state": "running", "by": "person/owner", "node": "exec1", "label": f"task {number}",
        "at": 1.0, "offset": "1-0",
    }  # fmt: skip
    return TaskView(id=f"task-{number:03}", **{**known, **more})


def result(**more) -> TaskResult:
    known = {
        "status": "ok", "exit_code": 0, "stdout": "out", "stderr": "err", "duration_s": 1.234,
        "node": "exec1", "tier": Tier.full,
    }  # fmt: skip
    return TaskResult(**{**known, **more})


def proposal(number: int = 1, **more) -> ProposalView:
    known = {
        "repo": "study", "base": "b" * 64, "author": "agent/ada", "message": f"change {number}",
        "digest": "d" * 64, "state": "waiting", "reason": "It touches a protected path.",
        "changes": (Change(path="study/a.py", before=None, after="x", diff="+one\n"),),
        "steps": (StepResult(name="unit", task="task-1", status="ok", seconds=0.5, output="82"),),
        "needs": 1,
    }  # fmt: skip
    return ProposalView(id=f"prop-{number:03}", **{**known, **more})


def status(**more) -> StatusView:
    node = NodeView(
        id="node/exec1", role="execution", connected=True, tier=Tier.full, since=1.0, running=2,
        revisions={"study": "c" * 64},
    )  # fmt: skip
    repo = RepoView(name="study", dev="d" * 64, main="c" * 64)
    known = {
        "version": "0", "started_at": 1.0, "tier": Tier.full, "nodes": (node,), "repos": (repo,),
        "tasks_running": 0, "waiting": 1, "journal": "1-0", "policy": "p",
    }  # fmt: skip
    return StatusView(**{**known, **more})


@pytest.fixture
def make() -> SimpleNamespace:
    """Makers of what the system would send."""
    return SimpleNamespace(fact=fact, proposal=proposal, result=result, status=status, task=task)
