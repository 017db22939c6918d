"""Repositories: each call of a handle asks its own route, and names stay one segment."""

from __future__ import annotations

import msgspec
import pytest

from angelos.core import errors
from angelos.core.repository import Change
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]

A, B = "a" * 64, "b" * 64
VIEW = msgspec.json.encode({"name": "study", "dev": A, "main": B})


async def test_a_repository_is_created_from_files(world, angelos):
    world.answers["POST /repos"] = (201, VIEW)
    world.answers["GET /repos/study"] = (200, VIEW)
    study = await angelos.repos.create("study", {"a.txt": "one\n"}, "first")
    assert world.body() == {"name": "study", "files": {"a.txt": "one\n"}, "message": "first"}
    assert study.name == "study"
    view = await study.view()
    assert (view.dev, view.main) == (A, B)


async def test_a_handle_needs_no_request(world, angelos):
    assert angelos.repos["study"].name == "study"
    assert world.sent() == []


async def test_files_are_read_at_a_revision_and_live(world, angelos):
    world.answers["GET /repos/study/revisions/main/file"] = (200, b"on main")
    world.answers[f"GET /repos/study/revisions/{A}/file"] = (200, b"of old")
    world.answers["GET /repos/study/live"] = (200, b"typed")
    study = angelos.repos["study"]
    assert await study.read("x/a b.txt") == b"on main"
    assert await study.read("x/a b.txt", A) == b"of old"
    assert await study.read_live("x/a b.txt") == b"typed"
    assert {query for _, query, *_ in world.requests} == {"path=x%2Fa+b.txt"}


async def test_names_cannot_leave_their_segment(world, angelos):
    world.answers["GET /repos/..%2Fx/revisions/a%2Fb/file"] = (200, b"")
    await angelos.repos["../x"].read("p", "a/b")
    assert world.sent() == ["GET /repos/..%2Fx/revisions/a%2Fb/file?path=p"]


async def test_history_and_differences(world, angelos):
    world.answers["GET /repos/study/log"] = (200, msgspec.json.encode({"revisions": [B, A]}))
    change = Change(path="a.txt", before=None, after=A)
    world.answers["GET /repos/study/diff"] = (200, msgspec.json.encode({"changes": [change]}))
    study = angelos.repos["study"]
    assert await study.log("dev", limit=2) == (B, A)
    assert await study.diff(A, "main") == (change,)
    assert world.sent() == [
        "GET /repos/study/log?branch=dev&limit=2",
        f"GET /repos/study/diff?before={A}&after=main",
    ]


async def test_a_rollback_returns_the_new_main(world, angelos):
    world.answers["POST /repos/study/rollback"] = (200, msgspec.json.encode({"revision": B}))
    assert await angelos.repos["study"].rollback(A, "It was wrong.") == B
    assert world.body() == {"to": A, "reason": "It was wrong."}


DEEP = b"\x81\xa1x" + b"\x91" * 100_000 + b"\x01"


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x81\xa1a\x01", DEEP], ids=["", "c1", "a", "deep"])
async def test_a_bundle_of_another_shape_is_the_servers_fault(world, angelos, raw):
    world.answers["GET /repos/study/revisions/main/bundle"] = (200, raw)
    with pytest.raises(errors.Unavailable, match="something else"):
        await angelos.repos["study"].bundle()


async def test_repositories_are_listed(world, angelos):
    world.answers["GET /repos"] = (200, b'{"repos": [' + VIEW + b"]}")
    assert [view.name for view in await angelos.repos.list()] == ["study"]
