"""Quarantines and alarms as control remembers them: pure.

A quarantine is ended by two people who are not one person's hands; the first one asks. After it
the principal is on probation: whatever it proposes waits for a person.

>>> eve, ann = PrincipalId("agent/eve"), PrincipalId("person/ann")
>>> asks = {eve: ReleaseAsk(by=ann, at=0.0)}
>>> second(ControlState(release_asks=asks), eve, ann, 60.0)
False
>>> second(ControlState(release_asks=asks), eve, PrincipalId("person/olga"), 60.0)
True
"""

from __future__ import annotations

from angelos.control.state.hands import same_hands
from angelos.control.state.models import (
    AlarmRecord,
    ControlState,
    QuarantineNote,
    ReleaseAsk,
    replace,
)
from angelos.core.facts import (
    Fact,
    Kind,
    PrincipalFlagged,
    PrincipalQuarantined,
    PrincipalReleased,
)
from angelos.core.ids import PrincipalId

ASKED_FOR_S = 24 * 3600.0
"""A second person has to ask within this time."""
KEEP_ALARMS = 50
_MAX_NOTES = 2_000


def second(state: ControlState, principal: PrincipalId, by: PrincipalId, now: float) -> bool:
    """Return whether another person has asked for the same release, so that it may be done."""
    ask = state.release_asks.get(principal)
    if ask is None or now - ask.at > ASKED_FOR_S:
        return False
    return not same_hands(state.makers, ask.by, by)


def on_probation(state: ControlState, principal: PrincipalId, now: float) -> bool:
    """Return whether a principal was released lately, so that people look at what it does."""
    return state.probation.get(principal, 0.0) > now


def noted(state: ControlState, fact: Fact) -> ControlState:
    """Record why somebody is quarantined, who asked for the release, and until when to look."""
    principal = PrincipalId(fact.subject)
    notes = {key: value for key, value in state.quarantine_notes.items() if key != principal}
    asks = {key: value for key, value in state.release_asks.items() if key != principal}
    if fact.kind == Kind.principal_release_asked:
        asks[principal] = ReleaseAsk(by=fact.on_behalf_of or fact.actor, at=fact.at)
        return replace(state, release_asks=asks)
    if fact.kind == Kind.principal_quarantined:
        reason = fact.read(PrincipalQuarantined).reason
        notes[principal] = QuarantineNote(reason=reason, at=fact.at)
        while len(notes) > _MAX_NOTES:
            del notes[next(iter(notes))]
        return replace(state, quarantine_notes=notes, release_asks=asks)
    until = fact.read(PrincipalReleased).probation_until
    probation = {key: at for key, at in state.probation.items() if at > fact.at}
    if until > fact.at:
        probation[principal] = until
    return replace(state, quarantine_notes=notes, release_asks=asks, probation=probation)


def alarmed(state: ControlState, fact: Fact) -> ControlState:
    """Keep the last alarms."""
    data = fact.read(PrincipalFlagged)
    record = AlarmRecord(
        id=fact.id,
        principal=PrincipalId(fact.subject),
        at=fact.at,
        signal=str(data.signal or ""),
        severity=data.severity,
        reason=data.reason,
        figures=data.evidence,
        acts=data.acts,
        response=data.response,
    )
    return replace(state, alarms=(*state.alarms, record)[-KEEP_ALARMS:])
