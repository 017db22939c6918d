"""The stream of events: in order, resumable, and never hoarding for a slow reader."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from angelos.core.errors import Busy, HistoryLost, InvalidInput, Unavailable
from angelos.core.facts import Fact, Kind, TaskAccepted, from_json
from angelos.core.ids import START, CommandId, Offset, PrincipalId
from angelos.core.ports import JournalPosition
from angelos.hub.events import FAILED, SLOW, EventsQuery, events_query, pump, resume, stream
from angelos.testing import MemoryJournal, make_fact


class Enough(Exception):
    pass


async def read(journal, count, after=START, kinds=(), subject="") -> list[Fact]:
    got: list[Fact] = []

    async def send(message: bytes) -> None:
        got.append(from_json(message))
        if len(got) == count:
            raise Enough

    with pytest.raises(Enough):
        await pump(journal, after, kinds, subject, send)
    return got


@pytest.fixture
async def memory() -> MemoryJournal:
    journal = MemoryJournal()
    await journal.append([make_fact(Kind.task_accepted, f"task-{i % 2}") for i in range(6)])
    await journal.append([make_fact(Kind.node_enrolled, "node/a")])
    return journal


async def test_each_message_is_a_fact_oldest_first_and_resumable(memory) -> None:
    first = await read(memory, 3)
    rest = await read(memory, 4, after=first[-1].offset)
    assert first + rest == await memory.read(START)


async def test_filters_leave_out(memory) -> None:
    assert [f.kind for f in await read(memory, 1, kinds=("node.enrolled",))] == ["node.enrolled"]
    assert {f.subject for f in await read(memory, 3, subject="task-1")} == {"task-1"}


async def test_the_grant_and_code_of_a_command_are_for_its_node_alone(memory) -> None:
    accepted = TaskAccepted(
        command=CommandId("cmd-7"), request="", node=PrincipalId("node/exec1"), label="train",
        wall_s=1, deadline=1, body=b"a command with a signed grant",
    )  # fmt: skip
    fact = Fact.of(accepted, at=1.0, actor=PrincipalId("person/ada"), subject="task-7")
    await memory.append([fact])
    (shown,) = await read(memory, 1, subject="task-7")
    assert shown.read(TaskAccepted) == msgspec.structs.replace(accepted, body=b"")
    assert "body" not in shown.plain()
    (kept,) = await memory.read(START, kinds=(), subject="task-7")
    assert kept.data == fact.data


async def test_what_comes_later_comes(memory) -> None:
    last = await memory.last()
    reading = asyncio.create_task(read(memory, 1, after=last))
    await asyncio.sleep(0)
    await memory.append([make_fact(Kind.task_accepted, "task-9")])
    assert [f.subject for f in await reading] == ["task-9"]


async def test_a_slow_reader_is_told_where_to_go_on(memory) -> None:
    taken: list[Fact] = []

    async def send(message: bytes) -> None:
        if len(taken) == 2:
            await asyncio.Event().wait()
        taken.append(from_json(message))

    with pytest.raises(Busy) as caught:
        await pump(memory, START, (), "", send, patience_s=0.01)
    assert caught.value.extra["after"] == taken[-1].offset
    assert len(await read(memory, 5, after=Offset(caught.value.extra["after"]))) == 5


class Socket:
    def __init__(self) -> None:
        self.closed: tuple[int, str] | None = None

    async def write_message(self, message: bytes) -> None:
        await asyncio.Event().wait()

    def close(self, code: int, reason: str) -> None:
        assert len(reason.encode()) <= 123, "a close frame holds no more"
        self.closed = code, reason


@pytest.mark.parametrize(
    "error", [Unavailable("No store " + "ä" * 200), RuntimeError("a bug"), ValueError("bad bytes")]
)
async def test_a_reader_whom_the_journal_fails_is_let_go_and_told(memory, monkeypatch, error):
    async def follow(*_):
        raise error
        yield

    monkeypatch.setattr(memory, "follow", follow)
    socket = Socket()
    await stream(memory, EventsQuery(), socket)
    assert socket.closed is not None
    assert socket.closed[0] == FAILED


async def test_a_reader_that_does_not_read_is_let_go_and_told(memory) -> None:
    socket = Socket()
    await stream(memory, EventsQuery(), socket, patience_s=0.01)
    assert socket.closed is not None
    assert socket.closed[0] == SLOW


@pytest.mark.parametrize(
    "query",
    [
        {"after": [b"yesterday"]},
        {"after": [b"1-0", b"2-0"]},
        {"kinds": [b"task.accepted,root.shell"]},
        {"until": [b"1-0"]},
        {"subject": [b"\xff"]},
        {"subject": [b"x" * 1000]},
    ],
)
def test_a_query_that_makes_no_sense_is_invalid_input(query) -> None:
    with pytest.raises(InvalidInput):
        events_query(query)


def test_a_query_in_full() -> None:
    query = {"after": ["5-1"], "kinds": [b"task.accepted,task.finished"], "subject": [b"task-1"]}
    assert events_query(query) == EventsQuery(
        after=Offset("5-1"), kinds=("task.accepted", "task.finished"), subject="task-1"
    )
    assert events_query({"after": [b""]}) == EventsQuery()


def at(epoch="one", oldest="5-0", newest="9-0", *, present=False, gap="4-0"):
    return JournalPosition(
        epoch=epoch, oldest=Offset(oldest), newest=Offset(newest), present=present, gap=Offset(gap)
    )


@pytest.mark.parametrize(
    ("after", "epoch", "position"),
    [
        ("0-0", "", at()),
        ("0-0", "one", at()),
        ("6-0", "", at(present=True)),
        ("6-0", "one", at(present=True)),
        ("4-0", "", at()),  # trimmed, and nothing behind it is lost
        ("1-0", "", at(gap="0-0")),
    ],
)
def test_a_reader_goes_on_where_the_journal_is_whole(after, epoch, position):
    assert resume(EventsQuery(after=Offset(after), epoch=epoch), position) is None


@pytest.mark.parametrize(
    ("after", "epoch"),
    [("3-0", ""), ("7-1", ""), ("99-0", ""), ("99-0", "one"), ("6-0", "two"), ("0-0", "two")],
)
def test_a_reader_whose_history_is_lost_is_told_the_oldest_offset(after, epoch):
    with pytest.raises(HistoryLost) as error:
        resume(EventsQuery(after=Offset(after), epoch=epoch), at(present=after == "6-0"))
    assert error.value.extra == {"oldest": "5-0", "epoch": "one"}


def test_a_reader_of_the_past_gets_what_lasts_after_a_notice():
    notice = resume(EventsQuery(after=Offset("3-0"), epoch="one"), at())
    assert json.loads(notice) == {"notice": "history-lost", "oldest": "5-0", "epoch": "one"}
