"""Repositories: each call of a handle asks its own route, and names stay one segment."""

from __future__ import annotations

import msgspec
import pytest

from angelos.core import errors
from angelos.core.api import ProposalView
from angelos.core.history import (
    BlamedLines,
    BlameView,
    BranchPage,
    CommitSummary,
    DiffPage,
    FileDiff,
    HistoryPage,
)
from angelos.core.repository import BranchHead, NewText
from tests.unit.client.fake_server import angelos, world

__all__ = ["angelos", "world"]

A, B = "a" * 64, "b" * 64
PROPOSAL = msgspec.json.encode(
    ProposalView(
        id="prop-1",
        repo="study",
        base=A,
        author="person/ada",
        message="",
        digest="",
        state="waiting",
        reason="",
        changes=(),
    )
)
VIEW = msgspec.json.encode({"name": "study", "dev": A, "main": B})


async def test_a_repository_is_created_from_files(world, angelos):
    world.answers["POST /repos"] = (201, VIEW)
    world.answers["GET /repos/study"] = (200, VIEW)
    study = await angelos.repos.create(
        "study",
        {"a.txt": "one\n"},
        "first",
        blobs={"pic": b"\xff"},
        links={"b.txt": "a.txt"},
        executable=["pic"],
    )
    assert world.body() == {
        "name": "study",
        "files": {"a.txt": "one\n"},
        "message": "first",
        "blobs": {"pic": "/w=="},
        "links": {"b.txt": "a.txt"},
        "executable": ["pic"],
    }
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
    pages = [
        HistoryPage(commits=(commit(B),), next=B),
        HistoryPage(commits=(commit(A),)),
    ]
    world.answers["GET /repos/study/log"] = [(200, msgspec.json.encode(p)) for p in pages]
    change = FileDiff(path="a.txt", before=None, after=A)
    second = FileDiff(path="b.txt", before=A, after=None)
    pages = [
        DiffPage(before=A, after=B, changes=(change,), next="a.txt"),
        DiffPage(before=A, after=B, changes=(second,)),
    ]
    world.answers["GET /repos/study/diff"] = [(200, msgspec.json.encode(p)) for p in pages]
    study = angelos.repos["study"]
    assert [c.id async for c in study.history("dev", path="a b")] == [B, A]
    assert await study.diff("dev", "main") == (change, second)
    assert world.sent() == [
        "GET /repos/study/log?branch=dev&limit=200&path=a+b",
        f"GET /repos/study/log?branch=dev&limit=200&after={B}&path=a+b",
        "GET /repos/study/diff?before=dev&after=main",
        f"GET /repos/study/diff?before={A}&after={B}&beyond=a.txt",
    ]


def commit(revision):
    return CommitSummary(id=revision, parents=(), authors=("agent/ada",), message="why", at=1)


async def test_blame_comes_in_pages(world, angelos):
    group = BlamedLines(commit=A, start=1, path="a.txt", first=1, lines=("x",))
    view = BlameView(revision=B, path="a.txt", groups=(group,), commits=(commit(A),), next="1")
    pages = [view, msgspec.structs.replace(view, next="")]
    world.answers["GET /repos/study/blame"] = [(200, msgspec.json.encode(p)) for p in pages]
    blame = await angelos.repos["study"].blame("a.txt")
    assert (blame.groups, blame.commits) == ((group, group), (commit(A),))
    assert world.sent()[1] == f"GET /repos/study/blame?path=a.txt&revision={B}&after=1"


async def test_branches_are_made_moved_and_deleted(world, angelos):
    head = BranchHead(name="ada/x", revision=A, owner="person/ada")
    world.answers["POST /repos/study/branches"] = (201, msgspec.json.encode(head))
    world.answers["PUT /repos/study/branches"] = (200, msgspec.json.encode(head))
    pages = [BranchPage(branches=(head,), next="ada/x"), BranchPage(branches=())]
    world.answers["GET /repos/study/branches"] = [(200, msgspec.json.encode(p)) for p in pages]
    world.answers["DELETE /repos/study/branches"] = (200, b'{"branches": []}')
    study = angelos.repos["study"]
    assert await study.create_branch("ada/x", A) == head
    assert world.body() == {"name": "ada/x", "at": A}
    assert await study.branches() == (head,)
    assert await study.move_branch("ada/x", "main", expected=B) == head
    assert world.body() == {"name": "ada/x", "to": "main", "expected": B}
    await study.delete_branch("ada/x", expected=A)
    assert world.sent()[-1] == f"DELETE /repos/study/branches?name=ada%2Fx&expected={A}"


async def test_commits_are_made_and_picked(world, angelos):
    made = {"repo": "study", "branch": "ada/x", "revision": B, "author": "person/ada"}
    for route in ("commits", "commits/pick"):
        world.answers[f"POST /repos/study/{route}"] = (201, msgspec.json.encode(made))
    world.answers["POST /repos/study/cherry-pick"] = (202, PROPOSAL)
    study = angelos.repos["study"]
    edit = NewText(path="a.txt", text="x")
    assert (await study.commit("ada/x", [edit], expected=A, message="why")).revision == B
    assert world.body()["expected"] == A
    assert (await study.pick("abcd", "ada/x")).branch == "ada/x"
    assert (await study.cherry_pick("abcd")).id == "prop-1"
    assert world.body() == {"revision": "abcd"}


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
