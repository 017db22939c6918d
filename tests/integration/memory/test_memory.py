"""Memory in a real PostgreSQL with pgvector."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from angelos.adapters.stores.postgres import Database
from angelos.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Refused
from angelos.core.facts import Kind
from angelos.core.ids import START, PrincipalId
from angelos.core.memories import (
    SHARED,
    Consolidate,
    Correct,
    ForgetCause,
    Recall,
    Remember,
    SupersedeCause,
    new_memory_id,
)
from angelos.core.permissions import OWNER, Principal, Role
from angelos.core.policy.access import policy_in_force
from angelos.memory.config import MemoryConfig
from angelos.memory.service import MemoryService
from angelos.memory.store import MemoryStore, has_pgvector
from angelos.memory.tombstones import TombstoneFile
from angelos.testing import ManualClock, MemoryJournal, need
from angelos.testing.memories import WordEmbedder
from angelos.wiring.restore import carry_forgotten
from angelos.wiring.stores import MEMORY, planes_for

ADA = Principal(id=PrincipalId("agent/ada"), role=Role.agent)
BOB = Principal(id=PrincipalId("agent/bob"), role=Role.agent)
RITA = Principal(id=PrincipalId("person/rita"), role=Role.reviewer)
ROSA = Principal(id=PrincipalId("person/rosa"), role=Role.researcher)
SENSOR = "Sensor 4 of the reactor reads 2 K too high since May."


@pytest.fixture
async def remembering(database: Database):
    need(await has_pgvector(database), "pgvector in PostgreSQL")
    planes = await planes_for(database)
    assert MEMORY in planes
    await database.migrate(planes)
    return database


@pytest.fixture
async def clock():
    return ManualClock(1_000_000.0)


@pytest.fixture
async def memory(remembering, journal, clock):
    async with _service(remembering, journal, clock) as service:
        yield service


def _service(database, journal, clock, tombstones=None):
    config, policy = MemoryConfig(purge_every_s=3600), policy_in_force()
    return MemoryService(database, journal, clock, policy, WordEmbedder(), config, tombstones)


async def _texts(memory, who, query, **more):
    return [h.memory.text for h in (await memory.recall(who, Recall(query=query, **more))).hits]


async def _facts(journal, kind):
    return await journal.read(START, kinds={kind})


async def test_what_is_said_is_found_by_words_and_by_meaning(memory):
    await memory.remember(ADA, Remember(text=SENSOR))
    await memory.remember(ADA, Remember(text="Plots of the study use the viridis colour map."))
    assert (await _texts(memory, ADA, "which sensors of the reactor"))[0] == SENSOR
    assert await _texts(memory, ADA, "reactor", mode="text") == [SENSOR]
    assert len(await _texts(memory, ADA, "zebra", mode="vector")) == 2
    (hit,) = (await memory.recall(ADA, Recall(query="reactor", limit=1))).hits
    assert (hit.vector_rank, hit.text_rank) == (1, 1)
    assert (hit.memory.trust, hit.memory.by) == ("data", ADA.id)


async def test_no_agent_reads_anothers_memory_and_a_reviewer_reads_agents_but_no_person(memory):
    await memory.remember(ADA, Remember(text=SENSOR))
    mine = (await memory.remember(ROSA, Remember(text="Rosa is away for all of August."))).memory
    with pytest.raises(Forbidden) as error:
        await memory.recall(BOB, Recall(query="sensor", namespaces=("agent/ada",)))
    assert error.value.extra["rules"] == []
    with pytest.raises(Forbidden):
        await memory.remember(BOB, Remember(text=SENSOR, namespace="agent/ada"))
    with pytest.raises(NotFound):
        await memory.get(RITA, mine.id)
    assert await _texts(memory, RITA, "sensor", namespaces=("agent/ada",)) == [SENSOR]
    assert await _texts(memory, BOB, "sensor") == []
    for text in ("node/n1", "agent/..", "shared\n"):
        with pytest.raises(InvalidInput):
            await memory.recall(BOB, Recall(query="sensor", namespaces=(text,)))


async def test_the_same_words_are_confirmed_and_other_figures_are_another_memory(memory, clock):
    first = await memory.remember(ADA, Remember(text=SENSOR))
    clock.advance(5)
    again = await memory.remember(ADA, Remember(text=SENSOR.upper()))
    assert (again.outcome, again.memory.id) == ("confirmed", first.memory.id)
    assert (again.memory.confirmations, again.memory.confirmed_at) == (2, clock.time())
    other = await memory.remember(ADA, Remember(text=SENSOR.replace("2 K", "3 K")))
    assert other.outcome == "added"
    assert [view.id for view in other.similar] == [first.memory.id]


async def test_two_who_say_the_same_at_once_keep_one_memory(memory):
    body = Remember(text=SENSOR, namespace=SHARED)
    answers = await asyncio.gather(*(memory.remember(who, body) for who in (ADA, BOB, ROSA)))
    assert len({answer.memory.id for answer in answers}) == 1
    assert sorted(answer.outcome for answer in answers) == ["added", "confirmed", "confirmed"]


async def test_a_correction_keeps_the_old_text_with_its_dates(memory, journal, clock):
    old = (await memory.remember(ADA, Remember(text=SENSOR))).memory
    clock.advance(10)
    new = await memory.correct(ADA, old.id, Correct(text="Sensor 4 was repaired in June."))
    assert await _texts(memory, ADA, "sensor") == [new.text]
    kept = await memory.get(ADA, old.id)
    assert (kept.text, kept.superseded_by, kept.superseded_at, kept.superseded_cause) == (
        SENSOR,
        new.id,
        clock.time(),
        SupersedeCause.corrected,
    )
    with pytest.raises(Conflict):
        await memory.correct(ADA, old.id, Correct(text="Sensor 4 was repaired in July."))
    (fact,) = await _facts(journal, Kind.memory_superseded)
    assert (fact.subject, fact.payload().by) == (old.id, new.id)


async def test_what_is_forgotten_is_gone_with_its_versions_and_its_id_never_comes_back(
    memory, journal, remembering
):
    old = (await memory.remember(ADA, Remember(text=SENSOR))).memory
    new = await memory.correct(ADA, old.id, Correct(text="Sensor 4 was repaired in June."))
    assert set((await memory.forget(ADA, new.id)).ids) == {old.id, new.id}
    for view in (old, new):
        with pytest.raises(NotFound):
            await memory.get(ADA, view.id)
        with pytest.raises(Conflict):
            await memory.remember(ADA, Remember(text=SENSOR, memory=view.id))
    assert await _texts(memory, ADA, "sensor") == []
    for fact in await journal.read(START):
        assert b"repaired" not in fact.data
        assert b"reactor" not in fact.data


async def test_a_database_from_before_does_not_bring_it_back(memory, journal, remembering, clock):
    view = (await memory.remember(ADA, Remember(text=SENSOR))).memory
    store = MemoryStore(remembering, MemoryConfig())
    async with remembering.transaction() as connection:  # what a backup would hold
        await connection.execute(
            "create table saved as select id, namespace, text, normal,"
            " embedding, model, said_by, at, confirmed_at from memory"
        )
        await connection.execute("create table saved_cursor as select * from memory_cursor")
    await memory.forget(ADA, view.id)
    async with remembering.transaction() as connection:
        await connection.execute("delete from memory_tombstone")
        await connection.execute(
            "insert into memory (id, namespace, text, normal, embedding,"
            " model, said_by, at, confirmed_at) select * from saved"
        )
        await connection.execute("delete from memory_cursor")
        await connection.execute("insert into memory_cursor select * from saved_cursor")
    assert await store.get(view.id, clock.time()) is not None
    async with _service(remembering, journal, clock):
        assert await store.get(view.id, clock.time()) is None
        assert await store.is_forgotten(view.id)


async def test_a_backup_of_both_stores_from_before_does_not_bring_it_back(
    remembering, journal, clock, tmp_path
):
    made, carried = tmp_path / "forgotten", tmp_path / "restored"
    async with _service(remembering, journal, clock, TombstoneFile(made)) as service:
        view = (await service.remember(ADA, Remember(text=SENSOR))).memory
        other = (await service.remember(ADA, Remember(text="The plots use viridis."))).memory
        backup = await _rows(remembering)
        await service.forget(ADA, view.id)
    async with remembering.transaction() as connection:
        await connection.execute("truncate memory, memory_tombstone, memory_cursor cascade")
        for row in backup:
            await connection.execute(
                "insert into memory (id, namespace, text, normal, embedding, model, said_by, at,"
                " confirmed_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                row,
            )
    assert carry_forgotten(carried, [made, tmp_path / "none"]) == 1
    assert carry_forgotten(carried, [made]) == 0
    older = MemoryJournal(clock)  # it has no tombstone, as the journal of a backup
    async with _service(remembering, older, clock, TombstoneFile(carried)) as restored:
        with pytest.raises(NotFound):
            await restored.get(ADA, view.id)
        with pytest.raises(Conflict):
            await restored.remember(ADA, Remember(text=SENSOR, memory=view.id))
        assert (await restored.get(ADA, other.id)).text == other.text
        assert await _texts(restored, ADA, "sensor reactor", mode="text") == []
    (fact,) = await _facts(older, Kind.memory_forgotten)
    assert (fact.outcome, fact.payload().ids) == (ForgetCause.restored, (view.id,))


async def _rows(database):
    async with database.transaction() as connection:
        cursor = await connection.execute(
            "select id, namespace, text, normal, embedding::text, model, said_by, at, confirmed_at"
            " from memory"
        )
        return await cursor.fetchall()


async def test_where_a_memory_comes_from_has_a_form():
    for field, text in (("task", "nonsense"), ("revision", "abc"), ("repo", "../x")):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"text": SENSOR, field: text}, Remember)
    named = {"text": SENSOR, "task": "task-" + "0" * 32, "revision": "a" * 64, "repo": "Study"}
    assert msgspec.convert(named, Remember).repo == "Study"


def test_a_line_that_was_cut_off_is_no_tombstone(tmp_path):
    file = TombstoneFile(tmp_path / "forgotten")
    ids = [new_memory_id() for _ in range(3)]
    file.append(ids[:2])
    path = tmp_path / "forgotten"
    path.write_bytes(path.read_bytes()[:-5])
    file.append(ids[2:])
    assert file.read() == [ids[0], ids[2]]
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        TombstoneFile(tmp_path / "link").append(ids)
    assert not (tmp_path / "elsewhere").exists()


async def test_a_crash_between_tombstone_and_deletion_is_made_good(
    memory, journal, remembering, clock, monkeypatch
):
    view = (await memory.remember(ADA, Remember(text=SENSOR))).memory

    async def crash(*_):
        raise asyncio.CancelledError

    with monkeypatch.context() as broken:
        broken.setattr(MemoryStore, "forget", crash)
        with pytest.raises(asyncio.CancelledError):
            await memory.forget(ADA, view.id)
    async with _service(remembering, journal, clock) as again:
        with pytest.raises(NotFound):
            await again.get(ADA, view.id)


async def test_time_to_live_ends_it_at_once_and_purges_it_with_a_tombstone(memory, journal, clock):
    view = (await memory.remember(ADA, Remember(text=SENSOR, ttl_s=60))).memory
    assert await _texts(memory, ADA, "sensor") == [SENSOR]
    clock.advance(61)
    assert await _texts(memory, ADA, "sensor") == []
    with pytest.raises(NotFound):
        await memory.get(ADA, view.id)
    assert await memory.purge() == 1
    (fact,) = await _facts(journal, Kind.memory_forgotten)
    assert (fact.outcome, fact.payload().ids) == ("expired", (view.id,))


async def test_who_may_forget_what_is_shared(memory):
    body = Remember(text=SENSOR, namespace=SHARED)
    view = (await memory.remember(ADA, body)).memory
    with pytest.raises(Forbidden):
        await memory.forget(BOB, view.id)
    with pytest.raises(Forbidden):
        await memory.forget(ROSA, view.id)
    assert (await memory.forget(ADA, view.id)).ids == (view.id,)
    view = (await memory.remember(ADA, body)).memory
    assert (await memory.forget(RITA, view.id)).ids == (view.id,)


async def test_consolidation_merges_what_says_the_same_and_forgetting_takes_it_along(memory, clock):
    texts = ["the plots use viridis maps everywhere", "maps everywhere: the plots use viridis now"]
    views = []
    for text, ttl_s in zip(texts, (None, 60.0), strict=True):
        clock.advance(1)
        views.append((await memory.remember(ADA, Remember(text=text, ttl_s=ttl_s))).memory)
    plan = await memory.consolidate(ADA, Consolidate(similarity=0.9, dry_run=True))
    assert plan.merged == ((views[1].id, views[0].id),)
    assert len(await _texts(memory, ADA, "viridis")) == 2
    assert await memory.consolidate(ADA, Consolidate(similarity=0.9)) == plan
    clock.advance(61)  # what stays for ever does not end with what it was merged into
    assert await memory.purge() == 0
    assert await _texts(memory, ADA, "viridis") == [texts[1]]
    assert (await memory.get(ADA, views[1].id)).confirmations == 2
    assert set((await memory.forget(ADA, views[1].id)).ids) == {view.id for view in views}
    assert (await memory.consolidate(ADA, Consolidate(similarity=0.8))).merged == ()


async def test_junk_is_refused_recorded_and_counted(memory, journal):
    with pytest.raises(Refused) as error:
        await memory.remember(ADA, Remember(text="ok, thanks!"))
    assert error.value.extra["cause"] == "chatter"
    await memory.remember(ADA, Remember(text=SENSOR))
    stats = await memory.stats()
    assert (stats.memories, stats.added, stats.refused, stats.junk_rate) == (
        1,
        1,
        {"chatter": 1},
        0.5,
    )
    (fact,) = await _facts(journal, Kind.memory_refused)
    assert (fact.actor, fact.subject, fact.outcome) == (ADA.id, ADA.id, "chatter")


async def test_a_request_asked_again_is_done_once(memory):
    body = Remember(text=SENSOR, memory=new_memory_id())
    first, second = await memory.remember(ADA, body), await memory.remember(ADA, body)
    assert first.memory == second.memory
    with pytest.raises(Conflict):
        await memory.remember(BOB, body)


async def test_pages_hold_every_memory_once(memory):
    said = {f"Run {n} of the study failed for a reason of its own." for n in range(7)}
    for text in said:
        await memory.remember(ADA, Remember(text=text))
    texts, cursor = [], ""
    while True:
        page = await memory.page(ADA, "", cursor, 3, superseded=False)
        texts += [view.text for view in page.memories]
        if not (cursor := page.cursor):
            break
    assert sorted(texts) == sorted(said)


async def test_the_owner_is_nobodys_reader_but_agents(memory):
    await memory.remember(ROSA, Remember(text="Rosa is away for all of August."))
    with pytest.raises(Forbidden):
        await memory.recall(OWNER, Recall(query="august", namespaces=("person/rosa",)))
