"""A person types into a managed document through the room's own WebSocket."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

from angelos.client.rooms import RoomClient
from angelos.core.errors import NotFound, Unavailable
from angelos.testing import eventually


def room(served, path, token="t-owner", timeout=30) -> RoomClient:
    return RoomClient(served.url, token, path, timeout)


async def merge(served, path) -> dict:
    """Let the server merge `agent-` into the beginning of a document, as a proposal would."""
    name = path.partition("/")[2]
    answer = await served.ask(f"/angelos/api/prepend?path={name}&text=agent-", method="POST")
    return json.loads(answer.body)


async def test_what_is_typed_is_in_the_log_when_insert_returns(served, path):
    async with room(served, path) as person:
        assert person.text == "one\ntwo\n"
        await person.insert(4, "wä ")
        assert served.logged(path) == "one\nwä two\n"
        await person.insert(7, "x")
        assert served.logged(path) == "one\nwä xtwo\n"
    await eventually(lambda: (served.workspace / path).read_text() == "one\nwä xtwo\n")


async def test_two_people_type_at_once_and_see_each_other(served, path):
    async with room(served, path) as one, room(served, path, "t-researcher") as two:

        async def type_all(person, letter):
            for _ in range(20):
                await person.insert(0, letter)

        await asyncio.gather(type_all(one, "a"), type_all(two, "b"))
        await one.wait_for(lambda text: len(text) == 48)
        await two.wait_for(lambda text: text == one.text)
        assert (one.text.count("a"), one.text.count("b")) == (20, 20)
        assert served.logged(path) == one.text


async def test_a_merge_appears_in_the_open_room_and_is_logged_once(served, path):
    async with room(served, path) as person:
        await person.insert(0, "x")
        before = len(served.updates(path))
        assert await merge(served, path) == {"open": True}
        await person.wait_for(lambda text: text.startswith("agent-"))
        assert sum(b"agent-" in update for update in served.updates(path)[before:]) == 1
        await person.insert(0, "y")
        assert served.logged(path) == "yagent-xone\ntwo\n" == person.text


async def test_a_merge_into_a_closed_document_says_that_nobody_has_it_open(served, path):
    assert await merge(served, path) == {"open": False}
    async with room(served, path) as person:
        assert person.text == "agent-one\ntwo\n"


async def test_a_restart_doubles_nothing(served, path):
    for number in range(2):
        async with room(served, path) as person:
            await person.insert(0, str(number))
        assert served.end() == 0
        served.start()
    async with room(served, path) as person:
        assert person.text == "10one\ntwo\n"


async def test_kill_9_loses_nothing_that_was_acknowledged(served, path):
    async with room(served, path) as person:
        for number in range(10):
            await person.insert(0, str(number))
        served.end(signal.SIGKILL)
    (served.workspace / path).write_text("an older print of the file\n")
    served.start()
    async with room(served, path) as person:
        assert person.text == "9876543210one\ntwo\n"
    await eventually(lambda: (served.workspace / path).read_text() == "9876543210one\ntwo\n")


async def test_the_room_is_reopened_after_everybody_left(served, path):
    deleted = served.said().count("Deleting Y document")
    async with room(served, path) as person:
        await person.insert(0, "a")
    await eventually(lambda: served.said().count("Deleting Y document") > deleted)
    async with room(served, path) as person:
        assert person.text == "aone\ntwo\n"
        await person.insert(0, "b")
    assert served.logged(path) == "baone\ntwo\n"


async def test_a_viewer_sees_but_what_they_type_is_not_taken_and_they_are_told(served, path):
    async with room(served, path) as owner, room(served, path, "t-viewer") as viewer:
        await owner.insert(0, "a")
        await viewer.wait_for(lambda text: "a" in text)
        with pytest.raises(Unavailable, match="You may only read here"):
            await viewer.insert(0, "nonsense ")
        assert owner.text == "aone\ntwo\n" == served.logged(path)


async def test_ordinary_files_keep_jupyters_own_room(served):
    path = served.document("scratch.md", "mine\n")
    async with room(served, path) as person:
        await person.insert(0, "still ")
        await eventually(lambda: (served.workspace / path).read_text() == "still mine\n")
    assert served.updates(path) == []
    assert (served.folder / "jupyter" / "ystore.db").is_file()


async def test_strangers_and_pages_of_other_origins_get_no_room(served, path):
    for token, headers in (("wrong", {}), (None, {"Origin": "http://evil.example"})):
        answer = await served.ask(
            "/api/collaboration/room/text:file:x", token,
            headers={"Upgrade": "websocket", "Connection": "Upgrade", **headers},
        )  # fmt: skip
        assert answer.code == 403
    with pytest.raises(Unavailable):
        async with room(served, path, "wrong"):
            pass


async def test_a_managed_document_has_one_form_only(served, path):
    session = await served.ask(
        f"/api/collaboration/session/{path}", method="PUT",
        json={"format": "json", "type": "notebook"},
    )  # fmt: skip
    known = json.loads(session.body)
    answer = await served.ask(f"/api/collaboration/room/json:notebook:{known['fileId']}")
    assert answer.code == 409


async def test_a_file_that_cannot_be_opened_brings_no_other_room_down(served, path):
    async with room(served, path) as person:
        for _ in range(5):
            with pytest.raises(NotFound):
                async with room(served, "study/gone.md"):
                    pass
            await person.insert(0, "x")
        assert served.logged(path) == "xxxxxone\ntwo\n"


async def test_a_document_that_is_not_there_is_named(served):
    with pytest.raises(NotFound, match=r"missing\.md"):
        async with room(served, "study/missing.md"):
            pass
