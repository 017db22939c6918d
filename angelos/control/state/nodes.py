"""How facts change the state of nodes and of `main`.

>>> repo_of("study:main")
'study'
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from angelos.control.state.models import (
    HEALTH,
    KEEP_MAINS,
    CheckoutRecord,
    ControlState,
    MainRecord,
    NodeRecord,
    RepoRecord,
    RestartRecord,
    replace,
)
from angelos.core.facts import (
    CheckoutFailed,
    CheckoutHealthy,
    CheckoutRequested,
    CheckoutSkipped,
    Fact,
    Kind,
    NodeConnected,
    NodeDisconnected,
    NodeEnrolled,
    PartRestarted,
    ProposalPromoted,
    RollbackDone,
)
from angelos.core.ids import PrincipalId, Revision

_GATEWAYS = "system/gateway/"


def repo_of(subject: str) -> str:
    """Return the repository of `<repo>:main`; empty for another branch."""
    repo, _, branch = subject.partition(":")
    return repo if branch == "main" else ""


# -- nodes -----------------------------------------------------------------------------------


def node_known(state: ControlState, fact: Fact) -> ControlState:
    """Record that a node was enrolled or has connected."""
    node = PrincipalId(fact.subject)
    record = state.nodes.get(node) or NodeRecord(
        id=node, role="execution", quarantined=node in state.quarantined
    )
    if fact.kind == Kind.node_enrolled:
        role = fact.read(NodeEnrolled).role
        return _with_node(state, msgspec.structs.replace(record, role=role))
    data = fact.read(NodeConnected)
    record = msgspec.structs.replace(
        record,
        role=data.role,
        connected=True,
        tier=data.tier,
        since=fact.at,
        gone_at=None,
        profile=data.profile,
        hub=data.hub,
        checkouts={
            # An attempt that failed on the node's side may succeed now.
            repo: msgspec.structs.replace(checkout, attempt=0)
            if checkout.state == "failed" and checkout.outcome not in HEALTH
            else checkout
            for repo, checkout in record.checkouts.items()
        },
    )
    return _with_node(state, record)


def node_left(state: ControlState, fact: Fact) -> ControlState:
    """Record that a node has disconnected."""
    record = state.nodes.get(PrincipalId(fact.subject))
    if record is None or record.hub != fact.read(NodeDisconnected).hub:
        return state  # it has connected to another hub meanwhile
    return _with_node(state, _disconnected(record, fact.at))


def server_started(state: ControlState, fact: Fact) -> ControlState:
    """Record that no node is connected to the hub that starts: one that died could not report it.

    Control's own hub starts with control; a gateway is a hub of its own.
    """
    if fact.subject != "system/control" and not fact.subject.startswith(_GATEWAYS):
        return state
    hub = fact.subject if fact.subject.startswith(_GATEWAYS) else ""
    nodes = {
        node: _disconnected(record, fact.at) if record.hub == hub else record
        for node, record in state.nodes.items()
    }
    return replace(state, nodes=nodes)


def part_restarted(state: ControlState, fact: Fact) -> ControlState:
    """Count that a part of the system was started again."""
    data = fact.read(PartRestarted)
    before = state.restarts.get(data.part)
    record = RestartRecord(
        count=(before.count if before else 0) + 1,
        at=fact.at,
        cause=data.cause,
        exit_code=data.exit_code,
    )
    return replace(state, restarts={**state.restarts, data.part: record})


def quarantined(state: ControlState, fact: Fact) -> ControlState:
    """Record that a principal is quarantined, or released."""
    principal = PrincipalId(fact.subject)
    bad = fact.kind == Kind.principal_quarantined
    quarantines = {key: value for key, value in state.quarantined.items() if key != principal}
    if bad:
        quarantines[principal] = fact.id
    state = replace(state, quarantined=quarantines)
    node = state.nodes.get(principal)
    if node is None:
        return state
    node = _disconnected(node, fact.at) if bad else node
    return _with_node(state, msgspec.structs.replace(node, quarantined=bad))


def _disconnected(record: NodeRecord, at: float) -> NodeRecord:
    if not record.connected:
        return record
    return msgspec.structs.replace(record, connected=False, gone_at=at)


def _with_node(state: ControlState, record: NodeRecord) -> ControlState:
    return replace(state, nodes={**state.nodes, record.id: record})


# -- checkouts -------------------------------------------------------------------------------


def checkout_requested(state: ControlState, fact: Fact) -> ControlState:
    """Record what a node is to check out."""
    record = state.nodes.get(PrincipalId(fact.subject))
    if record is None or fact.revision is None:
        return state
    data = fact.read(CheckoutRequested)
    old = record.checkouts.get(data.repo)
    new = CheckoutRecord(
        revision=fact.revision,
        canary=data.canary,
        attempt=data.attempt,
        body=data.body,
        healthy=old.healthy if old else None,
    )
    return _with_checkout(state, record, data.repo, new)


def checkout_skipped(state: ControlState, fact: Fact) -> ControlState:
    """Record that a rollout goes round a silent canary."""
    repo = state.repos.get(fact.read(CheckoutSkipped).repo)
    node = PrincipalId(fact.subject)
    if repo is None or repo.main.revision != fact.revision or node in repo.main.skipped:
        return state
    main = msgspec.structs.replace(repo.main, skipped=(*repo.main.skipped, node))
    repo = msgspec.structs.replace(repo, mains=(*repo.mains[:-1], main))
    return replace(state, repos={**state.repos, repo.name: repo})


def checkout_ended(state: ControlState, fact: Fact) -> ControlState:
    """Record a node's own report on a checkout; a failed health command marks the revision."""
    record = state.nodes.get(PrincipalId(fact.subject))
    if record is None or fact.revision is None or fact.actor != fact.subject:
        return state
    healthy = fact.kind == Kind.checkout_healthy
    repo = fact.read(CheckoutHealthy if healthy else CheckoutFailed).repo
    old = record.checkouts.get(repo) or CheckoutRecord(revision=fact.revision)
    if healthy:
        old = msgspec.structs.replace(old, healthy=fact.revision)
    if old.revision == fact.revision:
        old = msgspec.structs.replace(
            old,
            state="healthy" if healthy else "failed",
            outcome=fact.outcome,
            body=b"",
        )
    state = _with_checkout(state, record, repo, old)
    if healthy or fact.outcome not in HEALTH:
        return state
    return _sick(state, repo, fact.revision)


def _with_checkout(
    state: ControlState, node: NodeRecord, repo: str, checkout: CheckoutRecord
) -> ControlState:
    checkouts = {**node.checkouts, repo: checkout}
    return _with_node(state, msgspec.structs.replace(node, checkouts=checkouts))


def _sick(state: ControlState, repo: str, revision: Revision) -> ControlState:
    """Mark a revision, and the one whose tree it restored, as failed."""
    record = state.repos.get(repo)
    if record is None:
        return state
    same = {revision} | {m.restores for m in record.mains if m.revision == revision and m.restores}
    mains = tuple(
        msgspec.structs.replace(main, failed=True) if main.revision in same else main
        for main in record.mains
    )
    return replace(state, repos={**state.repos, repo: RepoRecord(name=repo, mains=mains)})


# -- main ------------------------------------------------------------------------------------


def advanced(state: ControlState, fact: Fact) -> ControlState:
    """Record a new position of `main`; a repeated fact changes nothing."""
    repo = repo_of(fact.subject)
    if fact.kind == Kind.proposal_promoted:
        repo = fact.read(ProposalPromoted).repo
    if not repo or fact.revision is None:
        return state
    return _moved(state, repo, MainRecord(revision=fact.revision, at=fact.at))


def rolled_back(state: ControlState, fact: Fact) -> ControlState:
    """Record that `main` was rolled back, and which proposals that undid."""
    repo = repo_of(fact.subject)
    if not repo or fact.revision is None:
        return state
    done = fact.read(RollbackDone)
    state = _moved(state, repo, MainRecord(revision=fact.revision, restores=done.to, at=fact.at))
    mains = state.repos[repo].mains
    positions, present = {main.revision for main in mains}, contents(mains)
    proposals = dict(state.proposals)
    for proposal, record in proposals.items():
        if record.repo != repo or record.revision not in positions:
            continue
        if record.revision in present and record.state == "rolled-back":
            changes = {"state": "promoted", "reason": "The rollback of it was undone."}
        elif record.revision not in present and record.state == "promoted":
            cause = done.reason or done.cause
            changes = {"state": "rolled-back", "reason": f"main was rolled back: {cause}"}
        else:
            continue
        proposals[proposal] = msgspec.structs.replace(record, **changes)
    return replace(state, proposals=proposals)


def contents(mains: Sequence[MainRecord]) -> frozenset[Revision]:
    """Return the positions of `main` whose changes its last one has, after all rollbacks."""
    lines: dict[Revision, frozenset[Revision]] = {}
    line: frozenset[Revision] = frozenset()
    for main in mains:
        if main.restores is None:
            line |= {main.revision}
        else:
            line = lines.get(main.restores, frozenset({main.restores}))
        lines[main.revision] = line
    return line


def _moved(state: ControlState, repo: str, main: MainRecord) -> ControlState:
    record = state.repos.get(repo)
    mains = record.mains if record else ()
    if any(old.revision == main.revision for old in mains):
        if main.restores is None:
            return state
        mains = tuple(
            msgspec.structs.replace(old, restores=main.restores)
            if old.revision == main.revision
            else old
            for old in mains
        )
    else:
        mains = (*mains, main)[-KEEP_MAINS:]
    return replace(state, repos={**state.repos, repo: RepoRecord(name=repo, mains=mains)})
