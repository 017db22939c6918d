"""Revisions as git commits: `git` itself clones, checks and verifies them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from angelos.core.branches import branch_name
from angelos.core.ids import PrincipalId
from angelos.core.repository import NewText, SetMode

from .conftest import BOB, EVE, FILE, Room


class Git:
    """The git program with a home of its own, in one folder."""

    def __init__(self, folder, home):
        self.folder, self.home = folder, home
        home.mkdir(exist_ok=True)

    def __call__(self, *arguments, stdin=b"", fails=False):
        env = {
            "PATH": os.environ["PATH"], "HOME": str(self.home), "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@example.org",
            "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@example.org",
            "LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0",
        }  # fmt: skip
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=env, input=stdin, capture_output=True,
            check=False, timeout=120,
        )  # fmt: skip
        self.error = done.stderr.decode(errors="replace")
        assert bool(done.returncode) == fails, self.error
        return done.stdout

    def text(self, *arguments):
        return self(*arguments).decode().strip()


@pytest.fixture
def clone(git, tmp_path):
    """Clone a repository by its bundle; the program in the clone."""

    async def clone(repo="study"):
        file = tmp_path / "study.bundle"
        file.write_bytes(await git.git.bundle(repo))
        target = tmp_path / "clone"
        shutil.rmtree(target, ignore_errors=True)
        Git(tmp_path, tmp_path / "home")("clone", "-q", "--mirror", str(file), str(target / ".git"))
        program = Git(target, tmp_path / "home")
        program("config", "core.bare", "false")
        program("reset", "-q", "--hard")
        signers = tmp_path / "signers"
        signers.write_text(git.git.allowed_signers)
        program("config", "gpg.ssh.allowedSignersFile", str(signers))
        return program

    return clone


async def test_git_clones_verifies_and_finds_nothing_wrong(git, put, clone):
    names = {
        "ä/ö.txt": "ü\n".encode(),
        "b.d/x": b"1\n",
        "b/x": b"2\n",
        "b-x": b"",
        "crlf": b"1\r\n",
    }
    names |= {f"many/{i}.txt": f"{i}\n".encode() for i in range(200)}
    base = await git.create("study", {"a.txt": FILE.encode(), **names}, EVE, "import\n\nbody")
    await put(base, "a.txt", FILE + "by ada\n")
    branch = await git.create_branch("study", branch_name("bob/x"), base, BOB)
    edits = [NewText(path="run.sh", text="#!/bin/sh\n"), SetMode(path="a.txt", executable=True)]
    await git.commit_edits("study", branch.name, base, edits, BOB, "On a branch")
    program = await clone()
    assert program("fsck", "--strict", "--no-dangling") == b""
    assert program.error == ""
    assert (program.folder / "ä" / "ö.txt").read_text() == "ü\n"
    assert (program.folder / "crlf").read_bytes() == b"1\r\n"
    assert program("status", "--porcelain") == b""
    for name in ("main", "dev", "bob/x"):
        program("verify-commit", name)
    assert program.text("log", "-1", "--format=%an|%ae|%cn|%s", "dev") == (
        "ada|agent/ada@angelos|AngelOS|why"
    )
    body = program.text("log", "-1", "--format=%B", "dev")
    assert "AngelOS-Proposal: prop-" in body
    assert f"AngelOS-Revision: {await git.head('study', 'dev')}" in body
    assert program.text("ls-tree", "bob/x", "a.txt").startswith("100755 blob")
    # git computes the same trees from the files.
    program("checkout", "-q", "bob/x")
    program("add", "-A")
    assert program.text("write-tree") == program.text("rev-parse", "bob/x^{tree}")


async def test_a_forged_commit_is_not_accepted(base, clone):
    program = await clone()
    forged = program("cat-file", "commit", "main").replace(b"import", b"forged")
    name = program("hash-object", "-t", "commit", "-w", "--stdin", stdin=forged).decode().strip()
    program("verify-commit", name, fails=True)
    program("verify-commit", "main")


async def test_what_was_exported_stays_the_same(git, start, base, put, clone, tmp_path, key):
    program = await clone()
    first = program.text("rev-parse", "main")
    await put(base, "a.txt", FILE + "more\n")
    shutil.rmtree(tmp_path / "git")
    git.git.close()
    async with start() as other:  # its cache is empty
        view = await other.git.view("study")
        assert view.refs[b"refs/heads/main"] == first
        assert view.refs[b"refs/heads/dev"] != first
        assert view.cache.read(first).kind == "commit"


async def test_typed_by_several_has_all_as_authors(git, base, rooms, clone):
    room = await rooms.enter(git, "study", "a.txt")
    await room.type("line 3", "typed ")
    room = await Room(git, "study", "b/b.txt").enter()
    updates = []
    room.doc.observe(lambda event: updates.append(bytes(event.update)))
    room.text.insert(0, "ann was here\n")
    await git.ingest(room.document, updates[0], PrincipalId("person/ann"))
    await git._transactions.commit_typed("study")
    program = await clone()
    shown = program.text("log", "-1", "--format=%an|%(trailers:key=Co-authored-by)", "dev")
    assert shown == "ann|Co-authored-by: eve <person/eve@angelos>"


async def test_notes_name_who_wrote_the_lines_of_each_commit(git, base, put, tmp_path):
    proposal = await put(base, "a.txt", FILE.replace("line 5\n", "five\nmore\n"))
    file = tmp_path / "notes.bundle"
    file.write_bytes(await git.git.bundle("study", notes=True))
    Git(tmp_path, tmp_path / "home")("clone", "-q", "--mirror", str(file), "noted")
    program = Git(tmp_path / "noted", tmp_path / "home")
    assert program("fsck", "--strict") == b""
    text = program.text("notes", "--ref=ai", "show", "dev")
    attested, _, body = text.partition("\n---\n")
    path, row = attested.splitlines()
    author, ranges = row.split()
    assert (path, ranges) == ("a.txt", "5-6")
    prompt = json.loads(body)["prompts"][author]
    assert prompt["agent_id"] == {"tool": "angelos", "id": proposal, "model": ""}
    assert (prompt["total_additions"], prompt["total_deletions"]) == (2, 1)
    text = program.text("notes", "--ref=ai", "show", "main")
    assert json.loads(text.partition("\n---\n")[2])["humans"].popitem()[1] == {
        "author": "person/eve"
    }
    again = await git.git.bundle("study")
    assert b"refs/notes/ai" not in again.partition(b"\n\n")[0]
