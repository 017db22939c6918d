"""Repositories that come from git with their history: kept to the byte, or refused by name."""

from __future__ import annotations

import json
import shutil
import zlib

import pytest

from angelos.angelgit.git import packs
from angelos.angelgit.git.serving import pkt_line
from angelos.angelgit.git_server import GitServer
from angelos.core.branches import branch_name
from angelos.core.errors import Conflict, InvalidInput, NotFound, Refused, TooLarge
from angelos.core.permissions import Principal, Role
from angelos.core.repository import NewText

from .conftest import ADA, EVE
from .test_git_out import Git

LATIN = "naïve\n".encode("latin-1")
PICTURE = b"\x89PNG\r\n\x1a\n\0\xff"


@pytest.fixture
def source(tmp_path):
    """A git repository, to be filled; the program in it."""
    folder = tmp_path / "source"
    folder.mkdir()
    program = Git(folder, tmp_path / "home")
    program("init", "-q", "-b", "master")
    return program


def commit(program, message, **files):
    for name, body in files.items():
        path = program.folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    program("add", "-A")
    program("commit", "-q", "--allow-empty", "-m", message)
    return program.text("rev-parse", "HEAD")


def bundle(program, *what):
    file = program.folder.parent / "in.bundle"
    program("bundle", "create", "-q", str(file), *(what or ("--all",)))
    return file.read_bytes()


def fill(program):
    """Make a history with everything that git has."""
    first = commit(program, "first", a=b"one\ntwo\n", lat=LATIN, crlf=b"1\r\n2\r\n")
    (program.folder / "link").symlink_to("a")
    (program.folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (program.folder / "run.sh").chmod(0o755)
    commit(program, "kinds", picture=PICTURE, **{"ä__北": b"name\n", "n.ipynb": b"{}"})
    # What the head need not have: a name that is not UTF-8, a submodule.
    blob = program.text("hash-object", "-w", "a")
    program("update-index", "--index-info", stdin=f"100644 {blob}\t".encode() + b"n\xff\xfe\n")
    program("update-index", "--add", "--cacheinfo", f"160000,{first},sub")
    program("commit", "-q", "-m", "odd things")
    program("rm", "-q", "--cached", "sub", "n.ipynb")
    program("update-index", "--index-info", stdin=f"0 {'0' * 40}\t".encode() + b"n\xff\xfe\n")
    (program.folder / "n.ipynb").unlink()
    program("-c", "i18n.commitEncoding=latin1", "commit", "-q", "-F", "-", stdin=LATIN)
    program("checkout", "-q", "-b", "topic/x", first)
    commit(program, "on a branch", b=b"branch\n", a=b"one\nTWO\n")
    program("tag", "light")
    program("checkout", "-q", "master")
    program("merge", "-q", "--no-ff", "-m", "merge\n\nof two", "topic/x")
    program("tag", "-a", "v1", "-m", "annotated")
    program("notes", "add", "-m", "a note")
    program("branch", "dev", first)


async def test_a_history_comes_in_and_goes_out_the_same(git, source, tmp_path):
    fill(source)
    data = bundle(source)
    imported = await git.import_history("study", data, EVE)
    head = source.text("rev-parse", "HEAD")
    assert imported.head == head
    assert imported.renamed == {b"refs/heads/dev": b"refs/heads/imported/dev"}
    out = tmp_path / "out.bundle"
    out.write_bytes(await git.git.bundle("study"))
    target = tmp_path / "target"
    program = Git(tmp_path, tmp_path / "home")
    program("clone", "-q", "--mirror", str(out), str(target))
    program = Git(target, tmp_path / "home")
    refs = dict(line.split(" ")[::-1] for line in program.text("show-ref").splitlines())
    expected = dict(line.split(" ")[::-1] for line in source.text("show-ref").splitlines())
    expected["refs/heads/main"] = expected.pop("refs/heads/master")
    expected["refs/heads/imported/dev"] = expected["refs/heads/dev"]
    expected["refs/heads/dev"] = head
    assert refs == expected
    found = [p("fsck", "--strict") + p.error.encode() for p in (source, program)]
    assert found[0] == found[1]
    tree = {e.path: e for e in await git.tree("study", await git.head("study", "main"))}
    assert {path: oct(e.mode) for path, e in tree.items()} == {
        "a": "0o100644", "b": "0o100644", "crlf": "0o100644", "lat": "0o100644",
        "link": "0o120000", "picture": "0o100644", "run.sh": "0o100755", "ä/北": "0o100644",
    }  # fmt: skip
    main = await git.head("study", "main")
    for path, body in {"lat": LATIN, "picture": PICTURE, "crlf": b"1\r\n2\r\n"}.items():
        assert await git.read("study", main, path) == body
    assert await git.read_live("study", "ä/北") == b"name\n"
    await grows_on(git, program, out, head)
    await read_back(git, source)


async def grows_on(git, program, out, head):
    """A new revision is a signed git commit on top of what came in."""
    main = await git.head("study", "main")
    branch = await git.create_branch("study", branch_name("ada/x"), main, ADA)
    edit = NewText(path="a", text="one\nmore\n")
    await git.commit_edits("study", branch.name, main, [edit], ADA, "More")
    out.write_bytes(await git.git.bundle("study"))
    program("fetch", "-q", str(out), "refs/heads/ada/x:refs/heads/ada/x")
    assert program.text("rev-parse", "ada/x^") == head
    changed = program.text("diff", "--stat", "--name-only", head, "ada/x")
    assert changed == "a"
    with pytest.raises(Conflict):  # a file of git's would be a folder
        await git.create_branch("study", branch_name("topic"), main, ADA)


async def read_back(git, source):
    """History, blame and differences go on into what only git has."""
    page = await git.log("study", "main", limit=3)
    assert [c.message.splitlines()[0] for c in page.commits] == ["merge", "naïve", "odd things"]
    assert page.commits[0].authors == ("Ada <ada@example.org>",)
    rest = await git.log("study", "main", after=page.next)
    assert [c.message.strip() for c in rest.commits] == ["kinds", "first"]
    only = await git.log("study", "main", path="crlf")
    assert [c.message.strip() for c in only.commits] == ["first"]
    view = await git.blame("study", "main", "a")
    commits = {c.id: c.message.strip() for c in view.commits}
    assert [(commits[g.commit], *g.lines) for g in view.groups] == [
        ("first", "one\n"),
        ("on a branch", "TWO\n"),
    ]
    tag = source.text("rev-parse", "light")
    assert await git.resolve("study", "light") == tag
    page = await git.diff("study", "main~4", "main")
    assert {"a", "b", "picture", "link"} <= {c.path for c in page.changes}
    (change,) = (await git.diff("study", "light~1", "light", path="a")).changes
    assert "+TWO" in change.diff
    with pytest.raises(NotFound):
        await git.log("study", "f" * 40)


async def test_notebooks_are_written_in_one_form_by_a_second_revision(git, source):
    cell = {"cell_type": "code", "id": "x", "metadata": {}, "outputs": [], "source": ["a\n", "b"],
            "execution_count": None}  # fmt: skip
    book = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}
    head = commit(source, "book", **{"n.ipynb": json.dumps(book, indent=3).encode()})
    await git.import_history("study", bundle(source), EVE)
    page = await git.log("study", "main")
    assert [c.git or c.message for c in page.commits[1:]] == [head]
    body = await git.read("study", await git.resolve("study", "main"), "n.ipynb")
    assert json.loads(body)["cells"][0]["source"] == ["a\n", "b"]
    assert (await git.read_live("study", "n.ipynb")) == body
    view = await git.git.view("study")
    assert view.cache.read(view.refs[b"refs/heads/main"]).body.count(head.encode()) == 1


async def test_what_cannot_be_kept_is_refused_by_name(git, source, tmp_path):
    first = commit(source, "good", a=b"1\n")
    blob = source.text("hash-object", "-w", "a")
    link = source("hash-object", "-w", "--stdin", stdin=b"/etc/passwd").decode().strip()
    source("update-index", "--index-info", stdin=f"100644 {blob}\t".encode() + b"n\xff\n")
    source("update-index", "--add", "--cacheinfo", f"160000,{first},sub/module")
    source("update-index", "--add", "--cacheinfo", f"120000,{link},out")
    source("commit", "-q", "-m", "bad")
    with pytest.raises(Refused) as caught:
        await git.import_history("study", bundle(source), EVE)
    for name in ("n\\xff (not UTF-8)", "sub/module (a submodule)", "out ("):
        assert name in caught.value.detail
    assert await git.repos() == []
    source("reset", "-q", "--hard", first)
    (source.folder / "angelos.toml").write_bytes(b"x")
    whole = bundle(source, "master")
    assert (await git.import_history("study", whole, EVE)).head == first
    with pytest.raises(Conflict):
        await git.import_history("Study", whole, EVE)


async def test_what_is_no_whole_history_is_refused(git, source, tmp_path):
    commit(source, "1", a=b"1\n")
    second = commit(source, "2", a=b"2\n")
    for bad in (b"", b"# v2 git bundle\n\n", bundle(source)[:-30], b"PACK" + bytes(40)):
        with pytest.raises((InvalidInput, Refused)):
            await git.import_history("study", bad, EVE)
    data = bytearray(bundle(source))
    data[-25] ^= 255
    with pytest.raises(InvalidInput):
        await git.import_history("study", bytes(data), EVE)
    with pytest.raises(Refused, match="not whole"):
        await git.import_history("study", bundle(source, "master", "^master~1"), EVE)
    shallow = tmp_path / "shallow"
    Git(tmp_path, tmp_path / "home")(
        "clone", "-q", "--depth", "1", f"file://{source.folder}", str(shallow)
    )
    program = Git(shallow, tmp_path / "home")
    with pytest.raises((InvalidInput, Refused)):
        await git.import_history("study", bundle(program), EVE)
    assert second
    assert await git.repos() == []
    shutil.rmtree(shallow)


def test_a_small_pack_that_becomes_large_is_refused(monkeypatch):
    size = 3_000_000
    head = bytes([0x80 | 0x30 | (size & 15)])
    rest = size >> 4
    while rest:
        head += bytes([(rest & 127) | (128 if rest > 127 else 0)])
        rest >>= 7
    pack = b"PACK" + (2).to_bytes(4, "big") + (1).to_bytes(4, "big")
    pack += head + zlib.compress(bytes(size)) + bytes(20)
    assert packs.check_pack(memoryview(pack)) == 1
    monkeypatch.setattr(packs, "MAX_OBJECT_BYTES", 1_000_000)
    with pytest.raises(TooLarge):
        packs.check_pack(memoryview(pack))
    lying = pack.replace(head, bytes([0x30 | 1]), 1)
    with pytest.raises(InvalidInput):
        packs.check_pack(memoryview(lying))


async def test_a_branch_that_moves_while_it_is_pushed_is_not_written_over(git, source, monkeypatch):
    """What the push was compared with is what it may replace, not what is there a moment later."""
    tip = commit(source, "first", a=b"one\n")
    await git.import_history("pushed", bundle(source), ADA)
    name, ref = branch_name("ada/x"), b"refs/heads/ada/x"
    main = await git.head("pushed", "main")
    await git.create_branch("pushed", name, main, ADA)
    server = GitServer(git, lambda _: pytest.fail("nothing is proposed"))
    adopt = git.adopt

    async def slow_adopt(*args):
        moved = [NewText(path="b", text="meanwhile\n")]
        await git.commit_edits("pushed", name, main, moved, ADA, "meanwhile")
        return await adopt(*args)

    monkeypatch.setattr(git, "adopt", slow_adopt)
    async with git.git.lock("pushed"):
        before = (await git.git.view("pushed")).refs[ref]
    push = pkt_line(b"%s %s %s\0" % (before.encode(), tip.encode(), ref)) + b"0000"
    answer = await server.receive("pushed", push, Principal(id=ADA, role=Role.researcher))
    assert b"ng " + ref in answer
    assert (await git.branch("pushed", name)).revision != main


async def test_what_was_pushed_is_whole_whatever_is_collected_below_it(git, base, clock, tmp_path):
    """Several commits on a branch that is deleted, and that branch itself pushed once more."""
    name, ref = branch_name("ada/x"), b"refs/heads/ada/x"
    await git.create_branch("study", name, base, ADA)
    edit = [NewText(path="a.txt", text="only here\n")]
    below = await git.commit_edits("study", name, base, edit, ADA, "below")
    folder = tmp_path / "clone"
    folder.mkdir()
    program = Git(folder, tmp_path / "home")

    async def fetched():
        git.git.close()
        shutil.rmtree(tmp_path / "git", ignore_errors=True)  # as of another server
        file = tmp_path / "out.bundle"
        file.write_bytes(await git.git.bundle("study"))
        shutil.rmtree(folder)
        Git(tmp_path, tmp_path / "home")("clone", "-q", "--mirror", str(file), str(folder))
        program("fsck", "--strict", "--no-dangling")

    async def push(ref, tip):
        pack = program("pack-objects", "-q", "--stdout", "--revs", stdin=b"%s\n^main\n" % tip)
        command = pkt_line(b"%s %s %s\0" % (b"0" * 40, tip, ref)) + b"0000"
        server = GitServer(git, lambda _: pytest.fail("nothing is proposed"))
        answer = await server.receive(
            "study", command + pack, Principal(id=ADA, role=Role.researcher)
        )
        assert b"ok " + ref in answer

    async def collected(revision):
        await git.delete_branch("study", name, revision, ADA)
        clock.advance(10)
        return (await git.collect("study", 5, dry_run=False)).commits

    await fetched()
    tip = program.text("rev-parse", "ada/x").encode()
    assert await collected(below) == 1
    await push(ref, tip)
    await fetched()
    again = await git.head("study", name)
    # Pushed again it lies in a pack; so make another that does not.
    second = await git.commit_edits(
        "study", name, again, [NewText(path="a.txt", text="2\n")], ADA, "2"
    )
    await fetched()
    tree, tip = program.text("rev-parse", "main^{tree}"), program.text("rev-parse", "ada/x")
    for message in ("middle", "top"):
        tip = program.text("commit-tree", tree, "-p", tip, "-m", message)
    await push(b"refs/heads/ada/y", tip.encode())
    await collected(second)
    await fetched()
    assert program.text("log", "--format=%s", "ada/y").split("\n")[:3] == ["top", "middle", "2"]
