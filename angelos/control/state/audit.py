"""The audit log as control sees it: while it is damaged, `main` does not move."""

from __future__ import annotations

from angelos.control.state.models import ControlState, replace
from angelos.core.facts import AuditDamaged, Fact


def damaged(state: ControlState, fact: Fact) -> ControlState:
    """Fold the discovery of damage."""
    return replace(state, log_damage=fact.read(AuditDamaged).detail or "It is damaged.")


def accepted(state: ControlState, fact: Fact) -> ControlState:
    """Fold a person's acceptance of it."""
    del fact
    return replace(state, log_damage="")
