"""Tasks: run to the end, followed by a handle, cancelled with their caller, submitted once."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from angelos.client import Restarted
from angelos.core import errors
from angelos.core.api import SubmitTask
from angelos.core.facts import TaskResult
from angelos.core.ids import new_command_id
from angelos.core.messages import Limits
from angelos.core.runs import Output
from angelos.testing import eventually
from tests.unit.client.fake_server import RESULT, angelos, world

__all__ = ["angelos", "world"]

CANCEL = "POST /tasks/task-1/cancel"


@pytest.fixture
def accepted(world):
    """The server accepts the task `task-1`, which may be cancelled."""
    world.answers["POST /tasks"] = (202, world.task())
    world.answers["GET /tasks/task-1"] = (200, world.task())
    world.answers[CANCEL] = (200, world.task(reason="It is being stopped."))
    return world


def printed(world, first: int = 6) -> None:
    """Let the task print `a` and `b` and end."""
    world.fact(f"{first}-0", "task.output", stream="stdout", text="a")
    world.fact(f"{first + 1}-0", "task.output", stream="stderr", text="b")
    world.fact(f"{first + 2}-0", "task.finished", **RESULT)


async def test_a_task_is_submitted_with_all_that_was_said(accepted, angelos):
    command = new_command_id()
    body = SubmitTask(
        argv=("python", "-m", "study.check"),
        stdin="in",
        repo="study",
        revision="a" * 64,
        limits=Limits(wall_s=3),
        guard=False,
        node="exec2",
        label="check",
        command=command,
    )
    task = await angelos.tasks.start(
        argv=["python", "-m", "study.check"],
        stdin="in",
        repo="study",
        revision="a" * 64,
        limits=Limits(wall_s=3),
        guard=False,
        node="exec2",
        label="check",
        command=command,
    )
    assert task.id == "task-1"
    assert msgspec.json.decode(accepted.requests[0][3], type=SubmitTask) == body


async def test_each_task_has_an_id_of_its_request_so_that_twice_is_once(accepted, angelos):
    for _ in range(2):
        await angelos.tasks.start("x")
    first, second = (accepted.body(number)["command"] for number in (0, 1))
    assert str(first).startswith("cmd-")
    assert first != second


async def test_run_gives_output_as_it_comes_and_returns_the_result(accepted, angelos):
    accepted.fact("4-0", "task.output", stream="stdout", text="of another time")
    printed(accepted)
    pieces: list[Output] = []
    result = await angelos.tasks.run("x", on_output=pieces.append)
    assert isinstance(result, TaskResult)
    assert result.stdout == "ab"
    assert pieces == [Output("stdout", b"a"), Output("stderr", b"b")]
    assert accepted.followed == ["5-0"]
    assert accepted.sent() == ["POST /tasks"]  # nothing more was asked for, nothing cancelled


async def test_a_handle_gives_output_then_result(accepted, angelos):
    printed(accepted)
    task = await angelos.tasks.start("x")
    pieces = [piece async for piece in task.output()]
    assert pieces == [Output("stdout", b"a"), Output("stderr", b"b")]
    assert (await task.result()).stdout == "ab"
    assert accepted.followed == ["5-0"]
    assert accepted.sent() == ["POST /tasks"]


async def test_a_handle_by_id_follows_a_task_of_somebody_else(accepted, angelos):
    printed(accepted)
    task = angelos.tasks["task-1"]
    assert accepted.sent() == []
    assert (await task.result()).stdout == "ab"
    assert accepted.sent() == ["GET /tasks/task-1"]
    assert accepted.followed == ["5-0"]


async def test_of_an_ended_task_the_result_is_all_that_is_asked_for(world, angelos):
    ended = RESULT | {"stdout": "out", "stderr": "err"}
    world.answers["GET /tasks/task-1"] = (200, world.task(state="finished", result=ended))
    task = angelos.tasks["task-1"]
    pieces = [piece async for piece in task.output()]
    assert pieces == [Output("stdout", b"out"), Output("stderr", b"err")]
    assert (await task.result()).stderr == "err"
    assert world.sent() == ["GET /tasks/task-1"]
    assert world.followed == []


async def test_the_same_command_again_is_the_task_that_has_ended(world, angelos):
    world.answers["POST /tasks"] = (202, world.task(state="finished", result=RESULT))
    pieces: list[Output] = []
    command = new_command_id()
    result = await angelos.tasks.run("x", command=command, on_output=pieces.append)
    assert result.stdout == "ab"
    assert pieces == [Output("stdout", b"ab")]
    assert world.body()["command"] == command
    assert world.sent() == ["POST /tasks"]


@pytest.mark.parametrize("attempt", [2, 1])
async def test_a_task_that_begins_anew_says_so(accepted, angelos, attempt):
    accepted.fact("6-0", "task.started", node="exec1", attempt=1)
    accepted.fact("7-0", "task.output", stream="stdout", text="a")
    accepted.fact("8-0", "task.started", node="exec1", attempt=attempt)
    accepted.fact("9-0", "task.output", stream="stdout", text="ab")
    accepted.fact("10-0", "task.finished", **RESULT)
    events: list[Output | Restarted] = []
    result = await angelos.tasks.run("x", on_output=events.append, on_restart=events.append)
    assert result.stdout == "ab"
    assert events == [Output("stdout", b"a"), Restarted(2, "exec1"), Output("stdout", b"ab")]


async def test_a_restart_of_the_server_is_survived(accepted, angelos):
    printed(accepted)
    accepted.drop_after = [1, 0]
    task = await angelos.tasks.start("x")
    pieces = [piece async for piece in task.output()]
    assert pieces == [Output("stdout", b"a"), Output("stderr", b"b")]
    assert accepted.followed == ["5-0", "6-0", "6-0"]


async def test_cancelling_the_caller_of_run_cancels_the_task(accepted, angelos):
    accepted.fact("6-0", "task.output", stream="stdout", text="a")
    started = asyncio.Event()
    running = asyncio.create_task(angelos.tasks.run("x", on_output=lambda _: started.set()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert accepted.sent() == ["POST /tasks", CANCEL]


async def test_an_error_of_the_callers_own_cancels_the_task(accepted, angelos):
    accepted.fact("6-0", "task.output", stream="stdout", text="a")

    def fail(piece: Output) -> None:
        raise ZeroDivisionError(piece)

    with pytest.raises(ZeroDivisionError):
        await angelos.tasks.run("x", on_output=fail)
    assert accepted.sent() == ["POST /tasks", CANCEL]


async def test_leaving_before_the_task_is_accepted_cancels_it_too(accepted, angelos):
    accepted.answer_now = asyncio.Event()
    starting = asyncio.create_task(angelos.tasks.start("1"))
    await eventually(lambda: accepted.requests, "the request")
    starting.cancel()
    accepted.answer_now.set()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert accepted.sent() == ["POST /tasks", CANCEL]


async def test_a_block_that_is_left_early_cancels_its_task(accepted, angelos):
    accepted.answers[CANCEL] = (409, msgspec.json.encode(errors.Conflict("ended").problem()))
    async with await angelos.tasks.start("x"):
        pass
    assert accepted.sent() == ["POST /tasks", CANCEL]


async def test_a_handle_alone_cancels_nothing(accepted, angelos):
    accepted.fact("6-0", "task.output", stream="stdout", text="a")
    task = await angelos.tasks.start("x")
    output = task.output()
    assert await anext(output) == Output("stdout", b"a")
    await output.aclose()
    assert accepted.sent() == ["POST /tasks"]


async def test_a_task_is_cancelled_with_a_reason(accepted, angelos):
    view = await angelos.tasks["task-1"].cancel("It takes too long.")
    assert view.reason == "It is being stopped."
    assert accepted.body() == {"reason": "It takes too long."}


async def test_a_view_may_wait_for_the_end(accepted, angelos):
    assert (await angelos.tasks["task-1"].view(wait=2)).by == "person/owner"
    assert accepted.sent() == ["GET /tasks/task-1?wait=2"]


async def test_tasks_are_listed_by_state(world, angelos):
    world.answers["GET /tasks"] = (200, b'{"tasks": [' + world.task() + b"]}")
    (view,) = await angelos.tasks.list(state="running", limit=3)
    assert view.id == "task-1"
    assert world.sent() == ["GET /tasks?state=running&limit=3"]
