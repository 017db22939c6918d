"""What happened, and what is therefore to be done: pure, so that any crash can be played through.

    state = fold(state, fact)          # what is known after the fact
    effects = decide(state, fact)      # what the fact makes necessary
    effects = outstanding(state)       # all that is necessary, after a restart
    effects = overdue(state, now, 15, 60)  # what time has made necessary

`decide` never asks for anything that `outstanding` would not ask for in the same state, which is
why nothing is lost when the process dies between a fact and its effects.

>>> outstanding(State())
[]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from angelos.control.state import (
    nodes as node_state,
)
from angelos.control.state import (
    proposals,
    tasks,
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
    StopTask,
)
from angelos.control.state.models import (
    HEALTH,
    MainRecord,
    NodeRecord,
    ProposalRecord,
    RepoRecord,
    State,
    TaskRecord,
    replace,
)
from angelos.core.facts import (
    CheckoutFailed,
    CheckoutHealthy,
    CheckoutRequested,
    Fact,
    Kind,
    PolicyLoaded,
)
from angelos.core.ids import PrincipalId, ProposalId, Revision, TaskId

CHECKOUT_ATTEMPTS = 3

Fold = Callable[[State, Fact], State]

_FOLDS: dict[str, tuple[Fold, ...]] = {
    Kind.system_started: (node_state.server_started,),
    Kind.policy_loaded: (lambda state, fact: replace(state, policy=fact.read(PolicyLoaded).hash),),
    Kind.node_enrolled: (node_state.met,),
    Kind.node_connected: (node_state.met,),
    Kind.node_disconnected: (node_state.left,),
    Kind.principal_quarantined: (node_state.quarantined,),
    Kind.principal_released: (node_state.quarantined,),
    Kind.task_accepted: (tasks.accepted,),
    Kind.task_refused: (),
    Kind.task_started: (tasks.started,),
    Kind.task_finished: (tasks.finished,),
    Kind.task_cancelled: (tasks.cancelled,),
    Kind.proposal_received: (proposals.received,),
    Kind.proposal_refused: (proposals.received,),
    Kind.proposal_merged: (proposals.moved,),
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
    Kind.checkout_healthy: (node_state.checkout_ended,),
    Kind.checkout_failed: (node_state.checkout_ended,),
    Kind.person_added: (),
    Kind.person_removed: (),
}

KINDS: frozenset[str] = frozenset(_FOLDS)
"""The kinds that control follows; all that it says itself are among them."""


def fold(state: State, fact: Fact) -> State:
    """Return the state after a fact; a fact that does not fit changes only the offset.

    Raises `InvalidInput` when the fact's data are not those of its kind; the caller keeps the old
    state and goes on.
    """
    for step in _FOLDS.get(fact.kind, ()):
        state = step(state, fact)
    return replace(state, offset=fact.offset)


def decide(state: State, fact: Fact) -> list[Effect]:
    """Return what a fact that was just folded makes necessary."""
    kind, subject = fact.kind, fact.subject
    effects: list[Effect] = []
    if kind.startswith("task."):
        effects += _task_effects(state, state.tasks.get(TaskId(subject)), kind)
    elif kind.startswith("proposal."):
        effects += _after_proposal(state, fact)
    elif kind in (Kind.node_connected, Kind.node_enrolled):
        effects += _revocations(state, PrincipalId(subject))
        effects += _all_checkouts(state)
    elif kind.startswith("checkout."):
        effects += _checkout_effects(state, _checked_out(state, fact))
    elif kind in (Kind.branch_advanced, Kind.rollback_done):
        effects += _checkout_effects(state, state.repos.get(node_state.repo_of(subject)))
    elif kind == Kind.principal_quarantined:
        effects += _quarantine_effects(state, PrincipalId(subject))
    # What other nodes were asked for lies in their queues already.
    return [e for e in effects if not isinstance(e, PutCheckout) or e.node == subject]


def outstanding(state: State) -> list[Effect]:
    """Return everything that is necessary in a state; used once, after a restart."""
    effects: list[Effect] = []
    for task in state.tasks.values():
        effects += _task_effects(state, task, Kind.task_accepted)
    for repo in {record.repo for record in state.proposals.values()}:
        effects += _repo_effects(state, repo)
    effects += _all_checkouts(state)
    for who in state.quarantined:
        effects += _quarantine_effects(state, who)
    return list(dict.fromkeys(effects))


def overdue(state: State, now: float, grace_s: float, gone_s: float) -> list[Effect]:
    """Return the tasks of which nothing more is to be expected at `now` (Unix seconds)."""
    return [
        EndTask(task.id)
        for task in state.tasks.values()
        if task.open and now > tasks.last_moment(state, task, gone_s) + grace_s
    ]


# -- tasks -----------------------------------------------------------------------------------


def _task_effects(state: State, task: TaskRecord | None, kind: str) -> Iterator[Effect]:
    if task is None or not task.open:
        return
    if task.cancelled_at is not None:
        if kind in (Kind.task_accepted, Kind.task_cancelled):
            yield StopTask(task.id)
    elif reason := _unwanted(state, task):
        yield AbandonTask(task.id, reason)
    elif kind == Kind.task_accepted:
        yield PutTask(task.id)


def _unwanted(state: State, task: TaskRecord) -> str:
    """Return why nobody wants a task any more; empty when somebody does."""
    for who in (task.by, task.on_behalf_of, task.node):
        if who is not None and who in state.quarantined:
            return tasks.quarantine_reason(who)
    proposal = state.proposals.get(ProposalId(task.proposal))
    if task.proposal and (proposal is None or proposal.state != "testing"):
        return f"{task.proposal} is not tested any more"
    return ""


# -- proposals -------------------------------------------------------------------------------


def turn(state: State, repo: str) -> ProposalRecord | None:
    """Return whose turn it is: the one under test, else the oldest approved, else the oldest."""
    mine = [record for record in state.proposals.values() if record.repo == repo]
    for wanted in ("testing", "approved", "merged"):
        for record in mine:
            if record.state == wanted:
                return record
    return None


def _after_proposal(state: State, fact: Fact) -> Iterator[Effect]:
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


def _repo_effects(state: State, repo: str) -> Iterator[Effect]:
    for record in state.proposals.values():
        if record.repo != repo or not record.open:
            continue
        if record.state == "rejected":
            yield Revert(record.id)
        elif record.author in state.quarantined:
            yield Reject(record.id, f"{record.author} is quarantined.")
        elif record.state == "received":
            yield Merge(record.id)
    current = turn(state, repo)
    if current is not None and current.author not in state.quarantined:
        yield _turn_effect(current)


def _turn_effect(record: ProposalRecord) -> Effect:
    if record.state == "approved":
        return Promote(record.id)
    if record.state == "merged" or record.candidate is None:
        return MakeCandidate(record.id)
    if not record.outcome:
        return RunSteps(record.id, record.candidate)
    return Judge(record.id, record.candidate)


# -- main and the nodes ----------------------------------------------------------------------


def canaries(state: State) -> list[NodeRecord]:
    """Return the labs nodes that have to take a new `main` first."""
    return [n for n in state.nodes.values() if n.role == "labs" and not n.quarantined]


def restorable(mains: Sequence[MainRecord]) -> Revision | None:
    """Return the newest position of `main` before the last one that no node found sick."""
    for main in reversed(mains[:-1]):
        if not main.failed:
            return main.revision
    return None


def awaited(state: State, repo: RepoRecord) -> list[NodeRecord]:
    """Return the canaries that have not yet found the present `main` healthy."""
    return [node for node in canaries(state) if not _healthy(node, repo)]


def _all_checkouts(state: State) -> list[Effect]:
    return [effect for repo in state.repos.values() for effect in _checkout_effects(state, repo)]


def _checkout_effects(state: State, repo: RepoRecord | None) -> Iterator[Effect]:
    if repo is None:
        return
    yield from _rollback(repo)
    if repo.main.failed:
        return
    first = awaited(state, repo)
    nodes = first or [n for n in state.nodes.values() if n.role == "execution"]
    for node in nodes:
        if node.connected and not node.quarantined:
            yield from _node_checkout(node, repo, canary=bool(first))


def _checked_out(state: State, fact: Fact) -> RepoRecord | None:
    """Return the repository of a fact about a checkout."""
    match fact.payload():
        case CheckoutRequested(repo=repo) | CheckoutHealthy(repo=repo) | CheckoutFailed(repo=repo):
            return state.repos.get(repo)
    return None


def _rollback(repo: RepoRecord) -> Iterator[Effect]:
    """Ask for the rollback of a sick `main`, also of one that was perhaps rolled back already.

    The process may have died between the rollback and saying so: then the sick position is the
    last but one, and the handler finds out.
    """
    restored = repo.main.restores is not None
    for end in range(len(repo.mains) if restored else len(repo.mains) - 1, len(repo.mains) + 1):
        mains = repo.mains[:end]
        to = restorable(mains)
        if to is not None and mains[-1].failed:
            yield RollBack(repo.name, mains[-1].revision, to)


def _node_checkout(node: NodeRecord, repo: RepoRecord, *, canary: bool) -> Iterator[Effect]:
    known, main = node.checkouts.get(repo.name), repo.main.revision
    if known is None or known.revision != main:
        yield AskCheckout(node.id, repo.name, main, canary, 1)
    elif known.state == "requested":
        yield PutCheckout(node.id, repo.name, main)
    elif (
        known.state == "failed"
        and known.outcome not in HEALTH
        and known.attempt < CHECKOUT_ATTEMPTS
    ):
        yield AskCheckout(node.id, repo.name, main, canary, known.attempt + 1)


def _healthy(node: NodeRecord, repo: RepoRecord) -> bool:
    known = node.checkouts.get(repo.name)
    return known is not None and known.healthy == repo.main.revision


# -- quarantine ------------------------------------------------------------------------------


def _quarantine_effects(state: State, who: PrincipalId) -> Iterator[Effect]:
    for task in state.tasks.values():
        if not task.open:
            continue
        if task.cancelled_at is not None and task.node == who:
            yield StopTask(task.id)  # its node cannot say the end any more
        elif task.cancelled_at is None and (reason := _unwanted(state, task)):
            yield AbandonTask(task.id, reason)
    for repo in {record.repo for record in state.proposals.values() if record.author == who}:
        yield from _repo_effects(state, repo)
    for node in state.nodes.values():
        if node.id != who and not node.quarantined:
            yield Revoke(who, node.id)


def _revocations(state: State, node: PrincipalId) -> list[Effect]:
    if node in state.quarantined:
        return []  # it is refused, and so are its commands
    return [Revoke(who, node) for who in state.quarantined]
