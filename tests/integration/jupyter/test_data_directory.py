"""A data directory below Jupyter's root: its keys and tokens are an admin's alone to read."""

from __future__ import annotations

import json

import pytest

UPGRADE = {
    "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "eHh4eHh4eHh4eHh4eHh4eA==",
}  # fmt: skip


@pytest.mark.parametrize("token", ["t-viewer", "t-researcher"])
@pytest.mark.parametrize(
    "path",
    [
        "/api/contents/data/system.json",
        "/api/contents/data",
        "/files/data/system.json",
        "/api/contents/data/workspace/../system.json",
        "/api/contents/link/system.json",
        "/view/data/system.json",
        "/nbconvert/html/data/system.json",
        "/api/contents/data/system.json/checkpoints",
    ],
)
async def test_only_an_admin_reads_the_data_directory(above, path, token):
    answer = await above.ask(path, token)
    assert answer.code == (403 if "nbconvert" in path and token == "t-viewer" else 404)
    assert b"secret-of-the-owner" not in answer.body


async def test_no_room_is_opened_on_the_systems_own_files(above):
    session = await above.ask(
        "/api/collaboration/session/data/system.json", method="PUT",
        json={"format": "text", "type": "file"},
    )  # fmt: skip
    room = f"/api/collaboration/room/text:file:{json.loads(session.body)['fileId']}"
    assert (await above.ask(room, "t-viewer", headers=UPGRADE)).code == 404


async def test_the_workspace_is_read_and_an_admin_reads_all(above):
    path = above.document("notes.md")
    answer = await above.ask(f"/api/contents/data/workspace/{path}", "t-viewer")
    assert json.loads(answer.body)["content"] == "one\ntwo\n"
    assert (await above.ask("/api/contents/data/system.json")).code == 200


@pytest.mark.parametrize("method", ["DELETE", "PATCH"])
async def test_nobody_moves_or_deletes_what_holds_the_workspace(above, method):
    body = {"json": {"path": "elsewhere"}} if method == "PATCH" else {}
    above.document("kept.md")
    assert (await above.ask("/api/contents/data", method=method, **body)).code == 409
    assert (above.workspace / "study" / "kept.md").is_file()
