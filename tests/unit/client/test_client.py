"""The client against a small Tornado application that speaks like the real one."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.datadir import DataDir, SystemFile
from angelos.client import Angelos, Restarted
from angelos.core import errors
from angelos.core.api import SubmitTask
from angelos.core.ids import new_command_id
from angelos.core.messages import TaskResult
from angelos.core.repository import NewText
from angelos.core.runs import Output
from angelos.testing import eventually
from tests.unit.client.fake_server import RESULT, angelos, world

__all__ = ["angelos", "world"]

COMMAND = new_command_id()


async def test_a_request_carries_the_token_and_the_struct(world, angelos):
    world.answers["POST /tasks"] = (202, world.task())
    task = await angelos.tasks.start("1", command=COMMAND)
    assert task.id == "task-1"
    ((_, _, token, body),) = world.requests
    assert token == "token secret"
    assert msgspec.json.decode(body, type=SubmitTask) == SubmitTask(code="1", command=COMMAND)


async def test_an_answer_of_a_later_version_is_understood(world, angelos):
    world.answers["GET /tasks/task-1"] = (200, world.task(colour="blue"))
    assert (await angelos.task("task-1", wait=2)).by == "person/owner"
    assert world.requests[0][1] == "wait=2"


@pytest.mark.parametrize("cls", sorted(errors.BY_CODE.values(), key=lambda c: c.code))
async def test_a_problem_is_raised_as_the_error_it_was(world, angelos, cls):
    sent = cls("it broke", hint="mend it", conflicts=[1])
    world.answers["GET /status"] = (cls.status, msgspec.json.encode(sent.problem()))
    with pytest.raises(errors.AngelError) as caught:
        await angelos.status()
    assert type(caught.value) is cls
    assert (caught.value.detail, caught.value.hint) == ("it broke", "mend it")
    assert caught.value.extra == {"conflicts": [1]}


@pytest.mark.parametrize(
    ("status", "body", "cls"),
    [
        (403, b'{"message": "Forbidden"}', errors.Forbidden),
        (404, b"<html>", errors.NotFound),
        (503, b"", errors.Unavailable),
        (418, b"[]", errors.AngelError),
        (302, b"", errors.AngelError),
    ],
)
async def test_an_answer_that_is_no_problem_document_goes_by_its_status(
    world, angelos, status, body, cls
):
    world.answers["GET /nodes"] = (status, body)
    with pytest.raises(errors.AngelError) as caught:
        await angelos.nodes()
    assert type(caught.value) is cls


async def test_an_answer_of_another_shape_is_an_error_of_ours(world, angelos):
    world.answers["GET /status"] = (200, b'{"version": 3}')
    with pytest.raises(errors.AngelError, match="something else"):
        await angelos.status()


async def test_ids_cannot_leave_their_segment(world, angelos):
    world.answers["GET /tasks/..%2F..%2Fpeople%3Fx"] = (200, world.task())
    await angelos.task("../../people?x")
    assert world.requests[0][:2] == ("GET /tasks/..%2F..%2Fpeople%3Fx", "")


async def test_nobody_there_is_unavailable():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        async with Angelos(f"http://127.0.0.1:{taken.getsockname()[1]}") as client:
            with pytest.raises(errors.Unavailable):
                await client.status()


async def test_a_closed_client_says_so(world):
    client = Angelos(world.url)
    with pytest.raises(errors.Unavailable, match="not open"):
        await client.status()


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://x", "file:///etc/passwd"])
def test_only_http_addresses_are_taken(url):
    with pytest.raises(errors.InvalidInput):
        Angelos(url)


async def test_who_no_longer_waits_for_an_answer_hangs_up(world, angelos, caplog):
    world.answer_now = asyncio.Event()
    world.answers["GET /status"] = (200, b"{}")
    asking = asyncio.ensure_future(angelos.status())
    await eventually(lambda: world.requests, "the request")
    asking.cancel()
    await asyncio.wait({asking})
    await asyncio.wait_for(world.hung_up.wait(), 20)
    world.answer_now.set()
    assert not caplog.records


@pytest.mark.parametrize("token", ["a\nb", "a b", "\udcff", "ü"])
def test_a_token_that_is_no_header_is_refused_here(token):
    with pytest.raises(errors.InvalidInput, match="token"):
        Angelos("http://127.0.0.1:1", token=token)


async def test_run_yields_output_and_result(world, angelos):
    world.answers["POST /tasks"] = (202, world.task())
    world.fact("4-0", "task.output", stream="stdout", text="of another time")
    world.fact("6-0", "task.output", stream="stdout", text="a")
    world.fact("7-0", "task.output", stream="stderr", text="b")
    world.fact("8-0", "task.finished", **RESULT)
    pieces: list[Output] = []
    result = await angelos.run("x", on_output=pieces.append)
    assert isinstance(result, TaskResult)
    assert result.stdout == "ab"
    assert pieces == [Output("stdout", b"a"), Output("stderr", b"b")]
    assert world.followed == ["5-0"]
    assert [r[0] for r in world.requests] == ["POST /tasks"]  # nothing was cancelled


@pytest.mark.parametrize("said", [2, 1, "?"])
async def test_a_task_that_is_started_again_is_told_apart(world, angelos, said):
    world.answers["POST /tasks"] = (202, world.task())
    world.fact("6-0", "task.started", node="exec1", attempt=1)
    world.fact("7-0", "task.output", stream="stdout", text="a")
    world.fact("8-0", "task.started", node="exec1", attempt=said)
    world.fact("9-0", "task.output", stream="stdout", text="ab")
    world.fact("10-0", "task.finished", **RESULT)
    told: list[Output | Restarted] = []
    result = await angelos.run("x", on_output=told.append, on_restart=told.append)
    assert result.stdout == "ab"
    assert told == [Output("stdout", b"a"), Restarted(2, "exec1"), Output("stdout", b"ab")]


async def test_sending_a_task_gives_it_an_id_so_that_twice_is_once(world, angelos):
    world.answers["POST /tasks"] = (202, world.task(state="finished", result=RESULT))
    await angelos.run("x")
    command = msgspec.json.decode(world.requests[0][3])["command"]
    assert command.startswith("cmd-")


async def test_leaving_a_run_cancels_the_task(world, angelos):
    world.answers["POST /tasks"] = (202, world.task())
    world.answers["POST /tasks/task-1/cancel"] = (200, world.task())
    world.fact("6-0", "task.output", stream="stdout", text="a")
    started = asyncio.Event()
    running = asyncio.create_task(angelos.run("x", on_output=lambda _: started.set()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert world.requests[-1][0] == "POST /tasks/task-1/cancel"


async def test_leaving_before_the_task_is_accepted_cancels_it_too(world, angelos):
    world.answers["POST /tasks"] = 202, world.task()
    world.answers["POST /tasks/task-1/cancel"] = 200, world.task(state="finished")
    world.answer_now = asyncio.Event()
    running = asyncio.create_task(angelos.run("1"))
    await eventually(lambda: world.requests, "the request")
    running.cancel()
    world.answer_now.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [name for name, *_ in world.requests] == ["POST /tasks", "POST /tasks/task-1/cancel"]


async def test_a_proposal_has_an_id_and_its_edits(world, angelos):
    world.answers["POST /repos/study/proposals"] = (
        403, msgspec.json.encode(errors.Forbidden("policy").problem())
    )  # fmt: skip
    with pytest.raises(errors.Forbidden, match="policy"):
        await angelos.propose("study", "main", [NewText(path="a", text="b")], "why")
    sent = msgspec.json.decode(world.requests[0][3])
    assert sent["proposal"].startswith("prop-")
    assert sent["edits"] == [{"kind": "text", "path": "a", "text": "b"}]


def test_connect_finds_the_running_system(tmp_path):
    import os

    data = DataDir(tmp_path)
    with pytest.raises(errors.Unavailable, match="No system runs"):
        Angelos.connect(tmp_path)
    mine = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()) or 0}
    base = SystemFile(**mine, started_at=0, postgres="", valkey="")
    data.write_system(base)
    with pytest.raises(errors.Unavailable, match="still starting"):
        Angelos.connect(tmp_path)
    data.write_system(msgspec.structs.replace(base, url="http://127.0.0.1:1", token="t"))
    assert Angelos.connect(tmp_path).url == "http://127.0.0.1:1"
    data.write_system(msgspec.structs.replace(base, url="http://127.0.0.1:1", start_ticks=1))
    with pytest.raises(errors.Unavailable, match="No system runs"):
        Angelos.connect(tmp_path)


async def test_what_cannot_be_sent_is_refused_here():
    async with Angelos("http://127.0.0.1:1") as angelos:
        for ask in (
            lambda: angelos.task("\udcff"),
            lambda: angelos.proposals(repo="\udcff"),
            lambda: angelos.submit(SubmitTask(code="\udcff")),
        ):
            with pytest.raises(errors.InvalidInput, match="not Unicode"):
                await ask()
        with pytest.raises(errors.TooLarge):
            await angelos.submit(SubmitTask(code="#" * 17_000_000))
