"""The same promises with everything real: `angelos up`, AngelGit's log, PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from angelos.adapters.datadir import DataDir
from angelos.client import Angelos
from angelos.core.errors import Unavailable
from angelos.core.ports import NewText
from angelos.testing import eventually
from jupyter_ext.room_client import RoomClient

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
            sys.executable, "-m", "angelos.cli", "up", "--json", "--data-dir", str(data_dir),
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


async def live(angelos, path) -> str:
    return (await angelos.read_live("study", path)).decode()


async def test_a_person_and_a_proposal_in_one_document_over_restarts_and_kills(tmp_path):
    data = tmp_path / "data"
    files = {"notes.md": "one\ntwo\nthree\n", "b.ipynb": json.dumps(NOTEBOOK)}
    async with system(data) as (angelos, _):
        await angelos.create_repo("study", files)
        async with room(data, "study/notes.md") as person:
            await person.insert(0, "typed ")
            assert await live(angelos, "notes.md") == "typed one\ntwo\nthree\n"
            edit = NewText(path="notes.md", text="one\ntwo\nthree, by a proposal\n")
            await angelos.propose("study", "main", [edit], "three")
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
