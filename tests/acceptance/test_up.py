"""`angelos up` as a user meets it: started, used, killed, started again, ended."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.acceptance.up_process import Up, alive, cli, running

PARTS = {"postgres", "valkey", "server", "exec1", "labs1"}


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for the tests that leave it as it is."""
    with running(tmp_path_factory.mktemp("system") / "data") as up:
        yield up


def test_it_tells_each_step_and_where_it_is(system):
    assert [e["event"] for e in system.events][-1] == "ready"
    started = {e["name"] for e in system.events if e["event"] == "started"}
    assert started >= {"postgres", "valkey", "server", "node/exec1", "node/labs1"}
    ready = system.events[-1]
    assert ready["lab"].startswith(ready["url"] + "/lab?token=")
    assert {p.name for p in system.data.processes()} == PARTS
    assert system.data.system().url == ready["url"]


def test_nobody_else_can_read_what_it_keeps(system):
    for path in (system.data.root, *system.data.root.rglob("*")):
        mode = path.lstat().st_mode
        private = any(
            not p.stat().st_mode & 0o077 for p in path.parents if p.is_relative_to(system.data.root)
        )
        assert stat.S_ISLNK(mode) or private or not mode & 0o077, path
    assert not (system.data.root / "system.json").stat().st_mode & 0o077


def test_the_token_is_in_no_command_line(system):
    token = system.data.system().token
    for pid, _ in system.pids().values():
        try:
            assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:
            continue


def test_a_program_runs_and_its_output_comes(system):
    done = cli(system.data.root, "run", "-c", "print(6 * 7)")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


def test_the_last_line_of_json_tells_how_it_ended(system):
    code = "import sys; print('out', end=''); print('err', file=sys.stderr); sys.exit(3)"
    done = cli(system.data.root, "run", "-c", code, "--json")
    assert done.returncode == 1
    first, last = done.stdout.splitlines()
    assert first == "out"
    assert done.stderr.startswith("err\n")
    result = json.loads(last)
    assert list(result) == [
        "status", "exit_code", "stdout", "stderr", "duration_s", "node", "tier", "evidence",
        "report",
        "files",
        "left_out",
        "displays",
    ]  # fmt: skip
    assert (result["status"], result["exit_code"]) == ("error", 3)
    assert (result["stdout"], result["stderr"]) == ("out", "err\n")
    assert result["node"].endswith("exec1")


def test_a_file_and_standard_input_are_programs_too(system, tmp_path):
    (tmp_path / "hello.py").write_text("print('from a file')")
    done = cli(system.data.root, "run", str(tmp_path / "hello.py"))
    assert done.stdout == "from a file\n"
    done = cli(system.data.root, "run", "-", input="print('from stdin')")
    assert done.stdout == "from stdin\n"


def test_a_program_that_takes_too_long_is_stopped(system):
    done = cli(system.data.root, "run", "-c", "while True: pass", "--timeout", "0.5", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout.splitlines()[-1])["status"] == "timeout"


def test_a_program_that_the_guard_refuses_never_starts(system):
    done = cli(system.data.root, "run", "-c", "import ctypes", "--json")
    assert done.returncode == 1
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["status"] == "denied"
    assert result["evidence"]["source"] == "guard"
    assert result["evidence"]["line"] == 1


def test_ctrl_c_cancels_the_task_and_says_so(system):
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "angelos",
            "run",
            "--json",
            "--data-dir",
            str(system.data.root),
            "-c",
            "import time\nprint('on', flush=True)\ntime.sleep(25)",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cancelled task-" in err
    assert json.loads(out.splitlines()[-1])["status"] == "killed"


LISTS = ["status", "node list", "task list", "proposal list", "repo list", "person list"]


@pytest.mark.parametrize("command", LISTS)
def test_what_is_listed_is_also_json(system, command):
    plain = cli(system.data.root, *command.split())
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout.strip()
    json.loads(cli(system.data.root, *command.split(), "--json").stdout)


def test_nodes_are_connected_with_their_roles(system):
    nodes = json.loads(cli(system.data.root, "node", "list", "--json").stdout)["nodes"]
    # Another test of this system may have added a node that never joined.
    assert {(n["id"], n["role"]) for n in nodes if n["connected"]} == {
        ("node/exec1", "execution"),
        ("node/labs1", "labs"),
    }


def test_an_unknown_id_is_an_error_of_one_line(system):
    done = cli(system.data.root, "proposal", "approve", "prop-0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_audit_log_verifies_and_one_changed_byte_is_named(system, tmp_path):
    export = tmp_path / "audit.jsonl"
    assert cli(system.data.root, "audit", "export", str(export)).returncode == 0
    good = cli(system.data.root, "audit", "verify", "--export", str(export), "--json")
    assert good.returncode == 0, good.stdout
    lines = export.read_bytes().splitlines(keepends=True)
    at = next(n for n, line in enumerate(lines) if line.startswith(b'{"index":3,'))
    start = lines[at].index(b'"subject":"') + 11
    lines[at] = lines[at][:start] + b"\x7e" + lines[at][start + 1 :]
    export.write_bytes(b"".join(lines))
    bad = cli(system.data.root, "audit", "verify", "--export", str(export))
    assert bad.returncode == 1
    assert "entry 3" in bad.stdout


@pytest.mark.parametrize("kind", ["agent", "node"])
def test_one_joins_with_a_token_that_works_once(system, tmp_path, kind):
    token = cli(system.data.root, kind, "add", "ada").stdout
    args = (kind, "join", "-", str(tmp_path / "ada"), "--json")
    done = cli(system.data.root, *args, input=token)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["id"] == f"{kind}/ada"
    (tmp_path / "token").write_text(token)
    again = cli(system.data.root, kind, "join", str(tmp_path / "token"), str(tmp_path / "eve"))
    assert again.returncode == 1
    assert "Traceback" not in again.stderr


def test_a_token_of_another_kind_is_named(system, tmp_path):
    token = cli(system.data.root, "agent", "add", "bea").stdout
    done = cli(system.data.root, "node", "join", "-", str(tmp_path / "bea"), input=token)
    assert done.returncode == 2
    assert "The token was that of agent/bea, which is no node." in done.stderr


def test_who_is_quarantined_is_refused_until_released(system, tmp_path):
    token = cli(system.data.root, "agent", "add", "eve").stdout
    assert cli(system.data.root, "agent", "quarantine", "eve", "--reason", "why").returncode == 0
    refused = cli(system.data.root, "agent", "join", "-", str(tmp_path / "eve"), input=token)
    assert refused.returncode == 1
    shown = cli(system.data.root, "agent", "show", "eve")
    assert "agent/eve: quarantined\nbecause: why" in shown.stdout
    dry = cli(system.data.root, "agent", "quarantine", "eve", "--dry-run")
    assert dry.stdout == shown.stdout
    asked = cli(system.data.root, "agent", "release", "eve")
    assert (asked.returncode, "a second person asks" in asked.stdout) == (0, True)
    nobody = cli(system.data.root, "agent", "quarantine", "nobody")
    assert (nobody.returncode, "no agent/nobody" in nobody.stderr) == (2, True)


def test_somebody_acts_by_the_token_in_a_file(system, tmp_path):
    view = json.loads(cli(system.data.root, "person", "add", "rob", "--json").stdout)
    (tmp_path / "token").write_text(view["token"] + "\n")
    args = ("run", "-c", "print(1)", "--token-file", str(tmp_path / "token"))
    assert cli(system.data.root, *args).stdout == "1\n"
    newest = json.loads(cli(system.data.root, "task", "list", "--json").stdout)["tasks"][0]
    assert newest["by"] == "person/rob"
    shown = cli(system.data.root, "task", "show", newest["id"][:17])
    assert "person/rob" in shown.stdout
    void = cli(system.data.root, "status", "--token-file", "-", input="angel_void\n")
    assert void.returncode == 1
    assert cli(system.data.root, "person", "remove", "rob").returncode == 0


def test_a_task_that_runs_is_cancelled(system):
    code = ["-c", "import time; time.sleep(60)"]
    with subprocess.Popen(
        [sys.executable, "-m", "angelos", "run", *code, "--data-dir", str(system.data.root)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while not (ids := cli(system.data.root, "task", "list", "--state", "running", "-q").stdout):
            assert process.poll() is None
        done = cli(system.data.root, "task", "cancel", ids.split()[0], "--json")
        assert json.loads(done.stdout)["result"]["status"] == "killed"
        process.communicate(timeout=60)
        assert process.returncode == 1


def test_a_second_up_is_refused_and_told_by_whom(system):
    second = Up(system.data.root)
    try:
        assert second.process.wait(60) == 1
        error = second.process.stderr.read()
        assert f"pid {system.process.pid}" in error
        assert len(error.splitlines()) == 1
    finally:
        second.close()
    assert cli(system.data.root, "run", "-c", "print(1)").stdout == "1\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
@pytest.mark.slow
def test_a_signal_ends_all_in_good_order(tmp_path, number):
    with running(tmp_path / "data") as up:
        pids = up.pids()
        assert set(pids) >= PARTS
        runtime = up.data.runtime
        assert runtime.is_dir()
        assert up.stop(number) == 0
    assert alive(pids) == set()
    assert not runtime.exists()
    assert up.data.processes() == []
    assert not (up.data.root / "system.json").exists()


@pytest.mark.slow
def test_a_killed_up_loses_nothing_and_its_orphans_are_ended(tmp_path):
    data_dir = tmp_path / "data"
    with running(data_dir) as up:
        result = cli(data_dir, "run", "-c", "print('kept')", "--json")
        assert result.returncode == 0
        before = json.loads(cli(data_dir, "status", "--json").stdout)["journal"]
        pids = up.pids()
        os.kill(up.process.pid, signal.SIGKILL)
        up.process.wait(30)
    with running(data_dir) as up:
        assert alive(pids) == set()
        tasks = cli(data_dir, "audit", "tail", "--json", "-n", "1000").stdout.splitlines()
        finished = [json.loads(t)["fact"] for t in tasks]
        assert any(
            f["kind"] == "task.finished" and f["data"]["stdout"] == "kept\n" for f in finished
        )
        after = json.loads(cli(data_dir, "status", "--json").stdout)["journal"]
        assert tuple(map(int, after.split("-"))) > tuple(map(int, before.split("-")))
        assert cli(data_dir, "run", "-c", "print('again')").stdout == "again\n"


@pytest.mark.slow
def test_nodes_follow_a_server_whose_port_was_taken_meanwhile(tmp_path):
    with running(tmp_path / "data") as up:
        where = up.data.server()
        port = int(where.hub_url.rpartition(":")[2])
        os.kill(where.pid, signal.SIGKILL)
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _bind(taken, port)
            moved = up.until("moved")
            assert moved["hub"] == up.data.server().hub_url != where.hub_url
            assert up.data.system().hub_url == moved["hub"]
            _until_connected(up)
            result = cli(up.data.root, "run", "-c", "print('found')")
        assert (result.stdout, result.stderr) == ("found\n", "")


def _until_connected(up):
    until = time.monotonic() + 60
    while True:
        nodes = json.loads(cli(up.data.root, "node", "list", "--json").stdout)["nodes"]
        if all(node["connected"] for node in nodes):
            return
        assert time.monotonic() < until, nodes


def _bind(listener, port):
    """Take a port as soon as its owner, who was killed, has let go of it."""
    until = time.monotonic() + 20
    while True:
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError:
            assert time.monotonic() < until
        else:
            return
