"""What a hub is made of."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

from angelos.adapters.identity.authority import Pki
from angelos.core.facts import Fact
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal
from angelos.core.ports import Admission, Announcements, Clock, EnvelopeQueue, Journal
from angelos.core.refusals import Refusals, Unrecorded
from angelos.hub.config import HubConfig
from angelos.hub.letters import DeadLetters
from angelos.hub.listener import Listeners
from angelos.hub.store import Identities


def unread(fact: Fact, _: Principal) -> Fact:
    """Return the fact: nothing in it is kept from anybody."""
    return fact


def never(_: PrincipalId) -> bool:
    """Return False: no node is the system's own."""
    return False


@dataclass(frozen=True, kw_only=True)
class HubParts:
    """The parts that `wiring` builds a hub from."""

    journal: Journal
    queue: EnvelopeQueue
    identities: Identities
    pki: Pki
    clock: Clock
    listeners: Listeners
    admission: Admission
    """Decides which facts of peers are written down."""
    same_hands: Callable[[PrincipalId, PrincipalId], bool] = operator.eq
    """Whether two people count as one."""
    shown: Callable[[Fact, Principal], Fact] = unread
    """Returns a fact as a peer may read it."""
    refusals: Refusals = Unrecorded()  # noqa: RUF009 - it has no state
    """Takes what is refused."""
    owns: Callable[[PrincipalId], bool] = never
    """Whether a node is the system's own, which its owner may enrol again while it is live."""
    announcements: Announcements | None = None
    """What the hubs on the same stores say of their peers; without, labels find this hub's."""
    letters: DeadLetters | None = None
    """What could not be delivered, where the stores keep it."""
    config: HubConfig = field(default_factory=HubConfig)
