"""The audit log on real stores: it keeps what lasts, signs it, and notices who touches it."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest

from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.core.api import AuditEntries, CheckpointView
from angelos.core.errors import AngelError, InvalidInput, Tampered, Unavailable
from angelos.core.facts import Fact, Kind
from angelos.core.ids import START, PrincipalId
from angelos.core.messages import decode
from angelos.core.permissions import Permission, Principal, Role
from angelos.core.routes import Call, Nothing
from angelos.core.signing import SigningKey
from angelos.governance.checkpoint import open_note
from angelos.governance.routes import routes
from angelos.governance.service import Governance
from angelos.governance.verify import verify
from angelos.testing import eventually, make_fact, next_fact

KEY = SigningKey(bytes(range(32)))
EVE = PrincipalId("agent/eve")


def some(count, kind=Kind.task_finished):
    return [make_fact(kind, f"task-{i}", outcome="ok", data={"n": i}) for i in range(count)]


async def exported(governance):
    return b"".join([piece async for piece in governance.export()]).splitlines(keepends=True)


async def tamper(database, *statements):
    """Change the log as only a superuser can: with its triggers off."""
    async with database.transaction() as connection:
        await connection.execute("set local session_replication_role = replica")
        for statement in statements:
            await connection.execute(statement)


async def test_what_lasts_is_kept_in_order_and_the_export_verifies(start, journal):
    lasting, passing = some(30), some(20, Kind.task_output)
    async with start() as governance:
        mixed = [fact for pair in zip(lasting[:20], passing, strict=True) for fact in pair]
        offsets = await journal.append(mixed + lasting[20:])
        signed = await governance.checkpoint()
        assert signed.checkpoint.size == 30
        assert open_note(signed.note, KEY.public) == signed.checkpoint
        rows = await governance.entries(-1, 100)
        kept = [decode(row.body, Fact) for row in rows]
        assert [fact.id for fact in kept] == [fact.id for fact in lasting]
        assert [fact.offset for fact in kept] == [row.offset for row in rows]
        assert rows[-1].offset == offsets[-1]
        report = verify(await exported(governance), key=KEY.public.raw)
    assert report.ok, report
    assert report.entries == 30


async def test_an_empty_log_is_signed_and_verifies(start):
    async with start() as governance:
        assert verify(await exported(governance)).ok


async def test_a_restart_goes_on_where_it_was_and_takes_nothing_twice(start, journal):
    async with start() as governance:
        await journal.append(some(10))
        first = await governance.checkpoint()
    await journal.append(some(7))  # while nobody looks
    async with start() as governance:
        second = await governance.checkpoint()
        assert (first.checkpoint.size, second.checkpoint.size) == (10, 17)
        assert verify(await exported(governance)).ok


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
    "update audit_entry set body = ''",
    "delete from audit_entry",
    "truncate audit_entry",
    "update audit_checkpoint set note = ''",
    "delete from audit_checkpoint",
    "truncate audit_checkpoint",
])  # fmt: skip
async def test_the_database_itself_refuses_changes(start, journal, database, statement):
    async with start() as governance:
        await journal.append(some(3))
        await governance.checkpoint()
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            async with database.transaction() as connection:
                await connection.execute(statement)
        assert verify(await exported(governance)).ok


@pytest.mark.parametrize(("statement", "says"), [
    ("update audit_entry set body = body || 'x' where idx = 2", "Entry 2 .* was changed"),
    ("delete from audit_entry where idx = 1", "Entry 1 .* is missing"),
    ("delete from audit_entry where idx = 4", "Entry 4 .* is missing"),
    ("update audit_entry set body = 'x', leaf = sha256('\\x0078') where idx = 3",
     "do not have the root"),
    ("update audit_checkpoint set root = sha256('x')", "row was changed"),
    ("update audit_checkpoint set note = replace(note, e'\\n5\\n', e'\\n4\\n')",
     "form or signature"),
    ("update audit_checkpoint set frontier = ''", "frontier was changed"),
    ("delete from audit_head", "head .* is missing"),
])  # fmt: skip
async def test_a_start_on_a_changed_log_is_refused(start, journal, database, statement, says):
    async with start() as governance:
        await journal.append(some(5))
        await governance.checkpoint()
    await tamper(database, statement)
    with pytest.raises(Tampered, match=says):
        async with start():
            pass


@pytest.mark.parametrize("statements", [
    ["update audit_entry set body = 'x', leaf = sha256('\\x0078') where idx = 6"],
    ["delete from audit_checkpoint"],
    ["delete from audit_entry where idx = 6"],
    ["update audit_head set frontier = decode(repeat('00', 96), 'hex') where size = 7"],
])  # fmt: skip
async def test_nothing_is_signed_that_does_not_continue_the_last_checkpoint(
    start, journal, database, caplog, statements
):
    async with start(checkpoint_every_s=3600) as governance:
        await journal.append(some(5))
        await governance.checkpoint()
        await journal.append(some(2))
        await governance.settled(await journal.last())
        await tamper(database, *statements)
        with pytest.raises(Tampered):
            await governance.checkpoint()
    async with database.transaction() as connection:
        rows = await connection.execute("select count(*) from audit_checkpoint where size > 5")
        assert (await rows.fetchone()) == (0,)


async def test_tampering_while_it_runs_is_shouted_and_the_log_goes_on(
    start, journal, database, caplog
):
    caplog.set_level(logging.CRITICAL)
    async with start(checkpoint_every_s=0.01) as governance:
        await journal.append(some(5))
        await governance.checkpoint()
        await tamper(database, "delete from audit_checkpoint")
        await journal.append(some(2))
        await eventually(lambda: "tampered" in caplog.text, "the alarm")
        await journal.append(some(3))
        await governance.settled(await journal.last())
        assert len(await governance.entries(-1, 100)) == 10


@pytest.mark.parametrize(("statement", "says"), [
    ("delete from audit_head", "head .* is missing"),
    ("update audit_head set frontier = '\\x00'", "head .* was changed"),
])  # fmt: skip
async def test_whoever_waits_for_a_log_that_is_not_kept_any_more_is_told_why(
    start, journal, database, caplog, statement, says
):
    caplog.set_level(logging.CRITICAL)
    async with start(checkpoint_every_s=3600) as governance:
        await journal.append(some(5))
        await governance.checkpoint()
        await tamper(database, statement)
        await journal.append(some(2))
        async with asyncio.timeout(20):
            for ask_for in (governance.checkpoint, lambda: exported(governance)):
                with pytest.raises(Tampered, match=says) as caught:
                    await ask_for()
                assert "angelos audit verify" in caught.value.hint
    assert "tampered" in caplog.text


async def test_a_watch_that_fails_does_not_stop_the_log(start, journal, monkeypatch, caplog):
    def step(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("angelos.governance.service.step", step)
    async with start() as governance:
        await journal.append([refusal()])
        await eventually(lambda: "failed" in caplog.text, "the alarm")
        await journal.append(some(3))
        assert (await governance.checkpoint()).checkpoint.size == 4


async def test_what_is_said_last_is_in_the_log_and_signed_when_it_ends(start, journal, database):
    for size in (300, 601):
        async with start(batch=7, checkpoint_every_s=3600):
            await journal.append(some(size - 1) if size == 300 else some(300))
            await journal.append([make_fact(Kind.system_stopped, "system/server")])
        async with database.transaction() as connection:
            rows = await connection.execute("select max(size) from audit_checkpoint")
            assert (await rows.fetchone()) == (size,)
            rows = await connection.execute(
                "select kind from audit_entry order by idx desc limit 1"
            )
            assert (await rows.fetchone()) == (Kind.system_stopped,)


async def test_the_end_waits_for_a_store_that_is_away_but_not_for_ever(
    start, journal, monkeypatch, caplog
):
    async def away(*_):
        raise Unavailable

    async with start(settle_s=0.05) as governance:
        monkeypatch.setattr(governance._store, "project", away)
        await journal.append(some(1))
    assert "not in the audit log yet" in caplog.text


def refusal(actor=EVE):
    data = {"policy_paths": ["angelos.toml"]}
    return make_fact(Kind.proposal_refused, "prop-1", actor=actor, outcome="policy", data=data)


async def test_an_agent_that_touches_the_policy_is_quarantined_once(start, journal, signals):
    async with start():
        await journal.append([refusal(), refusal()])
        fact = await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
        assert "angelos.toml" in fact.plain()["reason"]
    async with start() as governance:  # a restart does not do it again
        await journal.append([make_fact(Kind.system_started, "system/test")])
        await governance.checkpoint()
    assert [who for who, _ in signals.asked] == [EVE]


async def test_a_quarantine_that_a_crash_prevented_is_made_up_for(start, journal, signals):
    await journal.append([refusal(), make_fact(Kind.proposal_merged, "prop-2")])
    async with start():
        await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
    assert [who for who, _ in signals.asked] == [EVE]


async def test_a_quarantine_that_fails_is_asked_for_again_and_others_too(start, journal, signals):
    """Whatever went wrong, the watch over principals goes on."""
    ask, broken = signals.quarantine, iter([RuntimeError("a bug"), AngelError("a refusal")])

    async def quarantine(principal, reason):
        if (error := next(broken, None)) is not None:
            raise error
        await ask(principal, reason)

    signals.quarantine = quarantine
    mallory = PrincipalId("agent/mallory")
    async with start():
        await journal.append([refusal()])
        await next_fact(journal, kind=Kind.principal_quarantined, subject=EVE)
        await journal.append([refusal(mallory)])
        await next_fact(journal, kind=Kind.principal_quarantined, subject=mallory)
    assert [who for who, _ in signals.asked] == [EVE, mallory]


async def test_repeated_denials_are_flagged_in_the_journal_once(start, journal, signals):
    async with start():
        await journal.append([
            make_fact(Kind.task_finished, f"task-{i}", actor="node/exec1", on_behalf_of=EVE,
                      outcome="denied") for i in range(3)
        ])  # fmt: skip
        fact = await next_fact(journal, kind=Kind.principal_flagged, subject=EVE)
        assert fact.plain()["evidence"]["denied"] == 3
    async with start() as governance:
        await governance.checkpoint()
    assert len(await journal.read(START, kinds={Kind.principal_flagged})) == 1
    assert signals.asked == []


async def test_what_was_trimmed_is_read_from_the_log(start, valkey, database, clock, signals):
    journal = ValkeyJournal(valkey, database)
    facts = some(600) + some(600, Kind.task_output) + some(300)
    for begin in range(0, len(facts), 100):
        await journal.append(facts[begin : begin + 100])
    assert await journal.trim(keep=700) == 0  # nothing is projected yet, so nothing may go
    async with Governance(journal, database, KEY, clock, signals) as governance:
        await governance.checkpoint()
    assert await journal.trim(keep=700) == 800
    assert await journal.trim(keep=700) == 0
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


def ask(governance, path, **query):
    principal = Principal(id=PrincipalId("person/ada"), role=Role.reviewer)
    (route,) = [r for r in routes(governance) if r.path == path]
    assert route.permission == Permission.audit_read
    assert set(query) <= set(route.query)
    return route.handler(Call(principal=principal, params={}, query=query, body=Nothing()))


async def test_routes(start, journal):
    async with start() as governance:
        await journal.append(some(12))
        view = await ask(governance, "/audit/checkpoint")
        assert isinstance(view, CheckpointView)
        assert (view.size, view.key) == (12, KEY.public.raw)
        page = await ask(governance, "/audit/entries", after="4", limit="3")
        assert isinstance(page, AuditEntries)
        assert [e.index for e in page.entries] == [5, 6, 7]
        assert page.entries[0].fact["subject"] == "task-5"
        pieces = await ask(governance, "/audit/export")
        text = b"".join([piece async for piece in pieces])
        assert verify(text.splitlines(keepends=True)).ok
        for wrong in (
            {"limit": "0"},
            {"limit": "9999"},
            {"after": "x"},
            {"after": "-2"},
            {"limit": "1_0"},
        ):
            with pytest.raises(InvalidInput):
                await ask(governance, "/audit/entries", **wrong)
