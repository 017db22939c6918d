from __future__ import annotations

import asyncio

import msgspec
import pytest

from angelos.angelgit.routes import routes
from angelos.core.api import CreateRepo
from angelos.core.errors import Conflict, InvalidInput, NotFound
from angelos.core.permissions import Principal, Role
from angelos.core.revision import Bundle, KnownObjects, verify_bundle
from angelos.core.routes import Call, Nothing, parse_body, render

from .conftest import EVE, FILE


@pytest.fixture
def ask(git):
    table = {(r.method, r.path): r for r in routes(git)}

    async def ask(method, path, body=None, query=None, **params):
        route = table[method, path]
        who = Principal(id=EVE, role=Role.admin)
        call = Call(principal=who, params=params, query=query or {}, body=body or Nothing())
        answer = await route.handler(call)
        render(route, answer)
        return answer

    return ask


async def test_a_repository_through_the_api(ask, git, put, key):
    made = await ask("POST", "/repos", CreateRepo(name="study", files={"a.txt": FILE}))
    assert (await ask("GET", "/repos")).repos == (made,)
    assert await ask("GET", "/repos/{repo}", repo="study") == made
    await put(made.main, "a.txt", FILE + "more\n")
    one = "/repos/{repo}/revisions/{revision}"
    view = await ask("GET", one, repo="study", revision="dev")
    assert (view.author, view.parents) == ("agent/ada", (made.main,))
    query = {"path": "a.txt"}
    assert (
        await ask("GET", f"{one}/file", query=query, repo="study", revision="main") == FILE.encode()
    )
    live = await ask("GET", "/repos/{repo}/live", query=query, repo="study")
    assert live == (FILE + "more\n").encode()
    bundle = await ask("GET", f"{one}/bundle", repo="study", revision=view.revision)
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(bundle), type=Bundle)
    verified = verify_bundle(key.public, again, view.revision, KnownObjects())
    (digest,) = [entry.sha256 for entry in verified.entries if entry.path == "a.txt"]
    assert again.blobs[digest] == live
    diff = await ask(
        "GET", "/repos/{repo}/diff", query={"before": "main", "after": "dev"}, repo="study"
    )
    assert "+more" in diff.changes[0].diff
    log = await ask("GET", "/repos/{repo}/log", query={"branch": "dev", "limit": "1"}, repo="study")
    assert ([c.id for c in log.commits], log.next) == ([view.revision], view.revision)
    query = {"branch": "dev", "after": log.next}
    rest = await ask("GET", "/repos/{repo}/log", query=query, repo="study")
    assert ([c.id for c in rest.commits], rest.next) == ([made.main], "")


async def test_bad_questions_are_named(ask, git):
    await ask("POST", "/repos", CreateRepo(name="study", files={"a.txt": FILE}))
    one = "/repos/{repo}/revisions/{revision}"
    for query in (
        {"limit": "0"},
        {"limit": "\u0663"},
        {"limit": "9999"},
        {"limit": "9" * 5000},
    ):
        with pytest.raises(InvalidInput):
            await ask("GET", "/repos/{repo}/log", query=query, repo="study")
    with pytest.raises(InvalidInput, match="path"):
        await ask("GET", f"{one}/file", repo="study", revision="main")
    for revision in ("x", "0" * 64, "0000", "main~1", "~1", "main~", ""):
        with pytest.raises(NotFound):
            await ask("GET", one, repo="study", revision=revision)
        query = {"branch": revision or "x"}
        with pytest.raises(NotFound):
            await ask("GET", "/repos/{repo}/log", query=query, repo="study")
    with pytest.raises(NotFound):
        await ask("GET", "/repos/{repo}", repo="none")
    with pytest.raises(InvalidInput):
        await ask("POST", "/repos", CreateRepo(name="s", files={"a": "\ud800"}))


async def test_a_taken_name_is_refused_before_the_files_are_read(ask, monkeypatch):
    await ask("POST", "/repos", CreateRepo(name="study", files={"a.txt": FILE}))
    monkeypatch.setattr("angelos.angelgit.service.import_files", None)
    for name in ("study", "Study"):
        with pytest.raises(Conflict, match="repository study already"):
            await ask("POST", "/repos", CreateRepo(name=name, files={"a": "1"}))


async def test_names_that_differ_in_case_alone_cannot_be_added_together(ask):
    made = await asyncio.gather(
        *(ask("POST", "/repos", CreateRepo(name=n, files={"a": "1"})) for n in ("lab", "LAB")),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in made) == ["Conflict", "RepoView"]


def test_an_import_has_a_bounded_number_of_files(git):
    route = next(r for r in routes(git) if (r.method, r.path) == ("POST", "/repos"))
    files = {f"{i}.txt": "" for i in range(5_001)}
    with pytest.raises(InvalidInput, match="length <= 5000"):
        parse_body(route, msgspec.json.encode({"name": "s", "files": files}))


async def test_every_kind_of_file_comes_in_and_is_read_as_it_was(ask):
    body = CreateRepo(
        name="kinds",
        files={"run.sh": "#!/bin/sh\n", "crlf.txt": "one\r\n"},
        blobs={"pic.png": b"\x89PNG\0\xff", "tool": b"\x7fELF\xff"},
        links={"link": "run.sh"},
        executable=("run.sh", "tool"),
    )
    await ask("POST", "/repos", body)
    view = await ask("GET", "/repos/{repo}/revisions/{revision}", repo="kinds", revision="main")
    assert {entry.path: oct(entry.mode) for entry in view.files} == {
        "crlf.txt": "0o100644",
        "link": "0o120000",
        "pic.png": "0o100644",
        "run.sh": "0o100755",
        "tool": "0o100755",
    }
    for path, content in {**body.blobs, "crlf.txt": b"one\r\n", "link": b"run.sh"}.items():
        query = {"path": path}
        answer = await ask(
            "GET",
            "/repos/{repo}/revisions/{revision}/file",
            query=query,
            repo="kinds",
            revision="main",
        )
        assert answer == content
    page = await ask("GET", "/repos/{repo}/log", repo="kinds")
    assert page.revisions == (view.revision,)
    for wrong in (
        CreateRepo(name="w", files={"a": ""}, links={"a": "b"}),
        CreateRepo(name="w", files={}, links={"a": "../b"}),
        CreateRepo(name="w", files={}, links={"a": "b"}, executable=("a",)),
        CreateRepo(name="w", files={"a": ""}, executable=("b",)),
        CreateRepo(name="w", files={"a": ""}, blobs={"a/b": b"\xff"}),
    ):
        with pytest.raises(InvalidInput):
            await ask("POST", "/repos", wrong)
    assert [repo.name for repo in (await ask("GET", "/repos")).repos] == ["kinds"]
