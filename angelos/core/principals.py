"""Generations: what ends a principal's rights ends everything that was done with them.

A principal's id is never used again for anybody else. Its generation is a number that grows when
something ends it: removal, demotion, log-out, quarantine, a changed token or key. Every session,
token, certificate, task, proposal and approval carries the generation under which it was made,
and counts only while that is the present one.

    >>> eve = PrincipalId("person/eve")
    >>> session = ActingSession(id="s-1", principal=eve, generation=Generation(3),
    ...     kind=SessionKind.browser, expires_at=200.0)
    >>> present = Standing(principal=eve, generation=Generation(3))
    >>> is_current(session, present, now=100.0), is_current(session, present, now=200.0)
    (True, False)
    >>> is_current(session, Standing(principal=eve, generation=Generation(4)), now=100.0)
    False
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, NewType

import msgspec

from angelos.core.errors import InvalidInput, Unauthenticated
from angelos.core.ids import PrincipalId

Generation = NewType("Generation", int)
"""From 1. 0 stands for a principal that no `Generations` keeps, such as `system/hub`."""


class EndCause(StrEnum):
    """What ended a generation."""

    logged_out = "logged-out"
    demoted = "demoted"
    """Its role or rights became fewer."""
    credential_changed = "credential-changed"
    """A token, password or key was replaced or revoked."""
    quarantined = "quarantined"
    removed = "removed"

    @property
    def stays(self) -> bool:
        """Whether the principal may begin a session of the next generation at once."""
        return self not in {EndCause.quarantined, EndCause.removed}


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How a principal stands at present."""

    principal: PrincipalId
    generation: Generation
    active: bool = True
    """Whether the present generation may act at all."""
    cause: EndCause | None = None
    """What ended the generation before this one; None for the first."""


class SessionKind(StrEnum):
    """By what a session was established."""

    browser = "browser"
    kernel = "kernel"
    """A short-lived token of that person in their kernel."""
    token = "token"  # noqa: S105 - the word, not one
    certificate = "certificate"


class ActingSession(msgspec.Struct, frozen=True, kw_only=True):
    """Who does something, as the server established it; every act comes with one."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    """Names the session in facts; it is no secret and opens nothing."""
    principal: PrincipalId
    generation: Generation
    kind: SessionKind
    expires_at: float | None = None
    """Unix seconds from which it does not count; None: only its generation ends it."""


def is_current(session: ActingSession, standing: Standing, now: float) -> bool:
    """Return whether a session counts.

    Args:
        session: As it was established.
        standing: Its principal's, read now; one that was kept may be out of date.
        now: Unix seconds by the clock that `expires_at` was set by.
    """
    same = (session.principal, session.generation) == (standing.principal, standing.generation)
    fresh = session.expires_at is None or now < session.expires_at
    return same and standing.active and fresh


def check_current(session: ActingSession, standing: Standing, now: float) -> None:
    """Refuse a session that does not count.

    Raises:
        Unauthenticated: It is over; `extra["cause"]` says by what, `expired` if by its time.
    """
    if is_current(session, standing, now):
        return
    same = (session.principal, session.generation) == (standing.principal, standing.generation)
    cause = "expired" if same and standing.active else str(standing.cause or "unknown")
    raise Unauthenticated(
        f"The session of {session.principal} is over ({cause}).",
        hint="Sign in again.",
        cause=cause,
    )


def ended(standing: Standing, generation: Generation, cause: EndCause) -> Standing:
    """Return how a principal stands after somebody ended one of its generations.

    Ending what is over already is no change, but quarantine and removal take hold of whatever
    generation is the present one; nothing but `Generations.begin` makes a principal active again.

    Raises:
        InvalidInput: There has been no such generation yet.
    """
    if not 1 <= generation <= standing.generation:
        raise InvalidInput(f"{standing.principal} has had no generation {generation}.")
    over = generation < standing.generation
    removed = standing.cause is EndCause.removed
    again = not standing.active and cause is EndCause.quarantined
    if removed or again or (over and cause.stays):
        return standing
    return Standing(
        principal=standing.principal,
        generation=Generation(standing.generation + 1),
        active=standing.active and cause.stays,
        cause=cause if standing.active or not cause.stays else standing.cause,
    )
