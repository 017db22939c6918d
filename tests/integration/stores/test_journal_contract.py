"""What every journal promises (`core.ports.Journal`)."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from angelos.adapters.stores.blocks import MOST, entry_of
from angelos.adapters.stores.valkey import ValkeyJournal
from angelos.core.facts import LetterDead
from angelos.core.ids import START, offset_key
from angelos.core.messages import encode
from angelos.testing import facts_until, make_fact


async def take(journal, count, after=START, **filters):
    seen = []
    async with asyncio.timeout(20), aclosing(journal.follow(after, **filters)) as facts:
        async for fact in facts:
            seen.append(fact)
            if len(seen) == count:
                return seen
    return seen


async def test_facts_come_back_in_order_with_their_offsets(any_journal):
    facts = [make_fact("task.output", f"task-{i}", data={"index": i}) for i in range(5)]
    offsets = await any_journal.append(facts[:2]) + await any_journal.append(facts[2:])
    assert sorted(offsets, key=offset_key) == offsets
    assert len(set(offsets)) == 5
    expected = [
        msgspec.structs.replace(fact, offset=offset)
        for fact, offset in zip(facts, offsets, strict=True)
    ]
    assert await any_journal.read(START) == expected
    assert await take(any_journal, 5) == expected
    assert await any_journal.last() == offsets[-1]


@pytest.mark.parametrize(
    "data",
    [b"", b"\x80", b"\xc1 no MessagePack", b"\xde\x00\x01\xa6reason\xd9\x02hi", bytes(range(256))],
)
@pytest.mark.parametrize("kind", ["task.cancelled", "of.a.later.version"])
async def test_the_data_of_a_fact_stay_as_they_came(any_journal, kind, data):
    fact = msgspec.structs.replace(make_fact(kind, "task-1"), data=data)
    await any_journal.append([fact])
    (kept,) = await any_journal.read(START)
    (followed,) = await take(any_journal, 1)
    assert kept.data == followed.data == data


async def test_an_empty_journal(any_journal):
    assert await any_journal.last() == START
    assert await any_journal.read(START) == []
    assert await any_journal.append([]) == []


async def test_a_fact_sent_again_keeps_its_offset(any_journal):
    first, second = make_fact("task.accepted", "task-1"), make_fact("task.started", "task-1")
    (offset,) = await any_journal.append([first])
    again = await any_journal.append([first, second, first, second])
    assert again[0] == again[2] == offset
    assert again[1] == again[3] != offset
    assert len(await any_journal.read(START)) == 2


async def test_readers_resume_by_offset(any_journal):
    offsets = await any_journal.append([make_fact("task.output", f"task-{i}") for i in range(6)])
    assert [f.offset for f in await any_journal.read(offsets[2])] == offsets[3:]
    assert [f.offset for f in await take(any_journal, 3, after=offsets[2])] == offsets[3:]
    assert await any_journal.read(offsets[-1]) == []


async def test_filters_leave_out_and_never_reorder(any_journal):
    facts = [make_fact(("a", "b", "c")[i % 3], f"task-{i % 2}") for i in range(12)]
    await any_journal.append(facts)
    wanted = [f.id for f in facts if f.kind in {"a", "b"} and f.subject == "task-1"]
    filters = {"kinds": ("a", "b"), "subject": "task-1"}
    assert [f.id for f in await any_journal.read(START, **filters)] == wanted
    assert [f.id for f in await any_journal.read(START, limit=2, **filters)] == wanted[:2]
    assert [f.id for f in await take(any_journal, len(wanted), **filters)] == wanted


async def test_a_follower_sees_what_is_appended_later(any_journal):
    first = make_fact("task.accepted", "task-1")
    (offset,) = await any_journal.append([first])
    follower = asyncio.create_task(take(any_journal, 2, after=offset))
    later = [make_fact("task.started", "task-1"), make_fact("task.finished", "task-1")]
    for fact in later:
        await any_journal.append([fact])
    assert [fact.id for fact in await follower] == [fact.id for fact in later]


async def test_more_than_a_page(any_journal):
    facts = [make_fact("task.output", "task-1", data={"index": i}) for i in range(1_203)]
    for start in range(0, len(facts), 100):
        await any_journal.append(facts[start : start + 100])
    seen = await take(any_journal, len(facts))
    assert [fact.plain()["index"] for fact in seen] == list(range(1_203))
    assert len(await any_journal.read(START, limit=2_000)) == 1_203
    assert len(await any_journal.read(START)) == 1_000


async def test_many_writers_at_once_lose_and_double_nothing(any_journal):
    async def write(writer):
        for index in range(20):
            fact = make_fact("task.output", f"task-{writer}", data={"index": index})
            await asyncio.gather(any_journal.append([fact]), any_journal.append([fact]))

    await asyncio.gather(*(write(writer) for writer in range(8)))
    facts = await any_journal.read(START)
    assert len(facts) == 160
    for writer in range(8):
        mine = [f.plain()["index"] for f in facts if f.subject == f"task-{writer}"]
        assert mine == list(range(20))


async def test_a_call_that_cannot_be_stored_fails_alone(valkey):
    journal = ValkeyJournal(valkey)
    good = [make_fact("task.output", f"task-{n}") for n in range(4)]
    bad = msgspec.structs.replace(good[0], id="fact-" + "b" * 32, data=object())
    calls = [journal.append([fact]) for fact in (good[0], good[1], bad, good[2], good[3])]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(answers.pop(2), TypeError)
    assert [fact.offset for fact in await journal.read(START)] == [o for (o,) in answers]
    assert [fact.id for fact in await journal.read(START)] == [fact.id for fact in good]


async def test_a_cancelled_follower_leaves_the_journal_usable(any_journal):
    follower = asyncio.create_task(take(any_journal, 1))
    await asyncio.sleep(0)  # let it begin to wait
    follower.cancel()
    with pytest.raises(asyncio.CancelledError):
        await follower
    fact = make_fact("task.accepted", "task-1")
    await any_journal.append([fact])
    assert (await facts_until(any_journal, lambda _: True))[0].id == fact.id


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(st.integers(0, 12), max_size=6), max_size=8))
def test_any_order_of_batches_and_repeats(batches):
    """The memory journal against the simplest model: a dictionary of first occurrences."""

    async def story():
        from angelos.testing import MemoryJournal

        journal = MemoryJournal()
        facts = [make_fact("task.output", f"task-{i}") for i in range(13)]
        offsets = {}
        for batch in batches:
            got = await journal.append([facts[i] for i in batch])
            for number, offset in zip(batch, got, strict=True):
                assert offsets.setdefault(number, offset) == offset
        read = [fact.id for fact in await journal.read(START)]
        assert read == [facts[i].id for i in offsets]

    asyncio.run(story())


async def test_a_position_names_what_is_there_and_what_was_lost(valkey):
    journal = ValkeyJournal(valkey)
    empty = await journal.position(START)
    assert (empty.oldest, empty.newest, empty.gap) == (START, START, START)
    kinds = ("task.accepted", "task.output", "task.finished", "task.accepted", "task.finished")
    offsets = [(await journal.append([make_fact(kind, "task-1")]))[0] for kind in kinds]
    whole = await journal.position(offsets[1])
    assert (whole.epoch, whole.oldest, whole.newest) == (empty.epoch, offsets[0], offsets[-1])
    assert whole.present
    await valkey.execute_command("XTRIM", "{journal}", "MINID", entry_of(offsets[3]))
    trimmed = await journal.position(offsets[0])
    assert (trimmed.oldest, trimmed.gap, trimmed.present) == (offsets[3], offsets[1], False)
    await valkey.execute_command("FLUSHDB")
    assert (await journal.position(START)).epoch != empty.epoch


async def test_an_entry_that_cannot_be_read_is_set_aside_and_the_rest_comes(valkey):
    journal = ValkeyJournal(valkey)
    first, second = make_fact("task.accepted", "task-1"), make_fact("task.finished", "task-1")
    await journal.append([first])
    damaged = encode(make_fact("task.output", "task-1"))
    for fields in (("b", b"\xc1", "c", "7"), ("x", "y"), ("b", damaged, "c", "1")):
        await valkey.execute_command("XADD", "{journal}", "*", *fields)
    await journal.append([second])
    facts = await take(journal, 5)
    assert [f.id for f in facts if f.kind != "letter.dead"] == [first.id, second.id]
    letters = await journal.dead_letters()
    assert [letter.raw for letter in letters] == [b"\xc17", b"y", damaged + b"1"]
    told = [f.read(LetterDead).position for f in facts if f.kind == "letter.dead"]
    assert told == [letter.position for letter in letters]
    assert [f.id for f in await journal.read(START)] == [
        f.id for f in await ValkeyJournal(valkey).read(START)
    ]
    assert await journal.drop_dead([letters[0].position]) == 1
    assert len(await journal.dead_letters()) == 2


async def test_readers_begin_within_a_block_and_repeats_keep_their_offsets(any_journal):
    facts = [make_fact("task.output", f"task-{i}") for i in range(3 * MOST)]
    offsets = await any_journal.append(facts)
    assert sorted(offsets, key=offset_key) == offsets
    assert len({*offsets}) == len(facts)
    for at in (0, 1, MOST - 1, MOST, 2 * MOST + 5):
        rest = await any_journal.read(offsets[at])
        assert [fact.id for fact in rest] == [fact.id for fact in facts[at + 1 :]]
        followed = await take(any_journal, 3, after=offsets[at])
        assert [fact.offset for fact in followed] == offsets[at + 1 : at + 4]
    fresh = [make_fact("task.output", f"task-{i}") for i in range(MOST)]
    mixed = [fact for pair in zip(facts[30:], fresh, strict=False) for fact in pair]
    again = await any_journal.append(mixed)
    assert again[::2] == offsets[30 : 30 + MOST]
    assert [fact.id for fact in await any_journal.read(offsets[-1])] == [f.id for f in fresh]
    assert await any_journal.last() == again[-1]
