"""The same promises with everything real: `angelos up`, AngelGit's log, PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from base64 import b64encode
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient

from angelos.adapters.host.datadir import DataDir
from angelos.client import Angelos
from angelos.client.rooms import RoomClient
from angelos.core.errors import Unavailable
from angelos.core.permissions import Role
from angelos.core.repository import NewText
from angelos.testing import eventually

pytestmark = pytest.mark.slow
NOTEBOOK = {
    "cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip


@asynccontextmanager
async def system(data_dir):
    """A running system; yields (client, the process of `angelos up`)."""
    env = {**os.environ, "HOME": str(data_dir.parent)}
    with (data_dir.parent / "up.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "angelos", "up", "--json", "--data-dir", str(data_dir),
            stdout=asyncio.subprocess.PIPE, stderr=log, env=env,
        )  # fmt: skip
        try:
            async with asyncio.timeout(100):
                said = []
                async for line in process.stdout:
                    said.append(line.decode())
                    if json.loads(line).get("event") == "ready":
                        break
                else:
                    raise AssertionError(said)
            async with Angelos.connect(data_dir) as angelos:
                yield angelos, process
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 40)


def room(data_dir, path) -> RoomClient:
    running = DataDir(data_dir).system()
    return RoomClient(running.url, running.token, path)


async def gone(pids) -> None:
    """Wait until init has taken the dead away: PostgreSQL takes a zombie for a living server."""
    await eventually(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "gone", within_s=60
    )


async def accept(proposal) -> None:
    await proposal.accept((await proposal.view()).digest)


async def live(angelos, path) -> str:
    return (await angelos.repos["study"].read_live(path)).decode()


async def test_a_person_and_a_proposal_in_one_document_over_restarts_and_kills(tmp_path):
    data = tmp_path / "data"
    files = {"notes.md": "one\ntwo\nthree\n", "b.ipynb": json.dumps(NOTEBOOK)}
    async with system(data) as (angelos, _):
        await angelos.repos.create("study", files)
        async with room(data, "study/notes.md") as person:
            await person.insert(0, "typed ")
            assert await live(angelos, "notes.md") == "typed one\ntwo\nthree\n"
            edit = NewText(path="notes.md", text="one\ntwo\nthree, by a proposal\n")
            proposal = await angelos.repos["study"].propose([edit], base="main", message="three")
            await accept(proposal)
            await person.wait_for(lambda text: text.endswith("three, by a proposal\n"))
            await person.insert(6, "on ")
            both = "typed on one\ntwo\nthree, by a proposal\n"
            assert person.text == both == await live(angelos, "notes.md")
    async with system(data) as (angelos, _):  # an orderly restart
        assert await live(angelos, "notes.md") == both
        async with room(data, "study/notes.md") as person:
            assert person.text == both
            for letter in "cba":
                await person.insert(0, letter)
            server = next(p for p in DataDir(data).processes() if p.name == "server")
            os.kill(server.pid, signal.SIGKILL)
            with pytest.raises((Unavailable, TimeoutError)):
                await person.wait_for(lambda text: text == "never")
    async with system(data) as (angelos, up):
        assert await live(angelos, "notes.md") == f"abc{both}"
        async with room(data, "study/notes.md") as person:
            assert person.text == f"abc{both}"
            await person.insert(0, "z")
            killed = [process.pid for process in DataDir(data).processes()]  # the stores too
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            up.kill()
            await up.wait()
            await gone(killed)
    async with system(data) as (angelos, _), room(data, "study/notes.md") as person:
        assert person.text == f"zabc{both}" == await live(angelos, "notes.md")


async def test_a_file_changed_on_disk_is_an_edit_and_never_overwritten(tmp_path):
    data = tmp_path / "data"
    notes = data / "workspace/study/notes.md"
    text = "".join(f"line {number}\n" for number in range(1, 10))
    async with system(data) as (angelos, _):
        await angelos.repos.create("study", {"notes.md": text})
        assert notes.read_text() == text
        async with room(data, "study/notes.md") as person:
            await person.insert(0, "typed ")
            await eventually(lambda: notes.read_text() == f"typed {text}", within_s=20)
            # Another program, while somebody has the document open and goes on typing.
            notes.write_text(notes.read_text().replace("line 5\n", "line 5, by an editor\n"))
            await person.insert(6, "on ")
            both = await person.wait_for(lambda text: "by an editor" in text)
            assert both == "typed on " + text.replace("line 5\n", "line 5, by an editor\n")
            await eventually(lambda: notes.read_text() == both, within_s=20)
            assert await live(angelos, "notes.md") == both
            # The same line on both sides: neither is lost.
            shell = both.replace("line 9\n", "line 9, in a shell\n")
            notes.write_text(shell)
            await person.insert(person.text.index("line 9"), "my ")
            mine = both.replace("line 9\n", "my line 9\n")
            await eventually(lambda: list(notes.parent.glob("notes.disk-*.md")), within_s=20)
            (kept,) = notes.parent.glob("notes.disk-*.md")
            assert kept.read_text() == shell
            await eventually(lambda: notes.read_text() == mine == person.text, within_s=20)
    notes.write_text(mine + "while it was down\n")
    async with system(data) as (angelos, _), room(data, "study/notes.md") as person:
        assert person.text == mine + "while it was down\n" == await live(angelos, "notes.md")
        assert notes.read_text() == person.text
        now = person.text
    async with system(data) as (angelos, _):  # a proposal, while nobody has the document open
        notes.write_text(now.replace("line 2\n", "line 2, by a script\n"))
        edit = NewText(path="notes.md", text=text.replace("line 8\n", "line 8, proposed\n"))
        await accept(await angelos.repos["study"].propose([edit], base="main", message="eight"))
        both = now.replace("line 2\n", "line 2, by a script\n")
        both = both.replace("line 8\n", "line 8, proposed\n")
        await eventually(lambda: notes.read_text() == both, within_s=30)
        assert await live(angelos, "notes.md") == both


async def test_files_made_moved_and_deleted_in_the_browser_are_edits_of_dev(tmp_path):
    async with system(tmp_path / "data") as (angelos, _):
        study = await angelos.repos.create("study", {"notes.md": "one\n", "d/x.py": "x = 1\n"})
        running = DataDir(tmp_path / "data").system()
        rosa = await angelos.people.add("rosa", Role.researcher)

        async def ask(method, path, code, /, token=rosa.token, **body):
            answer = await AsyncHTTPClient().fetch(
                f"{running.url}/api/contents/{path}", method=method, raise_error=False,
                headers={"Authorization": f"token {token}"}, allow_nonstandard_methods=True,
                body=json.dumps(body) if body else None,
            )  # fmt: skip
            assert answer.code == code, (method, path, answer.body)
            return json.loads(answer.body) if answer.body else {}

        async def dev():
            view = await study.revision("dev")
            return {entry.path for entry in view.files}

        made = await ask("POST", "study", 201, type="notebook")
        assert made["path"] == "study/Untitled.ipynb"
        text = {"type": "file", "format": "base64", "content": b64encode(b"typed\n").decode()}
        await ask("PUT", "study/new.txt", 201, **text)
        assert await dev() == {"notes.md", "d/x.py", "Untitled.ipynb", "new.txt"}
        head = await study.revision("dev")
        assert (head.author, head.message) == (rosa.id, "Add new.txt")
        async with room(tmp_path / "data", "study/new.txt") as person:
            assert person.text == "typed\n"
            await person.insert(0, "more ")
            await ask("PATCH", "study/new.txt", 200, path="study/d/moved.txt")
            assert await live(angelos, "d/moved.txt") == "more typed\n"
        workspace = tmp_path / "data" / "workspace" / "study"
        await eventually(lambda: (workspace / "d/moved.txt").read_text() == "more typed\n")
        assert not (workspace / "new.txt").exists()
        await ask("PATCH", "study/d", 200, path="study/e")
        assert await dev() == {"notes.md", "Untitled.ipynb", "e/moved.txt", "e/x.py"}
        assert not (workspace / "d").exists()
        # Binary content is a blob, in pieces as it was uploaded.
        body = bytes(range(256)) * 8
        for chunk, part in ((1, body[:1000]), (-1, body[1000:])):
            upload = {**text, "content": b64encode(part).decode(), "chunk": chunk}
            await ask("PUT", "study/pic.png", 201 if chunk == 1 else 200, **upload)
        entry = next(e for e in (await study.revision("dev")).files if e.path == "pic.png")
        assert (entry.size, entry.sha256) == (len(body), sha256(body).hexdigest())
        assert await study.read("pic.png", "dev") == body
        await ask("PATCH", "study/pic.png", 200, path="study/pic2.png")
        assert (workspace / "pic2.png").read_bytes() == body
        assert not (workspace / "pic.png").exists()
        for path in ("pic2.png", "Untitled.ipynb", "e"):
            await ask("DELETE", f"study/{path}", 204)
            assert not (workspace / path).exists()
        assert await dev() == {"notes.md"}
        # What cannot be part of dev is refused, and nothing stays behind.
        await ask("PUT", "study/bad.ipynb", 400, **text)
        assert not (workspace / "bad.ipynb").exists()
        await ask("PATCH", "study/notes.md", 409, path="other.md")
        vera = await angelos.people.add("vera", Role.viewer)
        await ask("PUT", "study/hers.txt", 403, token=vera.token, **text)
        assert await dev() == {"notes.md"}
        # Hidden files and those outside of repositories are as before.
        await ask("PUT", "plain.txt", 201, **text)
        await ask("DELETE", "plain.txt", 204)
