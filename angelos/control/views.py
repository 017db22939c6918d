"""How the API shows the records of control.

>>> short(PrincipalId("node/exec1"))
'exec1'
"""

from __future__ import annotations

import msgspec

from angelos import __version__
from angelos.control.state.decide import awaited
from angelos.control.state.models import (
    ControlState,
    NodeRecord,
    PauseRecord,
    ProposalRecord,
    RepoRecord,
    TaskRecord,
)
from angelos.control.state.proposals import is_long
from angelos.control.state.tasks import state_of, waits_for
from angelos.core.api import NodeView, ProposalView, RestartView, TaskView
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.permissions import ALL_AGENTS

_STRENGTH = (Tier.none, Tier.landlock, Tier.reduced, Tier.full)


def short(principal: PrincipalId) -> str:
    """Return a principal's name without its kind."""
    return principal.partition("/")[2]


def task_view(state: ControlState, task: TaskRecord, output: int | None = None) -> TaskView:
    """Return a task as the API shows it, with the last `output` characters of each output."""
    result, reported = task.result, task.reported
    if result is not None and output is not None:
        result = msgspec.structs.replace(
            result, stdout=result.stdout[-output:], stderr=result.stderr[-output:]
        )
    if reported is not None and output is not None:
        reported = msgspec.structs.replace(
            reported, stdout=reported.stdout[-output:], stderr=reported.stderr[-output:]
        )
    return TaskView(
        id=task.id,
        state=state_of(state, task),
        by=task.by,
        node=task.node,
        label=task.label,
        at=task.at,
        offset=task.offset,
        result=result,
        attempt=task.attempt,
        reason=waits_for(state, task),
        reported=reported,
        expired=task.expired,
    )


def proposal_view(proposal: ProposalRecord) -> ProposalView:
    """Return a proposal as the API shows it."""
    waiting = proposal.state == "waiting"
    return ProposalView(
        id=proposal.id,
        repo=proposal.repo,
        base=proposal.base,
        author=proposal.author,
        message=proposal.message,
        digest=proposal.digest,
        state=proposal.state,
        reason=proposal.reason,
        changes=proposal.changes,
        steps=proposal.steps,
        findings=proposal.findings,
        factors=proposal.factors,
        candidate=proposal.candidate,
        batch=proposal.batch,
        commit=proposal.commit,
        revision=proposal.revision,
        needs=proposal.needs - len(proposal.approvals) if waiting else 0,
        approvals=proposal.approvals,
        long=is_long(proposal.changes),
        part_of=proposal.part_of,
        in_dev=proposal.merged or proposal.state == "promoted",
        at=proposal.at,
    )


def node_view(state: ControlState, node: NodeRecord) -> NodeView:
    """Return a node as the API shows it."""
    return NodeView(
        id=node.id,
        role=node.role,
        connected=node.connected,
        tier=node.tier,
        since=node.since,
        profile=node.profile,
        running=sum(task.open and task.node == node.id for task in state.tasks.values()),
        revisions={
            repo: checkout.healthy
            for repo, checkout in node.checkouts.items()
            if checkout.healthy is not None
        },
    )


def restart_views(state: ControlState) -> tuple[RestartView, ...]:
    """Return the parts of the system that were started again, the latest first."""
    rows = sorted(state.restarts.items(), key=lambda row: -row[1].at)
    return tuple(
        RestartView(
            part=part,
            count=record.count,
            at=record.at,
            cause=record.cause,
            exit_code=record.exit_code,
        )
        for part, record in rows
    )


def weakest(state: ControlState) -> Tier:
    """Return the weakest isolation among connected nodes; `none` when there is none."""
    tiers = [node.tier for node in state.nodes.values() if node.connected]
    return min(tiers, key=_STRENGTH.index, default=Tier.none)


def banner(state: ControlState) -> str:
    """Return warnings for everybody to see; empty when there are none."""
    connected = [node for node in state.nodes.values() if node.connected]
    notes = [note for node in connected for note in _node_notes(node)]
    if state.log_damage:
        notes.insert(
            0,
            "The audit log was tampered with, and nothing is promoted until that is accepted: "
            f"{state.log_damage}",
        )
    notes += [_pause_note(agent, record) for agent, record in state.pauses.items() if record.paused]
    if not connected:
        notes.append("No node is connected: nothing can run.")
    notes += [note for repo in state.repos.values() for note in _repo_notes(state, repo)]
    return " ".join(notes)


def _repo_notes(state: ControlState, repo: RepoRecord) -> list[str]:
    """Return the warnings about a repository."""
    if repo.main.failed:
        return [f"main of {repo.name} is not healthy."]
    away = [node for node in awaited(state, repo) if not node.connected]
    names = ", ".join(short(node.id) for node in away)
    return [f"main of {repo.name} waits for its canary {names} to come back."] if away else []


def _pause_note(agent: PrincipalId, record: PauseRecord) -> str:
    name = "Every agent" if agent == ALL_AGENTS else short(agent)
    option = "--all" if agent == ALL_AGENTS else short(agent)
    return f"{name} is paused: {record.reason}. `angelos agent resume {option}` lets it go on."


def _node_notes(node: NodeRecord) -> list[str]:
    """Return the warnings about a connected node."""
    notes: list[str] = []
    version = node.profile.version
    if version and version != __version__:
        notes.append(f"{short(node.id)} has version {version}, the server {__version__}.")
    if node.tier is Tier.none:
        notes.append(f"{short(node.id)} runs code WITHOUT isolation.")
    elif node.tier is Tier.landlock:
        notes.append(f"{short(node.id)} isolates by Landlock and seccomp only.")
    return notes
