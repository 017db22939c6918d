"""A node and a colleague on another host: here another network namespace, joined by a link."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import pytest

from angelos.testing import need
from tests.acceptance.up_process import cli, running

# Two runs of this file on one machine use networks of their own.
NEAR, FAR = (f"10.{64 + os.getpid() % 64}.{os.getpid() // 64 % 256}.{end}" for end in (1, 2))


def _ip(*args):
    subprocess.run(["ip", *args], check=True, capture_output=True)


@pytest.fixture(scope="module")
def host():
    """Another host: a network namespace behind a veth pair; yields the command that runs there."""
    need(os.geteuid() == 0, "root, to make a network namespace")
    need(shutil.which("ip"), "ip (Debian's package iproute2)")
    name = f"ang{os.getpid()}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
        _ip("link", "set", f"{name}b", "netns", name)
        _ip("addr", "add", f"{NEAR}/24", "dev", f"{name}a")
        _ip("link", "set", f"{name}a", "up")
        _ip("netns", "exec", name, "ip", "addr", "add", f"{FAR}/24", "dev", f"{name}b")
        _ip("netns", "exec", name, "ip", "link", "set", f"{name}b", "up")
        _ip("netns", "exec", name, "ip", "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        need(condition=False, reason=f"network namespaces: {error.stderr.decode().strip()}")
    try:
        yield name
    finally:
        for args in (("netns", "del", name), ("link", "del", f"{name}a")):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*args)


def _free_pair() -> int:
    """Return a free port after which another is free: the hub enrols at the next one."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind(("0.0.0.0", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("0.0.0.0", port + 1))
                return port
    pytest.fail("no two ports in a row are free")


@pytest.fixture(scope="module")
def system(tmp_path_factory, host):
    """A system without nodes of its own, whose hub listens on every address."""
    del host
    folder = tmp_path_factory.mktemp("system") / "data"
    options = ("--nodes", "0", "--hub-host", "0.0.0.0", "--hub-port", str(_free_pair()))
    with running(folder, *options, "--hub-name", NEAR) as up:
        yield up


def _there(host, *args, **kwargs):
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "angelos", *args]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, **kwargs
    )


@contextlib.contextmanager
def _node(host, folder, *args):
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "angelos", "node", "run"]
    process = subprocess.Popen(
        [*command, str(folder), *args], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _joined(system, host, folder, name):
    token = cli(system.data.root, "node", "add", name).stdout
    done = _there(host, "node", "join", "-", str(folder), "--json", input=token)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _until_connected(system, name, *, connected=True):
    until = time.monotonic() + 60
    while True:
        nodes = json.loads(cli(system.data.root, "node", "list", "--json").stdout)["nodes"]
        for node in nodes:
            if node["id"] == f"node/{name}" and node["connected"] is connected:
                return node
        assert time.monotonic() < until, nodes
        time.sleep(0.1)


@pytest.mark.slow
def test_a_node_on_another_host_joins_works_and_survives_a_cut_link(system, host, tmp_path):
    nodes = json.loads(cli(system.data.root, "status", "--json").stdout)["nodes"]
    assert not [node for node in nodes if node["connected"]]
    joined = _joined(system, host, tmp_path / "far", "far1")
    url = urlsplit(joined["hub_url"])
    assert (url.scheme, url.hostname) == ("https", NEAR)
    with _node(host, tmp_path / "far", "--slots", "2", "--label", "big", "--label", "rack=7"):
        node = _until_connected(system, "far1")
        profile = node["profile"]
        assert profile["labels"] == ["big", "rack=7"]
        assert profile["cores"] >= 1
        assert profile["memory_bytes"] > 2**20
        assert "python" in profile["languages"]  # and what else this machine has
        assert cli(system.data.root, "run", "-c", "print('far')").stdout == "far\n"
        _ip("link", "set", f"{host}a", "down")
        body = [sys.executable, "-m", "angelos", "run", "-c", "print('later')"]
        with subprocess.Popen(
            [*body, "--data-dir", str(system.data.root)], stdout=subprocess.PIPE, text=True
        ) as waiting:
            _ip("link", "set", f"{host}a", "up")
            assert waiting.communicate(timeout=90)[0] == "later\n"
    _until_connected(system, "far1", connected=False)


@pytest.mark.slow
def test_a_node_for_one_task_ends_by_itself(system, host, tmp_path):
    _joined(system, host, tmp_path / "once", "once1")
    with _node(host, tmp_path / "once", "--once") as process:
        _until_connected(system, "once1")
        args = ("run", "--node", "once1", "-c", "print('once')")
        assert cli(system.data.root, *args).stdout == "once\n"
        assert process.wait(60) == 0


@pytest.mark.slow
def test_a_colleague_needs_an_address_and_a_token(system, tmp_path):
    token = json.loads(cli(system.data.root, "person", "add", "kim", "--json").stdout)["token"]
    (tmp_path / "token").write_text(token)
    where = ("--url", system.data.system().url)
    command = [sys.executable, "-m", "angelos", "status", *where]
    env = {"PATH": os.defpath, "HOME": str(tmp_path)}
    done = subprocess.run(
        [*command, "--token-file", str(tmp_path / "token"), "--json"],
        capture_output=True, text=True, timeout=60, check=False, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["version"]
    bare = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert bare.returncode == 2
    assert "--token-file" in bare.stderr


@pytest.mark.slow
def test_a_taken_port_is_named_and_never_replaced(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = cli(tmp_path / "data", "up", "--hub-port", str(port), "--nodes", "0")
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
