"""Refusals as facts, rate-bounded: the first of a kind at once, repeated ones counted.

    call = RefusedCall(principal=..., door="api", act="POST /people", code="forbidden")
    first = take(state, call, now=10.0)      # None if it is only counted; `due` tells the counts

A principal has at most `MAX_ACTS` different acts; the rest are counted as one. So the facts of one
principal stay within `2 * MAX_ACTS` a minute, however often it asks and whatever it asks for.

>>> refusal = RefusedCall(principal=PrincipalId("agent/ada"), door="api", act="POST /people",
...     code="forbidden")
>>> state = RefusalState()
>>> [take(state, refusal, now=float(n)) is not None for n in range(3)]
[True, False, False]
>>> [(entry.refusal.act, entry.count) for entry in due(state, now=3.0)]
[('POST /people', 2)]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from angelos.core.ids import PrincipalId

MAX_ACTS = 32
MAX_PRINCIPALS = 2_000
FIRST_PAUSE_S = 2.0
LONGEST_PAUSE_S = 60.0
ANONYMOUS = PrincipalId("system/anonymous")
"""Whoever is refused before it is clear who they are."""


class RefusedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One refused call."""

    principal: PrincipalId
    door: str
    """Where: `api`, `hub`, `jupyter`, `channel`."""
    act: str
    """What was asked for, as the door names it, never as the caller spells it."""
    code: str
    reason: str = ""
    trace: str = ""


class Refusals(Protocol):
    """Takes refusals; never fails and never waits."""

    def record(self, refusal: RefusedCall) -> None:
        """Take one."""
        ...


class Unrecorded:
    """Records nothing: for what is served without a journal, such as tests of a door."""

    def record(self, refusal: RefusedCall) -> None:
        """Do nothing."""


class Repeated(msgspec.Struct, frozen=True, kw_only=True):
    """The newest of some equal refusals, and how many they are."""

    refusal: RefusedCall
    count: int


@dataclass
class _Entry:
    refusal: RefusedCall
    count: int
    due_at: float
    pause_s: float
    forget_at: float
    """When nobody has asked again by then."""


@dataclass
class RefusalState:
    """What was refused lately, by principal and kind."""

    entries: dict[PrincipalId, dict[tuple[str, str, str], _Entry]] = field(default_factory=dict)


def take(state: RefusalState, refusal: RefusedCall, now: float) -> Repeated | None:
    """Count a refusal; return it if it is the first of its kind, to be told at once."""
    if refusal.principal not in state.entries and len(state.entries) >= MAX_PRINCIPALS:
        refusal = msgspec.structs.replace(refusal, principal=ANONYMOUS, act="*")
    kinds = state.entries.setdefault(refusal.principal, {})
    key = (refusal.door, refusal.act, refusal.code)
    if key not in kinds and len(kinds) >= MAX_ACTS:
        refusal = msgspec.structs.replace(refusal, act="*")
        key = ("*", "*", "*")
    entry = kinds.get(key)
    if entry is None:
        kinds[key] = _Entry(refusal, 0, now + FIRST_PAUSE_S, FIRST_PAUSE_S, now + LONGEST_PAUSE_S)
        return Repeated(refusal=refusal, count=1)
    entry.refusal, entry.count = refusal, entry.count + 1
    return None


def due(state: RefusalState, now: float) -> list[Repeated]:
    """Return the counts that are due, and forget what nobody asked for in the last minute."""
    told: list[Repeated] = []
    for principal, kinds in list(state.entries.items()):
        for key, entry in list(kinds.items()):
            if not entry.count and now >= entry.forget_at:
                del kinds[key]
            if not entry.count or now < entry.due_at:
                continue
            told.append(Repeated(refusal=entry.refusal, count=entry.count))
            entry.pause_s = min(2 * entry.pause_s, LONGEST_PAUSE_S)
            entry.count, entry.due_at = 0, now + entry.pause_s
            entry.forget_at = now + LONGEST_PAUSE_S
        if not kinds:
            del state.entries[principal]
    return told
