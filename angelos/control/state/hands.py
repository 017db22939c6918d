"""Who counts as one person: whoever made or enrolled the other, or has the same maker.

A maker is whoever gave a principal its credential: made the person, gave them a new token, enrolled
the agent. The system's owner is left out as a maker, or everybody would be one.

>>> adam, bot, eve = (PrincipalId(name) for name in ("person/adam", "agent/bot", "person/eve"))
>>> makers = {bot: (adam,), adam: (OWNER.id,), eve: (OWNER.id,)}
>>> same_hands(makers, adam, bot), same_hands(makers, adam, eve), same_hands(makers, OWNER.id, bot)
(True, False, False)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from angelos.control.state.models import ControlState, replace
from angelos.core.facts import Fact, PersonChanged
from angelos.core.ids import PrincipalId
from angelos.core.permissions import OWNER

Makers = Mapping[PrincipalId, tuple[PrincipalId, ...]]


def same_hands(makers: Makers, one: PrincipalId, other: PrincipalId) -> bool:
    """Return whether two principals count as one person."""
    return not _chain(makers, one).isdisjoint(_chain(makers, other))


def distinct(
    makers: Makers, approvers: Iterable[PrincipalId], author: PrincipalId, *, solo: bool
) -> tuple[PrincipalId, ...]:
    """Return the approvals that count, oldest first.

    Args:
        makers: Of each principal.
        approvers: Who approved, in order.
        author: Whose proposal it is; their own hands count only while they work alone.
        solo: Whether one person alone reviews.
    """
    counted: list[PrincipalId] = []
    for person in approvers:
        own = same_hands(makers, person, author)
        if (solo or not own) and not any(same_hands(makers, person, p) for p in counted):
            counted.append(person)
    return tuple(counted)


def made(state: ControlState, fact: Fact) -> ControlState:
    """Record who made a principal, or has had its credential in their hands since."""
    if isinstance(data := fact.payload(), PersonChanged) and not data.new_token:
        return state
    principal, maker = PrincipalId(fact.subject), fact.on_behalf_of or fact.actor
    before = state.makers.get(principal, ())
    if maker == principal or maker in before:
        return state
    return replace(state, makers={**state.makers, principal: (*before, maker)})


def _chain(makers: Makers, principal: PrincipalId) -> set[PrincipalId]:
    """Return a principal and everybody up its chains of makers, the owner left out."""
    chain, above = {principal}, list(makers.get(principal, ()))
    while above:
        maker = above.pop()
        if maker in chain or maker == OWNER.id or maker.startswith("system/"):
            continue
        chain.add(maker)
        above += makers.get(maker, ())
    return chain
