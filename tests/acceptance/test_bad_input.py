"""A hostile and clumsy user against one running system: clear errors, and nothing is lost."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.acceptance.up_process import Up, cli, running

API = "/angelos/api"
LONG = "9" * 5000
FILES = {
    "angelos.toml": '[pipeline]\nsteps = [{name = "unit", run = ["python", "-c", "import m"]}]\n',
    "m.py": "one = 1\ntwo = 2\n",
    "nb.ipynb": '{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}',
}


class Reply(NamedTuple):
    """What came back."""

    status: int
    media_type: str
    body: Any

    @property
    def code(self) -> str:
        """The problem's code; nothing else is an error's answer."""
        assert self.media_type == "application/problem+json", self
        assert self.body["status"] == self.status
        return self.body["code"]


class Caller:
    """Sends bytes as they are."""

    def __init__(self, up: Up) -> None:
        self.up = up
        self.token = up.data.system().token

    def __call__(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> Reply:
        url = urlsplit(self.up.data.system().url)
        token = self.token if token is None else token
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        line = http.client.HTTPConnection(url.netloc, timeout=60)
        try:
            line.request(method, API + path, raw, {"Authorization": f"token {token}", **headers})
            answer = line.getresponse()
            text, media_type = answer.read(), answer.getheader("Content-Type", "")
            known = json.loads(text) if text and media_type.endswith("json") else text
            return Reply(answer.status, media_type, known)
        finally:
            line.close()


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system with two repositories, for all of them."""
    with running(tmp_path_factory.mktemp("bad") / "data") as up:
        call = Caller(up)
        for name in ("study", "other"):
            made = call("POST", "/repos", {"name": name, "files": {**FILES, "name.txt": name}})
            assert made.status == 201, made
        yield up


@pytest.fixture(scope="module")
def call(system):
    return Caller(system)


@pytest.fixture(scope="module")
def base(call):
    return call("GET", "/repos/study").body["main"]


@pytest.fixture(autouse=True)
def it_still_works(call):
    """Whatever was sent: the system answers the next one."""
    yield
    assert call("GET", "/status").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"[]", b"null", b'"x"', b"\0\0", b"[" * 100_000, b'{"code":' * 50_000,
        '{"code": "é"}'.encode("latin-1"), '{"code": "1"}'.encode("utf-16"),
        b'{"code": "\\ud800"}', b'{"code": "1"} x', b'{"code": 1}', b'{"code": "1", "x": 1}',
        b'{"code": "1", "label": "\\u0000"}', b'{"argv": ["a\\u0000b"]}', b'{"argv": "ls"}',
        b'{"code": "1", "limits": {"memory_mb": ' + b"9" * 400 + b"}}",
        b'{"code": "1", "limits": {"wall_s": 1e999}}', b'{"code": "1", "limits": {"wall_s": NaN}}',
        b'{"code": "1", "node": "../x"}', b'{"code": "1", "command": "cmd-1"}',
        b'{"code": "1", "repo": "study"}', b"{}", b"code=1",
        b'{"code": "1", "repo": "\\u0000", "revision": "' + b"a" * 64 + b'"}',
        b'{"code": "1", "repo": "study", "revision": "\\u0000"}',
        b'{"code": "1", "repo": "../study", "revision": "' + b"a" * 64 + b'"}',
        b'{"code": "' + b"#" * 1_000_001 + b'"}',
    ],
    ids=lambda body: repr(body[:40]),
)  # fmt: skip
def test_a_task_that_makes_no_sense_is_refused(call, body):
    before = call("GET", "/tasks").body
    assert call("POST", "/tasks", body).code == "invalid-input"
    assert call("GET", "/tasks").body == before


@pytest.mark.parametrize("length", ["17000000", "1" + "0" * 30])
def test_a_huge_body_is_refused_before_it_is_read(call, length):
    reply = call("POST", "/tasks", b"x", **{"Content-Length": length})
    assert reply.code == "too-large"


def test_a_huge_chunked_body_is_refused_while_it_comes(call, system):
    url = urlsplit(system.data.system().url)
    line = http.client.HTTPConnection(url.netloc, timeout=60)
    line.putrequest("POST", f"{API}/tasks")
    line.putheader("Authorization", f"token {call.token}")
    line.putheader("Transfer-Encoding", "chunked")
    line.endheaders()
    chunk = b"%x\r\n%s\r\n" % (1_000_000, b"x" * 1_000_000)
    try:
        for _ in range(40):
            line.send(chunk)
    except OSError:
        sent_it_all = False
    else:
        sent_it_all = True
    line.close()
    assert not sent_it_all


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/tasks?limit=0", "invalid-input"),
        ("/tasks?limit=1&limit=2", "invalid-input"),
        ("/tasks?limit=000000001999", "invalid-input"),
        (f"/tasks?limit=000000001{LONG}", "invalid-input"),
        ("/tasks?limit=%ff", "invalid-input"),
        ("/tasks?state=%00", "invalid-input"),
        ("/tasks?nope=1", "invalid-input"),
        ("/tasks/x?wait=nan", "invalid-input"),
        ("/tasks/%00", "invalid-input"),
        ("/tasks/%ff", "invalid-input"),
        ("/tasks/..%2f..", "not-found"),
        ("/proposals/prop-x", "not-found"),
        ("/nope", "not-found"),
        ("/repos/..%2fstudy", "not-found"),
        ("/repos/study/revisions/..%2f", "not-found"),
        ("/repos/study/revisions/main/file?path=../../keys/log.key", "invalid-input"),
        ("/repos/study/revisions/main/file?path=/etc/passwd", "invalid-input"),
        ("/repos/study/revisions/main/file?path=%00", "invalid-input"),
        ("/repos/study/live?path=../../keys/log.key", "not-found"),
        ("/repos/study/diff?before=main&after=nowhere", "not-found"),
        ("/audit/entries?limit=1_0", "invalid-input"),
        (f"/audit/entries?after={LONG}", "invalid-input"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(call, path, code):
    assert call("GET", path).code == code


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_refused(call, method):
    assert call(method, "/tasks").status == 405


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/principals/agent/eve/quarantine", {"reason": "a\0b"}, "invalid-input"),
        ("/principals/person/owner/quarantine", {}, "invalid-input"),
        ("/principals/system/hub/quarantine", {}, "invalid-input"),
        ("/people", {"name": "owner", "role": "viewer"}, "conflict"),
        ("/people", {"name": "../x", "role": "viewer"}, "invalid-input"),
        ("/people", {"name": "eve", "role": "node"}, "invalid-input"),
        ("/enrolments", {"kind": "node", "name": "a\n"}, "invalid-input"),
        ("/repos", {"name": "study", "files": {}}, "conflict"),
        ("/repos", {"name": "x", "files": {"../x": ""}}, "invalid-input"),
        ("/repos", {"name": "x", "files": {"a" * 201: ""}}, "invalid-input"),
        ("/repos/study/rollback", {"to": "a" * 64}, "not-found"),
        ("/repos/study/rollback", {"to": "\0"}, "invalid-input"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(call, path, body, code):
    assert call("POST", path, body).code == code


def test_rollback_to_where_main_is_or_to_another_repository_is_refused(call, base):
    foreign = call("GET", "/repos/other").body["main"]
    assert call("POST", "/repos/study/rollback", {"to": base}).code == "conflict"
    assert call("POST", "/repos/study/rollback", {"to": foreign}).code == "not-found"


def _text(path: str, text: str = "1") -> dict[str, str]:
    return {"kind": "text", "path": path, "text": text}


def _diff(diff: str) -> dict[str, str]:
    return {"kind": "diff", "path": "m.py", "diff": diff}


@pytest.mark.parametrize(
    "edits",
    [
        [], [_text("a.txt"), _text("a.txt", "2")], [_text(f"f{i}") for i in range(257)],
        [_text("../a")], [_text("/a")], [_text("x/.git/a")], [_text("")], [_text("a\0")],
        [_text("a\\b")], [_text("m.py/x")], [_text("a.txt", "\0")], [_text("m.py", FILES["m.py"])],
        [_text("nb.ipynb", "junk")], [_text("nb.ipynb", "[]")],
        [_text("nb.ipynb", FILES["nb.ipynb"].replace("{}", '{"a": ' + LONG + "}"))],
        [_text("nb.ipynb", FILES["nb.ipynb"].replace("{}", '{"a": ' + "[" * 50_000))],
        [_diff("")], [_diff("junk")], [_diff("@@ -1 +1 @@\n-nope\n+x\n")],
        [_diff("@@ -99999999999999999999 +1 @@\n-one = 1\n+x\n")], [_diff("GIT binary patch\n")],
        [_diff("--- a/m.py\n+++ b/angelos.toml\n@@ -1 +1 @@\n-one = 1\n+x\n")],
        [{"kind": "delete", "path": "nope"}], [{"kind": "nope", "path": "a"}], [{"path": "a"}],
    ],
    ids=lambda edits: repr(edits)[:60],
)  # fmt: skip
def test_a_proposal_that_makes_no_sense_is_refused(call, base, edits):
    body = {"base": "main", "edits": edits, "message": "m"}
    assert call("POST", "/repos/study/proposals", body).code == "invalid-input"
    study = call("GET", "/repos/study").body
    assert (study["main"], study["dev"]) == (base, base)


def test_a_base_that_is_not_this_repositorys_is_refused(call):
    foreign = call("GET", "/repos/other").body["main"]
    for revision, code in ((foreign, "not-found"), ("a" * 64, "not-found"), ("x", "invalid-input")):
        body = {"base": revision, "edits": [_text("a.txt")], "message": "m"}
        assert call("POST", "/repos/study/proposals", body).code == code


def test_nobody_approves_twice_or_what_is_his_own(call):
    body = {"base": "main", "edits": [{"kind": "delete", "path": "angelos.toml"}], "message": "m"}
    made = call("POST", "/repos/other/proposals", body).body
    view = call("GET", f"/proposals/{made['id']}?wait=60").body
    assert (view["state"], view["needs"]) == ("waiting", 2), view
    person = call("POST", "/people", {"name": "rita", "role": "reviewer"}).body
    review = {"digest": view["digest"]}
    path = f"/proposals/{view['id']}"
    assert call("POST", f"{path}/approve", review).code == "forbidden"
    wrong = call("POST", f"{path}/approve", {"digest": "x"}, token=person["token"])
    assert wrong.code == "conflict"
    once = call("POST", f"{path}/approve", review, token=person["token"])
    assert (once.status, once.body["needs"]) == (200, 1)
    again = call("POST", f"{path}/approve", review, token=person["token"])
    assert again.code == "forbidden"
    assert call("POST", f"{path}/reject", review, token=person["token"]).status == 200
    assert call("POST", f"{path}/reject", review).code == "conflict"


ROUTES = [
    ("viewer", "POST", "/tasks", 403),
    ("viewer", "POST", "/repos/study/proposals", 403),
    ("viewer", "GET", "/audit/entries", 403),
    ("researcher", "POST", "/proposals/x/approve", 403),
    ("researcher", "POST", "/tasks", 400),
    ("reviewer", "POST", "/repos/study/rollback", 403),
    ("reviewer", "POST", "/principals/agent/x/quarantine", 403),
    ("operator", "GET", "/people", 403),
    ("operator", "POST", "/enrolments", 400),
]


def test_each_role_does_what_it_may_and_no_more(call):
    tokens = {
        role: call("POST", "/people", {"name": f"a-{role}", "role": role}).body["token"]
        for role in ("viewer", "researcher", "reviewer", "operator")
    }
    got = [
        call(method, path, b'{"x": 1}', token=tokens[role]).status
        for role, method, path, _ in ROUTES
    ]
    assert got == [status for *_, status in ROUTES]
    for token in ("", "x", call.token[:-1]):
        assert call("GET", "/status", token=token).code == "unauthenticated"


# -- the command line ------------------------------------------------------------------------

PROPOSE = ["propose", "/etc/hosts", "--base", "main", "--repo", "study", "--path"]
USAGE = [
    ["nope"], ["status", "x"], ["run"], ["run", "-c", ""], ["run", "-c", "1", "--timeout", "x"],
    ["run", "-c", "1", "--timeout", "nan"], ["run", "-c", "1", "--memory", "9" * 400],
    ["run", "-c", "1", "--node", "../x"], ["run", "-c", "1", "--node", "nope"],
    ["run", "-c", "\udcff"], ["run", "nope.py"], ["run", "/"], ["run", ""], ["run", "/dev/zero"],
    ["task"], ["task", "nope"], ["task", "show", "x"], ["task", "cancel", "task-nope"],
    ["task", "list", "--state", "x"], ["task", "show", "task-nope", "--wait", "nan"],
    ["proposal", "approve"], ["proposal", "approve", "\udcff"], ["proposal", "approve", "prop-"],
    ["proposal", "list", "--limit", "0"], ["proposal", "list", "--state", "x"],
    ["repo", "rollback", "nope", "--repo", "study"], ["repo", "rollback", "x"],
    ["repo", "show", "nope"], ["repo", "show", "study", "--revision", "nope"],
    ["repo", "import", "nope"], ["repo", "import", "."],
    ["person", "add", "../x"], ["person", "add", "x", "--role", "king"],
    ["node", "add", ""], ["node", "quarantine", "node/x"], ["node", "release", "../x"],
    ["agent", "join", "junk", "d"], ["agent", "join", "-", "d"], ["agent", "quarantine", "../x"],
    ["audit", "verify", "--key", "00"], ["audit", "verify", "--export", "nope"],
    ["audit", "export", "/nope/x"], ["audit", "export", "/dev/null"], ["audit", "export", "."],
    [*PROPOSE, "../x"], [*PROPOSE, "x", "--wait", "nan"], [*PROPOSE, "x", "-m", "\udcff"],
    ["propose", "/dev/zero", "--base", "main", "--repo", "study", "--path", "x"],
    ["status", "--token-file", "nope"], ["status", "--token-file", "-"],
]  # fmt: skip


@pytest.mark.parametrize("args", USAGE, ids=lambda args: ascii(" ".join(args))[:60])
def test_a_command_that_makes_no_sense_is_one_problem_and_exit_code_2(system, args, tmp_path):
    # What follows FILE of `run` is the program's.
    args = ["run", "--json", *args[1:]] if args[0] == "run" else [*args, "--json"]
    done = cli(system.data.root, *args, cwd=tmp_path)
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["code"] in {"invalid-input", "not-found", "too-large"}
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_is_too_large_or_no_text_is_refused(system, tmp_path):
    (tmp_path / "big.py").write_bytes(b"#" * 17_000_000)
    (tmp_path / "bin.py").write_bytes(b"\xff\xfe")
    for name, code in (("big.py", "too-large"), ("bin.py", "invalid-input")):
        done = cli(system.data.root, "run", "--json", str(tmp_path / name))
        assert (done.returncode, json.loads(done.stdout)["code"]) == (2, code)


@pytest.mark.parametrize("where", ["/dev/null", "/nope/nope", "x" * 300, "~nobody-here/x"])
def test_where_no_system_runs_is_told(where, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "angelos", "status", "--json", "--data-dir", where],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode in {1, 2}
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(done.stdout)["code"] in {"unavailable", "invalid-input"}


@pytest.mark.parametrize(
    "args", [["audit", "tail", "-n", "500"], ["run", "-c", "print('x' * 300_000)"]]
)
def test_a_reader_that_goes_away_is_no_error_worth_a_traceback(system, args):
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "angelos", *args, "--data-dir", str(system.data.root)],
        stdout=writing, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    _, err = process.communicate(timeout=60)
    # A short log may be in the pipe before its reader goes; 300 kB never are.
    assert process.returncode in ({1} if args[0] == "run" else {0, 1})
    assert err == ""


@pytest.mark.parametrize(
    "args",
    [
        ["status"], ["status", "--json"], ["--help"], ["run", "-c", "print(1)"], ["nope", "--json"],
        ["demo", "--keep", "/dev/null/x"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_full_disk_is_told(system, args):
    env = {**os.environ, "ANGELOS_DATA_DIR": str(system.data.root)}
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [sys.executable, "-m", "angelos", *args], env=env,
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "angelos: No space left on device.\n")


def test_a_second_up_does_not_say_that_all_is_stopped(system):
    done = cli(system.data.root, "up", "--json")
    assert done.returncode == 1
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["code"] == "conflict"


# -- a dead node -----------------------------------------------------------------------------


def test_tasks_of_a_node_that_is_killed_end_and_nothing_is_lost(system, call):
    code = "import time\nprint('on', flush=True)\ntime.sleep(2)\nprint('end')"
    running_ = call("POST", "/tasks", {"code": code, "node": "exec1"}).body["id"]
    queued = call("POST", "/tasks", {"code": "print('queued')", "node": "exec1"}).body["id"]
    pid, _ = system.pids()["exec1"]
    os.kill(pid, signal.SIGKILL)
    for task, output in ((running_, "on\nend\n"), (queued, "queued\n")):
        view = call("GET", f"/tasks/{task}?wait=60").body
        assert (view["state"], view["result"]["status"]) == ("finished", "ok"), view
        assert view["result"]["stdout"] == output
    assert cli(system.data.root, "audit", "verify").returncode == 0
