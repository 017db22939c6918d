"""A plain `jupyter lab`: attached to a running system, or running the stores itself."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from tornado.httpclient import HTTPClient, HTTPClientError

from angelos.adapters.host.datadir import DataDir
from angelos.adapters.net.sockets import free_port
from angelos.client import Angelos
from tests.acceptance.test_parts_restart import Typist, each_once
from tests.acceptance.up_process import cli, running

TOKEN = "a-token-of-forty-characters-for-this-test"
READY_S = 120


@contextmanager
def plain_jupyter(data_dir, root, files="files"):
    """Run Jupyter Server with the extension, as a user would; yield how to ask it."""
    port = free_port()
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "ANGELOS"))}
    for name in ("config", "data", "runtime", files):
        (root / name).mkdir(parents=True, exist_ok=True)
    env |= {
        "ANGELOS_DATA_DIR": str(data_dir),
        "JUPYTER_CONFIG_DIR": str(root / "config"),
        "JUPYTER_DATA_DIR": str(root / "data"),
        "JUPYTER_RUNTIME_DIR": str(root / "runtime"),
        "JUPYTER_TOKEN": TOKEN,
    }
    argv = [
        sys.executable, "-m", "jupyter_server", "--no-browser", f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root / files}",
        "--ServerApp.jpserver_extensions=jupyter_ext=True", "--allow-root",
    ]  # fmt: skip
    log = (root / "log").open("wb")
    process = subprocess.Popen(argv, env=env, stdout=log, stderr=log)
    client = HTTPClient()

    def ask(path, **kwargs):
        headers = {"Authorization": f"token {TOKEN}"}
        url = f"http://127.0.0.1:{port}/angelos/api{path}"
        return json.loads(client.fetch(url, headers=headers, **kwargs).body)

    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                ask("/status")
                break
            except (HTTPClientError, OSError):
                assert process.poll() is None, (root / "log").read_text()
                assert time.monotonic() < deadline, (root / "log").read_text()
                time.sleep(0.1)
        yield ask
    finally:
        process.terminate()
        process.wait(60)
        client.close()
        log.close()


@pytest.mark.slow
def test_beside_a_running_system_it_is_a_window_on_that_one(tmp_path):
    data_dir = tmp_path / "data"
    with running(data_dir) as up, plain_jupyter(data_dir, tmp_path / "lab") as ask:
        theirs = json.loads(cli(data_dir, "status", "--json").stdout)
        ours = ask("/status")
        assert ours["started_at"] == theirs["started_at"]
        body = json.dumps({"code": "print('through the window')"})
        task = ask("/tasks", method="POST", body=body)
        done = ask(f"/tasks/{task['id']}?wait=20")
        assert done["result"]["stdout"] == "through the window\n"
        assert up.data.system().url == up.events[-1]["url"]  # found where it was
    # The window has gone without touching the system: that one ended in good order.
    assert up.process.returncode == 0


@pytest.mark.slow
def test_alone_it_runs_the_stores_itself_and_is_found(tmp_path):
    data_dir = tmp_path / "data"
    with plain_jupyter(data_dir, tmp_path / "lab"):
        status = cli(data_dir, "status", "--json")
        assert status.returncode == 0, status.stderr
        assert json.loads(status.stdout)["nodes"] == []
        second = cli(data_dir, "up")
        assert second.returncode == 1
        assert "already runs" in second.stderr
    assert cli(data_dir, "status").returncode == 1
    with running(data_dir):
        assert cli(data_dir, "run", "-c", "print(1)").stdout == "1\n"


def _stores(data_dir):
    """Return the processes of the stores that the server has started."""
    records = {name: data_dir / name / "process.json" for name in ("valkey", "postgres")}
    return {
        name: json.loads(path.read_text())["pid"] for name, path in records.items() if path.exists()
    }


@pytest.mark.slow
def test_alone_it_replaces_its_stores_and_loses_nothing_that_it_acknowledged(tmp_path):
    data_dir = tmp_path / "data"
    with plain_jupyter(data_dir, tmp_path / "lab", data_dir / "workspace"):
        asyncio.run(_killed_and_frozen_stores_are_replaced(data_dir))
        lines = cli(data_dir, "audit", "tail", "--json", "-n", "900").stdout.splitlines()
        facts = [json.loads(line)["fact"] for line in lines]
        restarts = [f for f in facts if f["kind"] == "part.restarted"]
        causes = {(f["subject"], f["data"]["cause"]) for f in restarts}
        stores = _stores(data_dir)
        assert causes == {(f"system/{name}", how) for name in stores for how in ("ended", "frozen")}


def _replaced(before, after):
    return after.keys() == before.keys() and not set(after.values()) & set(before.values())


async def _killed_and_frozen_stores_are_replaced(data_dir):
    server = DataDir(data_dir, os.environ.get("XDG_RUNTIME_DIR", "")).system()
    async with Angelos(server.url, token=server.token) as angelos:
        await angelos.repos.create("study", {"notes.md": "the end\n"}, "import")
    async with Typist(lambda: (server.url, server.token)) as typist:
        await typist.more(60)
        for how in (signal.SIGKILL, signal.SIGSTOP):
            before = _stores(data_dir)
            for pid in before.values():
                os.kill(pid, how)
            async with asyncio.timeout(120):
                while not _replaced(before, _stores(data_dir)):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            await typist.more(60)
        assert each_once(await typist.text(), typist.acknowledged)
    async with asyncio.timeout(60):
        while _restarts(data_dir) != {"postgres", "valkey"}:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def _restarts(data_dir):
    view = json.loads(cli(data_dir, "status", "--json").stdout)
    return {restart["part"] for restart in view["restarts"]}
