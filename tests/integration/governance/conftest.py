"""A governance plane on real stores whose quarantines are only noted."""

from __future__ import annotations

import pytest

from angelos.core.facts import Kind
from angelos.governance.config import GovernanceConfig
from angelos.governance.log.checkpoint import LogKeys
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.service import Governance
from angelos.governance.signer.client import LocalSigner
from angelos.testing import make_fact


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
async def origin(database):
    return await AuditStore(database).origin()


@pytest.fixture
async def keys(origin, database):
    """The log's keys, announced before: entries begin with the test's own."""
    keys = LogKeys(origin, bytes(range(32)), bytes(range(1, 33)))
    async with database.transaction() as connection:
        vkeys = [key.vkey for key in keys.epoch]
        await connection.execute("insert into audit_key (vkeys) values (%s)", (vkeys,))
    return keys


@pytest.fixture
def start(journal, database, clock, keys, origin):
    """Start the audit log, each time with a signer that has not signed before."""

    def make(hooks=None, **config):
        signer = LocalSigner(keys, origin)
        return LogService(journal, database, signer, clock, GovernanceConfig(**config), hooks=hooks)

    return make


@pytest.fixture
def watch(journal, clock, signals):
    return lambda **config: Governance(journal, clock, signals, GovernanceConfig(**config))
