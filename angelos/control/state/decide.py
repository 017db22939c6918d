"""What happened, and what is therefore to be done: pure, so that any crash can be replayed.

    state = fold(state, fact)              # the state after the fact
    effects = decide(state, fact)          # what the fact makes necessary
    effects = outstanding(state)           # everything that is necessary, after a restart
    effects = overdue(state, now, 15, 60)  # what time makes necessary

`decide` never asks for an effect that `outstanding` would not ask for in the same state. So
nothing is lost when the process dies between a fact and its effects.

>>> outstanding(ControlState())
[]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from angelos.control.state import (
    audit,
    case_history,
    generations,
    hands,
    pauses,
    proposals,
    quarantines,
    tasks,
)
from angelos.control.state import (
    nodes as node_state,
)
from angelos.control.state.effects import (
    AbandonTask,
    AskCheckout,
    Effect,
    EndTask,
    Judge,
    MakeCandidate,
    Merge,
    Promote,
    PutCheckout,
    PutTask,
    Reject,
    Revert,
    Revoke,
    RollBack,
    RunSteps,
    SetPause,
    StopTask,
)
from angelos.control.state.models import (
    HEALTH,
    ControlState,
    MainRecord,
    NodeRecord,
    ProposalRecord,
    RepoRecord,
    TaskRecord,
    replace,
)
from angelos.control.state.queue import turn
from angelos.core.facts import (
    CancelCause,
    CheckoutFailed,
    CheckoutHealthy,
    CheckoutRequested,
    CheckoutSkipped,
    Fact,
    Kind,
    PolicyLoaded,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision, TaskId

CHECKOUT_ATTEMPTS = 3

Fold = Callable[[ControlState, Fact], ControlState]

_FOLDS: dict[str, tuple[Fold, ...]] = {
    Kind.system_started: (node_state.server_started,),
    Kind.policy_loaded: (lambda state, fact: replace(state, policy=fact.read(PolicyLoaded).hash),),
    Kind.part_restarted: (node_state.part_restarted,),
    Kind.node_enrolled: (node_state.node_known, hands.made),
    Kind.node_connected: (node_state.node_known,),
    Kind.node_disconnected: (node_state.node_left,),
    Kind.principal_quarantined: (node_state.quarantined, quarantines.noted),
    Kind.principal_released: (node_state.quarantined, quarantines.noted),
    Kind.principal_release_asked: (quarantines.noted,),
    Kind.principal_flagged: (quarantines.alarmed,),
    Kind.principal_paused: (pauses.pause,),
    Kind.principal_resumed: (pauses.resume,),
    Kind.audit_damaged: (audit.damaged,),
    Kind.audit_accepted: (audit.accepted,),
    Kind.task_accepted: (tasks.accepted,),
    Kind.task_refused: (),
    Kind.task_started: (tasks.started,),
    Kind.task_finished: (pauses.counted, case_history.counted, tasks.finished),
    Kind.task_reported: (tasks.reported,),
    Kind.task_cancelled: (tasks.cancelled,),
    Kind.outputs_expired: (tasks.expired,),
    Kind.proposal_received: (proposals.received,),
    Kind.proposal_refused: (proposals.received,),
    Kind.proposal_merged: (proposals.moved,),
    Kind.proposal_narrowed: (proposals.moved,),
    Kind.proposal_testing: (proposals.moved,),
    Kind.proposal_tested: (proposals.moved,),
    Kind.proposal_waiting: (proposals.moved,),
    Kind.proposal_approved: (proposals.moved,),
    Kind.proposal_rejected: (proposals.moved,),
    Kind.proposal_reverted: (proposals.moved,),
    Kind.proposal_promoted: (proposals.moved, node_state.advanced),
    Kind.branch_advanced: (node_state.advanced,),
    Kind.rollback_done: (node_state.rolled_back,),
    Kind.checkout_requested: (node_state.checkout_requested,),
    Kind.checkout_skipped: (node_state.checkout_skipped,),
    Kind.checkout_healthy: (node_state.checkout_ended,),
    Kind.checkout_failed: (node_state.checkout_ended,),
    Kind.principal_ended: (generations.ended,),
    Kind.agent_enrolled: (hands.made,),
    Kind.person_added: (hands.made,),
    Kind.person_removed: (),
    Kind.person_changed: (hands.made,),
    Kind.token_created: (),
    Kind.token_revoked: (),
}

KINDS: frozenset[str] = frozenset(_FOLDS)
"""The kinds that control follows; all that it appends itself are among them."""


def fold(state: ControlState, fact: Fact) -> ControlState:
    """Return the state after a fact; a fact that does not fit the state changes only the offset.

    Raises:
        InvalidInput: The fact's data are not those of its kind; the caller keeps the old state.
    """
    for step in _FOLDS.get(fact.kind, ()):
        state = step(state, fact)
    return replace(state, offset=fact.offset)


def decide(state: ControlState, fact: Fact) -> list[Effect]:
    """Return what a fact that was just folded makes necessary."""
    kind, subject = fact.kind, fact.subject
    effects: list[Effect] = []
    if kind.startswith("task."):
        effects += _task_effects(state, state.tasks.get(TaskId(subject)), kind)
    elif kind.startswith("proposal."):
        effects += _after_proposal(state, fact)
    elif kind in (Kind.node_connected, Kind.node_enrolled):
        effects += _revocations(state, PrincipalId(subject))
        effects += _pauses(state, PrincipalId(subject))
        effects += _all_checkouts(state)
    elif kind.startswith("checkout."):
        effects += _checkout_effects(state, _checked_out(state, fact))
    elif kind in (Kind.branch_advanced, Kind.rollback_done):
        effects += _checkout_effects(state, state.repos.get(node_state.repo_of(subject)))
    elif kind in _ABOUT_PRINCIPALS:
        effects += _ABOUT_PRINCIPALS[kind](state, PrincipalId(subject))
    elif kind == Kind.audit_accepted:
        for repo in {record.repo for record in state.proposals.values()}:
            effects += _repo_effects(state, repo)
    # The commands of other nodes are in their queues already.
    return [e for e in effects if not isinstance(e, PutCheckout) or e.node == subject]


def outstanding(state: ControlState) -> list[Effect]:
    """Return every effect that is necessary in a state; used once, after a restart."""
    effects: list[Effect] = []
    for task in state.tasks.values():
        effects += _task_effects(state, task, Kind.task_accepted)
    for repo in {record.repo for record in state.proposals.values()}:
        effects += _repo_effects(state, repo)
    effects += _all_checkouts(state)
    for principal in state.quarantined:
        effects += _quarantine_effects(state, principal)
    for principal in state.pauses:
        effects += _all_pauses(state, principal)
    for principal in state.generations:
        effects += _ended_effects(state, principal)
    return list(dict.fromkeys(effects))


def overdue(state: ControlState, now: float, grace_s: float, gone_s: float) -> list[Effect]:
    """Return the effects that end the tasks which have timed out at `now` (Unix seconds)."""
    return [
        EndTask(task.id)
        for task in state.tasks.values()
        if task.open
        and not pauses.holds(state, task)
        and now > tasks.last_moment(state, task, gone_s) + grace_s
    ]


# -- tasks -----------------------------------------------------------------------------------


def _task_effects(state: ControlState, task: TaskRecord | None, kind: str) -> Iterator[Effect]:
    if task is None or not task.open:
        return
    if task.cancelled_at is not None:
        if kind in (Kind.task_accepted, Kind.task_cancelled):
            yield StopTask(task.id)
    elif effect := _abandoned(state, task):
        yield effect
    elif kind == Kind.task_accepted:
        yield PutTask(task.id)


def _abandoned(state: ControlState, task: TaskRecord) -> AbandonTask | None:
    """Return the effect that cancels a task which is of no use any more."""
    for principal in (task.by, task.on_behalf_of, task.node):
        if principal is not None and principal in state.quarantined:
            at_node = principal == task.node
            cause = CancelCause.node_quarantined if at_node else CancelCause.principal_quarantined
            return AbandonTask(task.id, cause, f"{principal} is quarantined")
    if generations.over(state, task.by, task.generation):
        reason = f"What {task.by} signed in with is over"
        return AbandonTask(task.id, CancelCause.principal_ended, reason)
    proposal = state.proposals.get(ProposalId(task.proposal))
    if task.proposal and (proposal is None or proposal.state != "testing"):
        reason = f"{task.proposal} is not tested any more"
        return AbandonTask(task.id, CancelCause.not_tested, reason)
    return None


# -- proposals -------------------------------------------------------------------------------


def expired(state: ControlState, now: float, after_s: float) -> list[Effect]:
    """Return the effects that reject what has waited for people for too long."""
    days = f"{after_s / 86_400:g} days"
    return [
        Reject(record.id, f"Nobody decided on it in {days}.")
        for record in state.proposals.values()
        if record.state == "waiting" and now > record.at + after_s
    ]


def _after_proposal(state: ControlState, fact: Fact) -> Iterator[Effect]:
    record = state.proposals.get(ProposalId(fact.subject))
    if record is None:
        return
    yield from _repo_effects(state, record.repo)
    if record.state != "testing":
        for task in state.tasks.values():
            if task.proposal == record.id:
                yield from _task_effects(state, task, fact.kind)
    if fact.kind == Kind.proposal_promoted:
        yield from _checkout_effects(state, state.repos.get(record.repo))


def _repo_effects(state: ControlState, repo: str) -> Iterator[Effect]:
    for record in state.proposals.values():
        if record.repo != repo or not record.open:
            continue
        if record.state == "rejected":
            yield Revert(record.id)
        elif reason := ends(state, record):
            yield Reject(record.id, reason)
        elif record.state == "received":
            yield Merge(record.id)
    batch = turn(state, repo, lambda record: ends(state, record))
    held = batch and batch[0].state == "approved" and state.log_damage
    if batch and not held and not any(ends(state, record) for record in batch):
        yield _turn_effect(batch[0])


def ends(state: ControlState, record: ProposalRecord) -> str:
    """Return why a proposal ends with its author's rights; empty if it does not."""
    if record.author in state.quarantined:
        return f"{record.author} is quarantined."
    if generations.over(state, record.author, record.generation):
        return f"What {record.author} signed in with when they proposed it is over."
    return ""


def _turn_effect(record: ProposalRecord) -> Effect:
    if record.state == "approved":
        return Promote(record.id)
    if record.state == "pending" or record.candidate is None:
        return MakeCandidate(record.id)
    if record.outcome is None:
        return RunSteps(record.id, record.candidate)
    return Judge(record.id, record.candidate)


# -- main and the nodes ----------------------------------------------------------------------


def canaries(state: ControlState) -> list[NodeRecord]:
    """Return the labs nodes, which check a new `main` out first."""
    return [n for n in state.nodes.values() if n.role == "labs" and not n.quarantined]


def restorable(mains: Sequence[MainRecord]) -> Revision | None:
    """Return the newest position of `main` before the last one that failed on no node."""
    for main in reversed(mains[:-1]):
        if not main.failed:
            return main.revision
    return None


def awaited(state: ControlState, repo: RepoRecord) -> list[NodeRecord]:
    """Return the canaries that have not yet reported the present `main` healthy."""
    return [
        node
        for node in canaries(state)
        if not _healthy(node, repo) and node.id not in repo.main.skipped
    ]


def stuck(
    state: ControlState, now: float, after_s: float, since: float
) -> Iterator[tuple[RepoRecord, NodeRecord]]:
    """Yield the canaries that have been silent for too long, each with what waits for it.

    Args:
        state: As of now.
        now: Unix seconds.
        after_s: How long a canary may be silent.
        since: When control was started; before that nobody could connect.
    """
    for repo in state.repos.values():
        for node in () if repo.main.failed else awaited(state, repo):
            begun = max(repo.main.at, node.gone_at or 0.0, since)
            if not node.connected and now - begun > after_s:
                yield repo, node


def _all_checkouts(state: ControlState) -> list[Effect]:
    return [effect for repo in state.repos.values() for effect in _checkout_effects(state, repo)]


def _checkout_effects(state: ControlState, repo: RepoRecord | None) -> Iterator[Effect]:
    if repo is None:
        return
    yield from _rollback(repo)
    if repo.main.failed:
        return
    first = awaited(state, repo)
    after = [n for n in state.nodes.values() if n.role == "execution"]
    nodes = first or after + [n for n in canaries(state) if n.id in repo.main.skipped]
    for node in nodes:
        if node.connected and not node.quarantined:
            yield from _node_checkout(node, repo, canary=bool(first))


def _checked_out(state: ControlState, fact: Fact) -> RepoRecord | None:
    """Return the repository of a fact about a checkout."""
    match fact.payload():
        case (
            CheckoutRequested(repo=repo)
            | CheckoutHealthy(repo=repo)
            | CheckoutFailed(repo=repo)
            | CheckoutSkipped(repo=repo)
        ):
            return state.repos.get(repo)
    return None


def _rollback(repo: RepoRecord) -> Iterator[Effect]:
    """Return the rollback of a failed `main`, also of one that may be rolled back already.

    The process may have died between the rollback and its fact. Then the failed position is the
    last but one, and the handler finds the rollback that was made.
    """
    restored = repo.main.restores is not None
    for end in range(len(repo.mains) if restored else len(repo.mains) - 1, len(repo.mains) + 1):
        mains = repo.mains[:end]
        to = restorable(mains)
        if to is not None and mains[-1].failed:
            yield RollBack(repo.name, mains[-1].revision, to)


def _node_checkout(node: NodeRecord, repo: RepoRecord, *, canary: bool) -> Iterator[Effect]:
    checkout, main = node.checkouts.get(repo.name), repo.main.revision
    if checkout is None or checkout.revision != main:
        yield AskCheckout(node.id, repo.name, main, canary, 1)
    elif checkout.state == "requested":
        yield PutCheckout(node.id, repo.name, main)
    elif (
        checkout.state == "failed"
        and checkout.outcome not in HEALTH
        and checkout.attempt < CHECKOUT_ATTEMPTS
    ):
        yield AskCheckout(node.id, repo.name, main, canary, checkout.attempt + 1)


def _healthy(node: NodeRecord, repo: RepoRecord) -> bool:
    checkout = node.checkouts.get(repo.name)
    return checkout is not None and checkout.healthy == repo.main.revision


# -- quarantine ------------------------------------------------------------------------------


def _quarantine_effects(state: ControlState, principal: PrincipalId) -> Iterator[Effect]:
    for task in state.tasks.values():
        if not task.open:
            continue
        if task.cancelled_at is not None and task.node == principal:
            yield StopTask(task.id)  # its node cannot report the end any more
        elif task.cancelled_at is None and (effect := _abandoned(state, task)):
            yield effect
    for repo in {record.repo for record in state.proposals.values() if record.author == principal}:
        yield from _repo_effects(state, repo)
    for node in state.nodes.values():
        if node.id != principal and not node.quarantined:
            yield Revoke(principal, node.id)


def _ended_effects(state: ControlState, principal: PrincipalId) -> Iterator[Effect]:
    for task in state.tasks.values():
        if task.by == principal and task.open and task.cancelled_at is None:
            yield from filter(None, [_abandoned(state, task)])
    for repo in {record.repo for record in state.proposals.values() if record.undecided}:
        yield from _repo_effects(state, repo)


def _revocations(state: ControlState, node: PrincipalId) -> list[Effect]:
    if node in state.quarantined:
        return []  # it is refused, and its commands with it
    return [Revoke(principal, node) for principal in state.quarantined]


def _pauses(state: ControlState, node: PrincipalId) -> list[Effect]:
    """Return what a node that has connected has to hear of all pauses that are or were."""
    if node in state.quarantined:
        return []
    return [SetPause(p, node, record.paused, record.fact) for p, record in state.pauses.items()]


def _all_pauses(state: ControlState, principal: PrincipalId) -> list[Effect]:
    """Return what every node has to hear of one pause or its end."""
    record = state.pauses.get(principal)
    if record is None:
        return []
    return [
        SetPause(principal, node.id, record.paused, record.fact)
        for node in state.nodes.values()
        if not node.quarantined
    ]


_ABOUT_PRINCIPALS: dict[str, Callable[[ControlState, PrincipalId], Iterable[Effect]]] = {
    Kind.principal_quarantined: _quarantine_effects,
    Kind.principal_paused: _all_pauses,
    Kind.principal_resumed: _all_pauses,
    Kind.principal_ended: _ended_effects,
}
