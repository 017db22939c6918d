"""What a hub is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from angelos.adapters.identity.authority import Pki
from angelos.core.ports import Admission, Clock, Journal, Queue
from angelos.hub.config import HubConfig
from angelos.hub.listener import Listeners
from angelos.hub.store import Identities


@dataclass(frozen=True, kw_only=True)
class HubParts:
    """The parts that `wiring` builds a hub from."""

    journal: Journal
    queue: Queue
    identities: Identities
    pki: Pki
    clock: Clock
    listeners: Listeners
    admission: Admission
    """Decides which facts of peers are written down."""
    config: HubConfig = field(default_factory=HubConfig)
