"""What governance has to show a person: alarms, who is stopped, and what of the system is not well.

Pure. Each card has a subject, a title, the figures and facts that it rests on, and what to do.

>>> cards(ControlState(), now=0.0, stuck_s=60.0, log_behind_s=0.0)
()
"""

from __future__ import annotations

from collections.abc import Iterator

from angelos.control.state.decide import awaited
from angelos.control.state.models import ControlState
from angelos.core.api import CardView
from angelos.core.facts import PauseCause
from angelos.core.permissions import ALL_AGENTS

_RECENT_S = 24 * 3600.0
_RESTART_S = 3600.0
_BEHIND_S = 30.0
MAX_CARDS = 50


def cards(
    state: ControlState, *, now: float, stuck_s: float, log_behind_s: float
) -> tuple[CardView, ...]:
    """Return the cards of now, the most urgent kind first.

    Args:
        state: As folded.
        now: Unix seconds.
        stuck_s: How long a node may be silent.
        log_behind_s: How old the oldest lasting fact is that the audit log does not hold yet.
    """
    rows = [*_log(state, log_behind_s, now), *_stopped(state), *_alarms(state, now)]
    rows += [*_rollouts(state, now, stuck_s), *_nodes(state, now, stuck_s), *_restarts(state, now)]
    return tuple(rows[:MAX_CARDS])


def banner_of(shown: tuple[CardView, ...]) -> str:
    """Return the sentence for the banner; empty where no card is urgent."""
    urgent = [card for card in shown if card.urgent]
    return " ".join(f"{card.title}." for card in urgent[:5])


def _log(state: ControlState, behind_s: float, now: float) -> Iterator[CardView]:
    if behind_s > _BEHIND_S:
        yield CardView(
            kind="log",
            subject="system/audit",
            title=f"The audit log is {behind_s:.0f} s behind",
            detail="What happened since is in the journal, and not provable yet.",
            figures={"behind_s": round(behind_s, 1)},
            at=now,
            urgent=True,
            hint="`angelos doctor` says whether the signer and PostgreSQL answer.",
        )
    if state.log_damage:
        yield CardView(
            kind="log",
            subject="system/audit",
            title="The audit log was tampered with",
            detail=state.log_damage,
            at=now,
            hint="`angelos audit verify` names the place.",
        )


def _stopped(state: ControlState) -> Iterator[CardView]:
    for principal in state.quarantined:
        note, ask = state.quarantine_notes.get(principal), state.release_asks.get(principal)
        kind, _, name = principal.partition("/")
        asked = f" {ask.by} asked for its release; a second person has to." if ask else ""
        yield CardView(
            kind="quarantine",
            subject=principal,
            title=f"{principal} is quarantined",
            detail=(note.reason if note else "") + asked,
            at=note.at if note else 0.0,
            hint=f"`angelos {kind} show {name}` lists its changes; two people `release` it.",
        )
    for agent, pause in state.pauses.items():
        if pause.paused and pause.cause is not PauseCause.request and agent != ALL_AGENTS:
            name = agent.partition("/")[2]
            yield CardView(
                kind="pause",
                subject=agent,
                title=f"{agent} is paused and asks",
                detail=pause.reason,
                at=pause.at,
                hint=f"`angelos agent resume {name}` lets it go on.",
            )


def _alarms(state: ControlState, now: float) -> Iterator[CardView]:
    for alarm in reversed(state.alarms):
        if now - alarm.at < _RECENT_S:
            yield CardView(
                kind="alarm",
                subject=alarm.principal,
                title=f"{alarm.principal}: {alarm.signal} ({alarm.severity})",
                detail=alarm.reason,
                figures=alarm.figures,
                acts=alarm.acts,
                done=alarm.response,
                at=alarm.at,
            )


def _rollouts(state: ControlState, now: float, stuck_s: float) -> Iterator[CardView]:
    for repo in state.repos.values():
        main = repo.main
        for node in main.skipped:
            yield CardView(
                kind="rollout",
                subject=f"{repo.name}:main",
                title=f"The rollout of main of {repo.name} went round {node}",
                detail=f"{node} was silent for more than {stuck_s:g} s.",
                at=main.at,
                urgent=True,
            )
        if main.failed or now - main.at <= stuck_s:
            continue
        late = [node for node in awaited(state, repo) if node.connected]
        if late:
            names = ", ".join(node.id for node in late)
            yield CardView(
                kind="rollout",
                subject=f"{repo.name}:main",
                title=f"The rollout of main of {repo.name} waits for {names}",
                detail=f"It has been checked there for {now - main.at:.0f} s.",
                figures={"seconds": round(now - main.at, 1)},
                at=main.at,
            )


def _nodes(state: ControlState, now: float, stuck_s: float) -> Iterator[CardView]:
    for node in state.nodes.values():
        if node.connected or node.quarantined or node.gone_at is None:
            continue
        if now - node.gone_at > stuck_s:
            name = node.id.partition("/")[2]
            yield CardView(
                kind="node",
                subject=node.id,
                title=f"{node.id} is silent",
                detail=f"Nothing was heard of it for {now - node.gone_at:.0f} s.",
                figures={"seconds": round(now - node.gone_at, 1)},
                at=node.gone_at,
                urgent=True,
                hint=f"Start it, or shut it out: `angelos node quarantine {name}`.",
            )


def _restarts(state: ControlState, now: float) -> Iterator[CardView]:
    for part, record in state.restarts.items():
        if now - record.at < _RESTART_S:
            yield CardView(
                kind="restart",
                subject=f"system/{part}",
                title=f"{part} was started again",
                detail=f"{record.count} times in all, the last because it {record.cause}.",
                figures={"count": record.count, "exit_code": record.exit_code},
                at=record.at,
            )
