"""`angelos backup` of a system at work, `angelos restore` beside it and after it was destroyed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from angelos.client import Angelos
from angelos.core.errors import AngelError
from angelos.testing import need
from tests.acceptance.up_process import alive, cli, running

STUDY = Path(__file__).parents[2] / "examples" / "my-study"


class Load:
    """Submits tasks from a thread for as long as the block lasts."""

    def __init__(self, data_dir):
        self.data_dir = data_dir
        self.acknowledged = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _run(self):
        import asyncio

        asyncio.run(self._submit())

    async def _submit(self):
        async with Angelos.connect(self.data_dir) as angelos:
            while not self._stop.wait(0.2):
                with contextlib.suppress(AngelError):
                    number = len(self.acknowledged)
                    self.acknowledged.append((await angelos.tasks.start(f"print({number})")).id)


async def branches(data_dir):
    async with Angelos.connect(data_dir) as angelos:
        return [(repo.name, repo.main, repo.dev) for repo in (await angelos.status()).repos]


async def output_of(data_dir, code):
    async with Angelos.connect(data_dir) as angelos:
        return (await angelos.tasks.run(code)).stdout


async def facts_of(data_dir, kind):
    async with Angelos.connect(data_dir) as angelos:
        return [e for e in await angelos.audit.entries(limit=1000) if e.fact["kind"] == kind]


def lines(data_dir, *args):
    done = cli(data_dir, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def has_all(data_dir, tasks):
    """Check that each of these tasks is there and ends well, with its own output."""
    async with Angelos.connect(data_dir) as angelos:
        for number, task in enumerate(tasks):
            result = await angelos.tasks[task].result()
            assert (result.status, result.stdout) == ("ok", f"{number}\n"), (number, result)


def refused(done, text, code=2):
    assert (done.returncode, text in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr


def a_backup_is_refused_where_it_would_not_help(data_dir, tmp_path):
    (tmp_path / "taken").write_text("mine")
    refused(cli(data_dir, "backup", str(tmp_path / "taken")), "exists")
    assert (tmp_path / "taken").read_text() == "mine"
    refused(cli(data_dir, "backup", str(data_dir / "workspace" / "b")), "within the data directory")
    refused(cli(tmp_path / "none", "backup", str(tmp_path / "b")), "holds no system")


def a_full_disk_is_named_and_nothing_is_left(data_dir, tmp_path):
    need(shutil.which("unshare"), "unshare (Debian's package util-linux)")
    place = tmp_path / "small"
    place.mkdir()
    angelos = f"{sys.executable} -m angelos"
    script = (
        f"mount -t tmpfs -o size=16k small {place} || exit 9; "
        f"{angelos} backup {place}/b --data-dir {data_dir}; code=$?; "
        f"ls -A {place}; exit $code"
    )
    options = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--mount", *options, "sh", "-c", script],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    need(done.returncode != 9, "mounting a tmpfs")
    refused(done, "No space left on device", code=1)
    assert done.stdout == ""


def restoring_is_refused_where_something_is(backup, tmp_path):
    taken = tmp_path / "taken-dir"
    taken.mkdir()
    (taken / "mine").write_text("mine")
    refused(restored(backup, taken), "not an empty directory")
    refused(restored(tmp_path / "none", tmp_path / "new"), "no file")
    (tmp_path / "cut").write_bytes(backup.read_bytes()[:-2000])
    refused(restored(tmp_path / "cut", tmp_path / "new"), "cut off")
    assert not (tmp_path / "new").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def a_backup_of_somebody_else_is_refused(backup, folder, info):
    other = "0" * 64
    refused(restored(backup, folder), info["key"], code=1)
    refused(restored(backup, folder, "--key", other), info["key"], code=1)
    refused(restored(backup, folder, "--sha256", other, "--key", info["key"]), info["sha256"], 1)
    refused(restored(backup, folder, "--key", "no key"), "not 64 hex digits")
    assert not folder.exists()


def restored(backup, folder, *options):
    argv = [sys.executable, "-m", "angelos", "restore", "--json", str(backup), str(folder)]
    return subprocess.run(
        [*argv, "--data-dir", str(folder.parent / "none"), *options],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
async def test_a_system_comes_back_from_its_backup(tmp_path):
    original, backup = tmp_path / "original", tmp_path / "backup"
    with running(original) as up:
        lines(original, "repo", "import", str(STUDY), "--name", "study")
        (original / "workspace" / "study" / "notes.md").write_text("typed meanwhile\n")
        with Load(original) as load:
            while len(load.acknowledged) < 5:
                load._stop.wait(0.05)
            before = list(load.acknowledged)
            info = json.loads(lines(original, "backup", str(backup), "--json"))
        assert info["paused_ms"] < 5_000
        heads = await branches(original)
        a_backup_is_refused_where_it_would_not_help(original, tmp_path)
        a_full_disk_is_named_and_nothing_is_left(original, tmp_path)
        restoring_is_refused_where_something_is(backup, tmp_path)
        beside = tmp_path / "beside"
        a_backup_of_somebody_else_is_refused(backup, beside, info)
        done = restored(backup, beside, "--key", info["key"])
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["contents"] > 5
        with running(beside) as copy:
            await has_all(beside, before)
            assert await branches(beside) == heads
            assert (beside / "workspace" / "study" / "notes.md").read_text() == "typed meanwhile\n"
            assert await output_of(beside, "print('copy')") == "copy\n"
            assert await output_of(original, "print('original')") == "original\n"
            apart(up, copy)
            lines(beside, "audit", "verify")
            assert len(await facts_of(beside, "system.restored")) == 1
        await has_all(original, load.acknowledged)
        destroy(up)
    done = restored(backup, original, "--sha256", info["sha256"])
    assert done.returncode == 0, done.stderr
    with running(original):
        await has_all(original, before)
        assert await branches(original) == heads
        lines(original, "audit", "verify")


def destroy(up):
    """Kill a system, and remove its directory."""
    pids = up.pids()
    up.process.send_signal(signal.SIGKILL)
    up.process.wait()
    until = time.monotonic() + 60
    while alive(pids):
        assert time.monotonic() < until
        time.sleep(0.05)
    shutil.rmtree(up.data.root)


def apart(one, other):
    """Check that two running systems share no identity, port, process or signing key."""
    systems = [up.data.system() for up in (one, other)]
    servers = [up.data.server() for up in (one, other)]
    locks = [json.loads((up.data.root / "lock").read_text())["id"] for up in (one, other)]
    keys = [up.data.log_vkeys.read_text().splitlines() for up in (one, other)]
    assert locks[0] != locks[1]
    assert systems[0].url != systems[1].url
    assert systems[0].token != systems[1].token
    assert servers[0].hub_url != servers[1].hub_url
    assert not {p.pid for p in one.data.processes()} & {p.pid for p in other.data.processes()}
    assert keys[0] == keys[1][:-1], "the copy signs with a key of its own"
