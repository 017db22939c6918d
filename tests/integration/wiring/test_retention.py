"""What grows is bounded: old facts, outputs and files of tasks are removed."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import psycopg
import pytest

from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.control.state.decide import fold
from angelos.control.state.models import ControlState
from angelos.control.tasks.contents import Contents
from angelos.core.errors import HistoryLost, NotFound, Unavailable
from angelos.core.facts import (
    Fact,
    Kind,
    OutputsExpired,
    TaskAccepted,
    TaskOutput,
    TaskResult,
    without_output,
)
from angelos.core.ids import START, PrincipalId, fact_of, new_command_id
from angelos.core.messages import Status, Tier
from angelos.core.retention import DAY_S, RetentionConfig
from angelos.governance.log.checkpoint import LogKeys
from angelos.governance.log.service import LogService
from angelos.governance.log.store import AuditStore
from angelos.governance.log.verify import Trust, verify
from angelos.governance.signer.client import LocalSigner
from angelos.hub.events import events_query, resume
from angelos.testing import eventually, make_fact
from angelos.wiring.retention import Kept, Retention

NODE = PrincipalId("node/exec1")
BIG = "x" * 2_000


def facts_of_task(number: int, proposal: str = "") -> list[Fact]:
    """Return the facts of a task from its acceptance to its end."""
    command = new_command_id(number)
    task = f"task-{command[4:]}"
    accepted = TaskAccepted(
        command=command, request=f"{number}", node=NODE, wall_s=1, deadline=1e12, proposal=proposal
    )
    result = TaskResult(
        status=Status.ok,
        exit_code=number % 2,
        stdout=BIG,
        stderr="e",
        duration_s=0.5,
        node=NODE,
        tier=Tier.full,
        evidence={"source": "kernel"},
    )
    words = {"at": 1.0, "subject": task}
    return [
        Fact.of(accepted, actor=PrincipalId("person/ada"), **words),
        Fact.of(TaskOutput(stream="stdout", text=BIG), actor=NODE, **words),
        Fact.of(result, actor=NODE, id=fact_of(command, Kind.task_finished), **words),
    ]


@pytest.fixture
def journal(valkey, database):
    return ValkeyJournal(valkey, database)


@pytest.fixture
async def start(journal, database, clock):
    """Return a retention over real stores, whose clock is that of the store."""
    origin = await AuditStore(database).origin()
    keys = LogKeys(origin, bytes(range(32)), bytes(range(1, 33)))
    async with database.transaction() as connection:
        vkeys = [key.vkey for key in keys.epoch]
        await connection.execute("insert into audit_key (vkeys) values (%s)", (vkeys,))
    clock.advance((await _now(journal)) - clock.time())
    damage: list[str] = []

    def make(**config: float) -> Retention:
        kept = Kept(
            journal=journal,
            audit=AuditStore(database),
            contents=Contents(database, clock),
            damaged=lambda: bool(damage),
        )
        return Retention(kept, clock, msgspec.structs.replace(RetentionConfig(), **config))

    make.damage = damage
    make.log = lambda: LogService(journal, database, LocalSigner(keys, origin), clock)
    make.keys = keys
    return make


async def _now(journal):
    seconds, micro = await journal._client.reader.call("TIME")
    return int(seconds) + int(micro) / 1e6


async def logged(start, journal, facts):
    """Append facts, a call each so that they share no entry, and take them into the audit log."""
    for fact in facts:
        await journal.append([fact])
    async with start.log() as log:
        await log.checkpoint()


def folded(facts):
    state = ControlState()
    for fact in facts:
        state = fold(state, fact)
    return state


async def everything(journal):
    return await journal.read(START, limit=100_000)


async def test_the_journal_is_trimmed_by_bytes_behind_the_audit_log(start, journal):
    facts = [fact for n in range(150) for fact in facts_of_task(n)]
    retention = start(journal_mb=0.3)
    for fact in facts:
        await journal.append([fact])
    await retention.remove()
    assert retention.view().facts_removed == 0  # nothing is in the audit log yet
    async with start.log() as log:
        await log.checkpoint()
    whole = folded(f for f in await everything(journal) if f.kind != Kind.task_output)
    first = (await everything(journal))[0].offset

    await retention.remove()

    view = retention.view()
    assert view.facts_removed > 100
    assert view.journal_facts == len(facts) - view.facts_removed
    assert view.journal_bytes <= 300_000 + len(BIG) + 1_000
    before = view.facts_removed
    await retention.remove()
    assert retention.view().facts_removed == before
    rest = await everything(journal)
    assert len([f for f in rest if f.kind == Kind.task_finished]) == 150
    assert folded(rest) == msgspec.structs.replace(whole, offset=rest[-1].offset)
    with pytest.raises(HistoryLost):  # pieces of output are gone, and whoever reads on is told
        resume(events_query({"after": [first]}), await journal.position(first))


async def test_what_another_writer_left_in_the_stream_is_trimmed_too(start, journal, valkey):
    await valkey.xadd("{journal}", {"n": "none", "y": b"\x81\xa2"})
    await logged(start, journal, [fact for n in range(60) for fact in facts_of_task(n)])
    await valkey.xadd("{journal}", {"some": "thing"})
    retention = start(journal_mb=0.1)
    await retention.remove()
    assert retention.view().facts_removed > 30
    assert len([f for f in await everything(journal) if f.kind == Kind.task_finished]) == 60


async def test_the_journal_is_trimmed_by_age_but_for_its_newest_entry(start, journal, clock):
    await logged(start, journal, [fact for n in range(40) for fact in facts_of_task(n)])
    retention = start(journal_days=2.0)
    clock.advance(1.9 * DAY_S)
    await retention.remove()
    assert retention.view().facts_removed == 0
    clock.advance(0.2 * DAY_S)
    await retention.remove()
    assert retention.view().journal_facts == 1
    newest = await journal.last()
    assert (await everything(journal))[-1].offset == newest
    (offset,) = await journal.append([make_fact(Kind.system_stopped, "system/server")])
    assert [fact.offset for fact in await journal.read(newest)] == [offset]


async def test_outputs_expire_but_those_that_a_verdict_rests_on(start, journal, clock, database):
    own, tested = facts_of_task(1), facts_of_task(2, proposal="prop-1")
    await logged(start, journal, own + tested)
    state = folded(await everything(journal))
    clock.advance(10 * DAY_S)
    late = facts_of_task(3)
    retention = start(outputs_days=9.0)
    await retention.remove()
    assert retention.view().outputs_expired == 1
    await logged(start, journal, late)

    facts = await everything(journal)
    (said,) = [fact for fact in facts if fact.kind == Kind.outputs_expired]
    payload = said.payload()
    assert isinstance(payload, OutputsExpired)
    ends = {f.subject: f.payload() for f in facts if f.kind == Kind.task_finished}
    left = without_output(ends[tested[0].subject])
    assert ends[own[0].subject] == msgspec.structs.replace(left, exit_code=1)
    assert ends[tested[0].subject].stdout == BIG
    assert ends[late[0].subject].stdout == BIG

    # A state that was folded before drops them by the fact; one that is folded now agrees.
    again = folded(facts)
    continued = state
    for fact in facts[facts.index(said) :]:
        continued = fold(continued, fact)
    task = again.tasks[own[0].subject]
    assert (task.state, task.expired, task.result.stdout) == ("finished", True, "")
    assert continued.tasks == again.tasks
    async with start.log() as log:  # what was erased leaves every proof as it was
        lines = b"".join([piece async for piece in log.export()]).splitlines(keepends=True)
    report = verify(lines, Trust(epochs=[start.keys.epoch]))
    assert report.ok, report
    assert report.erased == 1
    clock.advance(-5 * DAY_S)
    await retention.remove()
    assert retention.view().outputs_expired == 1


async def test_outputs_are_kept_for_ever_on_request(start, journal, clock):
    await logged(start, journal, facts_of_task(1))
    clock.advance(20_000 * DAY_S)
    retention = start(outputs_days=0.0)
    await retention.remove()
    assert retention.view().outputs_expired == 0


@pytest.mark.parametrize("how", ["read", "follow"])
async def test_a_reader_misses_nothing_that_is_trimmed_before_its_next_page(
    start, journal, monkeypatch, how
):
    await logged(start, journal, [fact for n in range(60) for fact in facts_of_task(n)])
    there = await everything(journal)
    after = there[9].offset
    lasting = [f.id for f in there[10:] if f.kind != Kind.task_output]
    real, calls = journal._page, []

    async def slow(position):
        if not calls:
            calls.append(1)
            assert await journal.trim(0.0, 1_000)
            while await journal.trim(0.0, 1_000):
                pass
        return await real(position)

    monkeypatch.setattr("angelos.adapters.stores.valkey.PAGE", 20)
    monkeypatch.setattr(journal, "_page", slow)
    seen = []
    if how == "read":
        seen = await journal.read(after, limit=1_000)
    else:
        async with contextlib.aclosing(journal.follow(after)) as facts:
            async for fact in facts:
                seen.append(fact)
                if fact.id == lasting[-1]:
                    break
    assert [f.id for f in seen if f.kind != Kind.task_output] == lasting


async def test_files_are_forgotten_after_their_last_use(start, clock, database):
    contents = Contents(database, clock)
    old = await contents.put(b"old")
    used = await contents.put(b"used")
    clock.advance(6 * DAY_S)
    await contents.get(used)
    clock.advance(2 * DAY_S)
    retention = start()
    await retention.remove()
    assert retention.view().files_removed == 1
    assert await contents.get(used) == b"used"
    with pytest.raises(NotFound):
        await contents.get(old)


async def test_a_file_that_is_used_while_old_ones_go_stays(clock, database):
    contents = Contents(database, clock)
    old = await contents.put(b"old")
    clock.advance(8 * DAY_S)

    def waits():
        with psycopg.connect(database.dsn) as connection:
            query = "select count(*) from pg_locks where not granted"
            return connection.execute(query).fetchone() != (0,)

    async with database.transaction() as connection:  # as a task is accepted with it
        await connection.execute("update task_file set used_at = %s", (clock.time(),))
        clearing = asyncio.create_task(contents.clear(clock.time() - 7 * DAY_S))
        await eventually(waits, "it waits for the row")
    assert await clearing == 0
    assert await contents.get(old) == b"old"


async def test_nothing_is_removed_while_the_log_is_damaged(start, journal, clock):
    await logged(start, journal, facts_of_task(1))
    clock.advance(400 * DAY_S)
    start.damage.append("yes")
    retention = start()
    await retention.remove()
    view = retention.view()
    assert (view.facts_removed, view.outputs_expired) == (0, 0)
    assert "damaged" in view.problem
    start.damage.clear()
    await retention.remove()
    assert retention.view().outputs_expired == 1
    assert retention.view().problem == ""


async def test_it_goes_on_after_a_store_was_away(start, journal, monkeypatch):
    retention = start()
    retention._every_s = 0.0
    real, calls = retention._kept.journal.extent, []

    async def extent():
        calls.append(1)
        if len(calls) == 1:
            raise Unavailable("Valkey is away.")
        if len(calls) == 2:
            raise RuntimeError("a fault of ours")
        await asyncio.sleep(0)
        return await real()

    monkeypatch.setattr(journal, "extent", extent)
    async with retention:
        await eventually(lambda: len(calls) > 2 and retention.view().at, "a third time")
    assert retention.view().problem == ""
