"""The audit log on real stores: it keeps what lasts, signs it, and notices who touches it."""

from __future__ import annotations

import asyncio
import logging
import re

import msgspec
import psycopg
import pytest

from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.core.api import AuditEntries, CheckpointView
from angelos.core.audit import fact_of, read_leaf
from angelos.core.errors import InvalidInput, Tampered, Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import Call, Nothing
from angelos.governance.log.acceptance import accept_damage
from angelos.governance.log.checkpoint import LogKeys, open_checkpoint
from angelos.governance.log.proof import parse_proof
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.log.verify import Trust, verify
from angelos.governance.routes import routes
from angelos.governance.signer.client import LocalSigner
from angelos.testing import eventually, make_fact, next_fact
from tests.integration.governance.tampering import (
    changed,
    entries_of,
    removed,
    replaced,
    swapped,
    tamper,
)


def some(count, kind=Kind.task_finished):
    return [make_fact(kind, f"task-{i}", outcome="ok", data={"n": i}) for i in range(count)]


async def exported(log):
    return b"".join([piece async for piece in log.export()]).splitlines(keepends=True)


async def test_what_lasts_is_kept_in_order_and_the_export_verifies(start, journal, keys):
    lasting, passing = some(30), some(20, Kind.task_output)
    async with start() as log:
        mixed = [fact for pair in zip(lasting[:20], passing, strict=True) for fact in pair]
        offsets = await journal.append(mixed + lasting[20:])
        signed = await log.checkpoint()
        assert signed.checkpoint.size == 30
        assert open_checkpoint(signed.note, [keys.epoch]) == signed.checkpoint
        rows = await log.entries(-1, 100)
        kept = [fact_of(row.body, row.data) for row in rows]
        assert [fact.id for fact in kept] == [fact.id for fact in lasting]
        assert kept[-1].offset == offsets[-1]
        report = verify(await exported(log), Trust(epochs=[keys.epoch]))
    assert report.ok, report
    assert report.entries == 30


async def test_an_empty_log_is_signed_and_verifies(start):
    async with start() as log:
        assert verify(await exported(log)).ok


async def test_a_restart_goes_on_where_it_was_and_takes_nothing_twice(start, journal):
    async with start() as log:
        await journal.append(some(10))
        first = await log.checkpoint()
    await journal.append(some(7))  # while nobody looks
    async with start() as log:
        second = await log.checkpoint()
        assert (first.checkpoint.size, second.checkpoint.size) == (10, 17)
        assert verify(await exported(log)).ok


async def test_two_at_once_make_one_log(start, journal):
    async with start(batch=3) as one, start(batch=4) as other:
        for part in range(10):
            await journal.append(some(5) + some(part, Kind.task_output))
        a, b = await asyncio.gather(one.checkpoint(), other.checkpoint())
        assert max(a.checkpoint.size, b.checkpoint.size) == 50
        assert verify(await exported(one)).ok


async def test_it_signs_by_itself(start, journal, database):
    async with start(checkpoint_every_s=0.01):
        await journal.append(some(5))

        async def signed():
            async with database.transaction() as connection:
                rows = await connection.execute("select max(size) from audit_checkpoint")
                return (await rows.fetchone())[0] == 5

        await eventually(signed, "a checkpoint")


@pytest.mark.parametrize("statement", [
    "update audit_tail set bodies = ''",
    "update audit_tail set data = ''",
    "delete from audit_tail",
    "truncate audit_tail",
    "update audit_block set bodies = ''",
    "update audit_block set data = '', raw = 1",
    "delete from audit_block",
    "truncate audit_block",
    "update audit_checkpoint set note = ''",
    "delete from audit_checkpoint",
    "truncate audit_checkpoint",
])  # fmt: skip
async def test_the_database_itself_refuses_changes(start, journal, database, statement):
    async with start() as log:
        await journal.append(some(260))
        await log.checkpoint()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            async with database.transaction() as connection:
                await connection.execute(statement)
        assert verify(await exported(log)).ok


@pytest.mark.parametrize(("statement", "says"), [
    (changed(6), "Entry 6 .* was changed"),
    (removed(6), "Entry 6 .* is missing"),
    ("update audit_tail set bodies = 'x' where first = 5", "Entry 5 .* was changed"),
    ("update audit_checkpoint set root = sha256('x')", "row was changed"),
    ("update audit_checkpoint set note = replace(note, e'\\n5\\n', e'\\n4\\n')",
     "not signed by the log's keys"),
    ("update audit_checkpoint set frontier = ''", "frontier was changed"),
    ("delete from audit_head", "head .* is missing"),
    ("update audit_head set size = 4, frontier = substring(frontier for 32)",
     "5 entries were signed, 4 are left"),
    ("delete from audit_key", "not signed by the log's keys"),
])  # fmt: skip
async def test_a_start_on_a_changed_log_takes_no_more_entries(
    start, journal, database, statement, says
):
    async with start(checkpoint_every_s=3600) as log:
        await journal.append(some(5))
        await log.checkpoint()
    store = AuditStore(database)
    await journal.append(some(3))
    await store.project(await journal.read(START))  # three that nothing signs for yet
    await tamper(database, statement)
    before = await rows_of(database)
    async with start() as log:
        await journal.append(some(1))
        with pytest.raises(Tampered, match=says):
            await log.checkpoint()
        fact = await next_fact(journal, kind=Kind.audit_damaged)
        assert re.search(says, fact.plain()["detail"])
        report = verify(await exported(log))  # which is there to be looked at
        assert report.ok == ("audit_head" in str(statement))
    assert await rows_of(database) == before


async def rows_of(database):
    async with database.transaction() as connection:
        rows = await connection.execute("select * from audit_row order by first")
        return await rows.fetchall()


@pytest.mark.parametrize("statements", [
    [changed(2), removed(4)],
    [changed(2), removed(4), changed(257), swapped(10)],
    ["delete from audit_head", "delete from audit_checkpoint"],
    ["delete from audit_block", "delete from audit_tail"],
    [],
])  # fmt: skip
async def test_a_person_accepts_damage_and_another_log_goes_on(
    start, journal, database, clock, statements
):
    async with start() as log:
        await journal.append(some(260 if len(statements) > 3 else 6))
        first = (await log.checkpoint()).checkpoint.origin
    await tamper(database, *statements)
    stored = await entries_of(database)
    sound = [row for row in stored if not row[1].endswith(b"x")]
    left_out = len(stored) - len(sound)
    accepted = await accept_damage(database, "the disk was replaced", 5.0)
    assert (accepted.size, accepted.left_out) == (len(sound), left_out)
    assert accepted.origin != first
    keys = LogKeys(accepted.origin, bytes(32), bytes(32))
    signer = LocalSigner(keys, accepted.origin)
    async with LogService(journal, database, signer, clock) as log:
        fact = await next_fact(journal, kind=Kind.audit_accepted, subject=accepted.origin)
        assert fact.plain()["reason"] == "the disk was replaced"
        await log.checkpoint()
        report = verify(await exported(log), Trust(epochs=[keys.epoch]))
        assert report.ok, report.problems
        if not sound:  # what the journal still has comes back
            assert report.entries >= 6
    async with database.transaction() as connection:
        rows = await connection.execute(f"select coalesce(sum(count), 0) from {accepted.evidence}")
        assert (await rows.fetchone())[0] == len(sound) + left_out
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await connection.execute("delete from audit_tail")
    async with LogService(journal, database, signer, clock) as log:  # once is enough
        await log.checkpoint()
    assert len(await journal.read(START, kinds={Kind.audit_accepted})) == 1
    with pytest.raises(InvalidInput):
        await accept_damage(database, " ", 5.0)


@pytest.mark.parametrize(("statement", "says"), [
    (changed(2), "Entry 2 .* was changed"),
    (removed(1), "Entry 1 .* is missing"),
    (removed(259), "Entry 259 .* is missing"),
    (swapped(3), "do not have the root"),
    (replaced(3), "do not have the root"),
    (changed(258), "Entry 258 .* was changed"),
    ("delete from audit_block", "Entry 0 .* is missing"),
    ("update audit_block set bodies = data", "Entry 0 .* was changed"),
    ("update audit_block set leaves = overlay(leaves placing 'x' from 65)",
     "Entry 2 .* was changed"),
    ("insert into audit_tail select * from audit_block", "Entry 0 .* is there twice"),
    ("update audit_block set terms = '{}'", "What entries 0 to 255 .* found by"),
    ("update audit_block set last_ms = 0", "What entries 0 to 255 .* found by"),
    ("""insert into audit_tail select 700, count, first_ms, first_seq, last_ms, last_seq, raw,
     terms, leaves, bodies, data, erased from audit_tail limit 1""", "was added"),
])  # fmt: skip
async def test_what_was_signed_before_is_checked_at_leisure(
    start, journal, database, caplog, statement, says
):
    caplog.set_level(logging.CRITICAL)
    async with start() as log:
        await journal.append(some(260))
        await log.checkpoint()
    await tamper(database, statement)
    async with start() as log:
        await eventually(lambda: "tampered" in caplog.text, "the alarm")
        with pytest.raises(Tampered, match=says):
            await log.checkpoint()


async def test_erased_data_leave_their_proof(start, journal, database, keys):
    async with start() as log:
        await journal.append(some(5))
        assert (await log.prove(2)).verify([keys.epoch]).size == 5
        assert await AuditStore(database).erase(2)
        assert not await AuditStore(database).erase(2)
        assert (await log.prove(2)).verify([keys.epoch]).size == 5
        report = verify(await exported(log), Trust(epochs=[keys.epoch]))
        assert (report.ok, report.erased) == (True, 1)
        (row,) = await log.entries(1, 1)
        assert fact_of(row.body, row.data).plain() == {}
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            async with database.transaction() as connection:
                await connection.execute("update audit_tail set data = 'x'")
        await journal.append(some(300))  # what was erased in the tail is sealed without data
        await log.settled(await journal.last())
        assert await AuditStore(database).erase(7)
        assert not await AuditStore(database).erase(2)
        assert not await AuditStore(database).erase(305)
        assert (await log.prove(7)).verify([keys.epoch])
        report = verify(await exported(log), Trust(epochs=[keys.epoch]))
        assert (report.ok, report.erased) == (True, 2)


async def test_a_proof_of_any_entry_in_any_tree(start, journal, keys):
    """Across the edges of tiles; each verifies offline, and another entry's does not."""
    async with start(batch=70, checkpoint_every_s=3600) as log:
        for count in (1, 255, 1, 40, 260):
            await journal.append(some(count))
            size = (await log.checkpoint()).checkpoint.size
            for index in {0, size // 2, size - 1}:
                proof = await log.prove(index)
                assert parse_proof(proof.encoded) == proof
                assert proof.verify([keys.epoch]).size >= index
        with pytest.raises(InvalidInput, match="no entry 557"):
            await log.prove(557)
        forged = msgspec.structs.replace(proof, index=proof.index - 1)
        with pytest.raises(Tampered, match="not entry"):
            forged.verify([keys.epoch])
        changed = msgspec.structs.replace(proof, body=proof.body.replace(b"ok", b"no"))
        with pytest.raises(Tampered, match="not entry"):
            changed.verify([keys.epoch])


async def test_a_tile_that_was_changed_gives_no_proof(start, journal, database):
    async with start(checkpoint_every_s=3600) as log:
        await journal.append(some(300))
        await log.checkpoint()
        await tamper(database, "update audit_block set leaves = overlay(leaves placing 'x' from 9)")
        with pytest.raises(Tampered):
            await log.prove(5)
        await tamper(database, "delete from audit_tile")
        with pytest.raises(Tampered, match="tile"):
            await log.prove(299)


@pytest.mark.parametrize("statements", [
    [replaced(6)],
    ["delete from audit_checkpoint"],
    [removed(6)],
    ["update audit_head set frontier = decode(repeat('00', 96), 'hex') where size = 7"],
])  # fmt: skip
async def test_nothing_is_signed_that_does_not_continue_the_last_checkpoint(
    start, journal, database, caplog, statements
):
    async with start(checkpoint_every_s=3600) as log:
        await journal.append(some(5))
        await log.checkpoint()
        await journal.append(some(2))
        await log.settled(await journal.last())
        await tamper(database, *statements)
        with pytest.raises(Tampered):
            await log.checkpoint()
    async with database.transaction() as connection:
        rows = await connection.execute("select count(*) from audit_checkpoint where size > 5")
        assert (await rows.fetchone()) == (0,)


async def test_tampering_while_it_runs_is_shouted_and_the_journal_keeps_the_rest(
    start, journal, database, caplog
):
    caplog.set_level(logging.CRITICAL)
    async with start(checkpoint_every_s=0.01) as log:
        await journal.append(some(5))
        await log.checkpoint()
        await tamper(database, "delete from audit_checkpoint")
        await journal.append(some(2))
        await next_fact(journal, kind=Kind.audit_damaged)
        assert "tampered" in caplog.text
        await journal.append(some(3))
        with pytest.raises(Tampered):
            await log.checkpoint()
    assert len(await journal.read(START, kinds={Kind.task_finished})) == 10


@pytest.mark.parametrize(("statement", "says"), [
    ("delete from audit_head", "head .* is missing"),
    ("update audit_head set frontier = '\\x00'", "head .* was changed"),
])  # fmt: skip
async def test_whoever_waits_for_a_log_that_is_not_kept_any_more_is_told_why(
    start, journal, database, caplog, statement, says
):
    caplog.set_level(logging.CRITICAL)
    async with start(checkpoint_every_s=3600) as log:
        await journal.append(some(5))
        await log.checkpoint()
        await tamper(database, statement)
        await journal.append(some(2))
        async with asyncio.timeout(20):
            with pytest.raises(Tampered, match=says) as caught:
                await log.checkpoint()
            assert "angelos audit verify" in caught.value.hint
            assert await exported(log)
    assert "tampered" in caplog.text


async def test_what_is_said_last_is_in_the_log_and_signed_when_it_ends(start, journal, database):
    for size in (300, 601):
        async with start(batch=7, checkpoint_every_s=3600):
            await journal.append(some(size - 1) if size == 300 else some(300))
            await journal.append([make_fact(Kind.system_stopped, "system/server")])
        async with database.transaction() as connection:
            rows = await connection.execute("select max(size) from audit_checkpoint")
            assert (await rows.fetchone()) == (size,)
        (*_, (_, body, _)) = await entries_of(database)
        assert read_leaf(body).kind == Kind.system_stopped


async def test_the_end_waits_for_a_store_that_is_away_but_not_for_ever(
    start, journal, monkeypatch, caplog
):
    async def away(*_):
        raise Unavailable

    async with start(settle_s=0.05) as log:
        monkeypatch.setattr(log._store, "project", away)
        await journal.append(some(1))
    assert "not in the audit log yet" in caplog.text


async def test_what_was_trimmed_is_read_from_the_log(valkey, database, clock, keys, origin):
    journal = ValkeyJournal(valkey, database)
    facts = some(600) + some(8_600, Kind.task_output) + some(300)
    for begin in range(0, len(facts), 100):
        await journal.append(facts[begin : begin + 100])
    assert await journal.trim(0.0, 0) == 0  # nothing is projected yet, so nothing may go
    async with LogService(journal, database, LocalSigner(keys, origin), clock) as log:
        await log.checkpoint()
    removed = 0
    while count := await journal.trim(0.0, 0):
        removed += count
    extent = await journal.extent()
    assert removed + extent.facts == len(facts)
    assert removed > 600
    lasting = [fact.id for fact in facts if fact.kind == Kind.task_finished]
    read = await journal.read(START, limit=5_000, kinds={Kind.task_finished})
    assert [fact.id for fact in read] == lasting
    assert [f.id for f in await journal.read(START, limit=10)] == lasting[:10]
    followed = []
    facts_after = journal.follow(START, kinds={Kind.task_finished})
    async for fact in facts_after:
        followed.append(fact.id)
        if len(followed) == len(lasting):
            break
    await facts_after.aclose()
    assert followed == lasting
    # With the stream gone as a whole, what lasts is still there.
    await valkey.execute_command("DEL", "{journal}")
    assert len(await journal.read(START, limit=5_000)) == 900
    assert await journal.last() == read[-1].offset


def ask(log, path, **query):
    principal = Principal(id=PrincipalId("person/ada"), role=Role.reviewer)
    (route,) = [r for r in routes(log) if r.path == path]
    assert route.permission == Permission.audit_read
    assert set(query) <= set(route.query)
    return route.handler(Call(principal=principal, params={}, query=query, body=Nothing()))


async def test_routes(start, journal, keys):
    async with start() as log:
        await journal.append(some(12))
        view = await ask(log, "/audit/checkpoint")
        assert isinstance(view, CheckpointView)
        assert view.size == 12
        assert view.keys == (tuple(key.vkey for key in keys.epoch),)
        page = await ask(log, "/audit/entries", after="4", limit="3")
        assert isinstance(page, AuditEntries)
        assert [e.index for e in page.entries] == [5, 6, 7]
        assert page.entries[0].fact["subject"] == "task-5"
        assert page.next == 7
        page = await ask(log, "/audit/entries", subject="task-5", limit="1")
        assert ([e.index for e in page.entries], page.next) == ([5], 5)
        page = await ask(log, "/audit/entries", kind=Kind.task_finished, since="1", until="2")
        assert (page.entries, page.next) == ((), None)
        page = await ask(log, "/audit/entries", author="system/test")
        assert (len(page.entries), page.next) == (12, None)
        pieces = await ask(log, "/audit/export")
        text = b"".join([piece async for piece in pieces])
        assert verify(text.splitlines(keepends=True)).ok
        for wrong in (
            {"limit": "0"},
            {"limit": "9999"},
            {"after": "x"},
            {"after": "-2"},
            {"limit": "1_0"},
            {"since": "nan"},
            {"until": "-1"},
        ):
            with pytest.raises(InvalidInput):
                await ask(log, "/audit/entries", **wrong)


async def test_a_fact_that_is_given_twice_in_one_batch_is_one_entry(valkey, database, keys, origin):
    journal, store = ValkeyJournal(valkey, database), AuditStore(database)
    await journal.append(some(3))
    facts = await journal.read(START, limit=10)
    head = await store.project([*facts[:2], facts[1], facts[2], facts[1], facts[2]])
    assert head.tree.size == 3
