"""A governance plane on real stores whose quarantines are only noted."""

from __future__ import annotations

import pytest

from angelos.core.facts import Kind
from angelos.core.signing import SigningKey
from angelos.governance.config import GovernanceConfig
from angelos.governance.service import Governance
from angelos.testing import make_fact

KEY = SigningKey(bytes(range(32)))


class FakeSignals:
    """Keeps whom it was asked to quarantine, and says so in the journal as the hub does."""

    def __init__(self, journal):
        self.journal = journal
        self.asked = []

    async def quarantine(self, principal, reason):
        self.asked.append((principal, reason))
        fact = make_fact(Kind.principal_quarantined, principal, data={"reason": reason})
        await self.journal.append([fact])

    async def release(self, principal):
        await self.journal.append([make_fact(Kind.principal_released, principal)])

    async def is_quarantined(self, principal):
        return principal in [who for who, _ in self.asked]


@pytest.fixture
def signals(journal):
    return FakeSignals(journal)


@pytest.fixture
def start(journal, database, clock, signals):
    def make(**config):
        return Governance(journal, database, KEY, clock, signals, GovernanceConfig(**config))

    return make
