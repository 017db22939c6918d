"""The fold of control is saved with the log that it rests on, and counts with that log alone."""

from __future__ import annotations

import pytest

from angelos.adapters.stores.snapshots import SignedSnapshots, SnapshotReader
from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.control.config import ControlConfig
from angelos.control.projection import Projection
from angelos.control.state import snapshot
from angelos.core.errors import Tampered, Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.signing import SigningKey
from angelos.core.snapshots import SavedFold
from angelos.governance.log.acceptance import accept_damage
from angelos.governance.log.checkpoint import LogKeys
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.signer.client import LocalSigner
from angelos.testing import make_fact
from tests.integration.governance.tampering import changed, tamper

KEY = SigningKey(bytes(32))


def refusals(count):
    return [make_fact(Kind.task_refused, f"task-{n}", data={"reason": "no"}) for n in range(count)]


class World:
    """A log, and control's fold beside it, started anew each time."""

    def __init__(self, journal, database, clock, start):
        self.journal, self.database, self.clock, self.start = journal, database, clock, start

    def fold(self, log, key=KEY):
        snapshots = SignedSnapshots(self.database, self.journal, log, key)
        return Projection(self.journal, self.clock, ControlConfig(), snapshots)

    async def save(self, count=20):
        """Fold some facts, one of which leaves something in the state, and save it."""
        async with self.start() as log:
            quarantine = make_fact(
                Kind.principal_quarantined, PrincipalId("agent/ada"), data={"reason": "bad"}
            )
            await self.journal.append([*refusals(count), quarantine])
            projection = self.fold(log)
            await projection.load()
            assert projection.unsaved >= count
            await projection.save()
            assert projection.unsaved == 0
        return projection.state

    async def load(self, key=KEY):
        """Return the state at the next start, and how many facts were folded for it."""
        async with self.start() as log:
            projection = self.fold(log, key)
            await projection.load()
            return projection.state, projection.unsaved

    async def sql(self, statement):
        async with self.database.transaction() as connection:
            await connection.execute("set local session_replication_role = replica")
            await connection.execute(statement)


@pytest.fixture
def world(journal, database, clock, start):
    return World(journal, database, clock, start)


async def test_a_start_reads_what_came_since(world):
    state = await world.save()
    assert await world.load() == (state, 0)
    await world.journal.append(refusals(25)[20:])
    _, folded = await world.load()
    assert folded == 5


async def test_a_gateway_reads_what_control_saved(world):
    state = await world.save()
    points = AuditStore(world.database)
    reader = SnapshotReader(world.database, world.journal, points, KEY.public)
    projection = Projection(world.journal, world.clock, ControlConfig(), reader)
    await projection.load()
    assert (projection.state, projection.unsaved) == (state, 0)
    with pytest.raises(Unavailable):
        await reader.save("control", "1", SavedFold(state.offset, b""))


@pytest.mark.parametrize(("statement", "says"), [
    ("update fold_snapshot set body = body || '\\x00'", "content was changed"),
    ("update fold_snapshot set signature = sha256(body) || sha256(body)", "not signed"),
    ("update fold_snapshot set statement = convert_to('{}', 'UTF8')", "not signed"),
    ("update audit_checkpoint set note = replace(note, size::text, '7')", "audit log"),
    ("update audit_checkpoint set size = size + 1", "audit log"),
])  # fmt: skip
async def test_a_snapshot_that_was_touched_is_discarded(world, caplog, statement, says):
    state = await world.save()
    await world.sql(statement)
    again, folded = await world.load()
    assert again.quarantined == state.quarantined
    assert folded >= 21
    assert "discarded" in caplog.text or "tampered" in caplog.text
    if "tampered" not in caplog.text:
        assert says in caplog.text


async def test_a_snapshot_of_other_code_is_discarded(world, monkeypatch, caplog):
    state = await world.save()
    monkeypatch.setattr("angelos.control.projection.version_of_fold", lambda: "another")
    again, folded = await world.load()
    assert (again, folded) == (state, 21)
    assert "other code" in caplog.text
    assert len(snapshot.version_of_fold()) == 64


async def test_a_snapshot_of_another_server_is_discarded(world, caplog):
    await world.save()
    _, folded = await world.load(SigningKey(bytes(31) + b"1"))
    assert folded == 21
    assert "not signed by this server" in caplog.text


async def test_a_snapshot_of_a_journal_that_was_lost_is_discarded(world, valkey, caplog):
    state = await world.save()
    await valkey.execute_command("FLUSHDB")
    world.journal = ValkeyJournal(valkey, world.database)
    again, folded = await world.load()  # from the audit log alone
    assert again.quarantined == state.quarantined
    assert folded >= 21
    assert "another journal" in caplog.text


async def test_a_log_that_goes_on_after_damage_has_no_snapshot(world, caplog):
    state = await world.save()
    await tamper(world.database, changed(3))
    accepted = await accept_damage(world.database, "the disk was replaced", 5.0)
    keys = LogKeys(accepted.origin, bytes(32), bytes(32))
    signer = LocalSigner(keys, accepted.origin)
    world.start = lambda: LogService(world.journal, world.database, signer, world.clock)
    again, folded = await world.load()
    assert again.quarantined == state.quarantined
    assert folded > 20
    assert "not the one that it was made from" in caplog.text


async def test_a_damaged_log_signs_for_no_snapshot(world):
    await world.save()
    await world.sql("update audit_head set size = size + 1")
    async with world.start() as log:
        projection = world.fold(log)
        await projection.load()
        with pytest.raises(Tampered):
            await projection.save()
