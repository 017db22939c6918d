"""How a running system says how it is, asked as monitors, load balancers and operators do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import signal
import ssl
from collections import Counter
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from angelos.adapters.identity.enrolment import Identity
from angelos.client import Angelos
from angelos.core.permissions import Permission
from angelos.core.repository import NewText
from angelos.core.tracing import traced
from tests.acceptance.collector import collecting
from tests.acceptance.pty_process import on_terminal
from tests.acceptance.up_process import Up, cli, running

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def collector():
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def system(tmp_path_factory, collector):
    """One running system for all of this file; three tasks have ended in it."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        running_system = running(folder / "data", "--log-format", "json")
        up = running_system.__enter__()
    with contextlib.ExitStack() as stack:
        stack.push(running_system)
        asyncio.run(_three_tasks(up))
        yield up


async def _three_tasks(up: Up) -> None:
    async with Angelos.connect(up.data.root) as angelos:
        for code in ("print(1)", "print(2)", "raise SystemExit(3)"):
            await angelos.tasks.run(code)


def get(url: str, tls: ssl.SSLContext | None = None, **headers: str) -> tuple[int, str, str]:
    """Return status, media type and body of an answer, whatever it is."""
    try:
        with urlopen(Request(url, headers=headers), timeout=PATIENCE_S, context=tls) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def scraped(up: Up, token: str = "") -> dict[tuple[str, ...], float]:
    """Return the value of each sample of the server's page, as Prometheus parses it."""
    file = up.data.system()
    credential = {"Authorization": f"Bearer {token or file.token}"}
    status, media, body = get(f"{file.url}/metrics", **credential)
    assert (status, media) == (200, "text/plain; version=0.0.4; charset=utf-8"), body
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


async def test_the_metrics_are_the_facts_of_the_system(system):
    async def scrape():
        return await asyncio.to_thread(scraped, system)

    async with Angelos.connect(system.data.root) as angelos:
        status, tasks = await angelos.status(), await angelos.tasks.list()
    ended = Counter(task.result.status for task in tasks if task.result)
    assert ended.total() >= 3
    # What is measured follows the facts; another test may have just ended a task.
    page = await _until(scrape, lambda p: finished(p) == ended)
    assert page["angelos_task_duration_seconds_count",] == ended.total()
    assert page["angelos_tasks", "running"] == page["angelos_tasks", "accepted"] == 0
    for role in ("execution", "labs"):
        connected = [n for n in status.nodes if n.connected and n.role == role]
        assert page["angelos_nodes", role, "connected"] == len(connected) == 1
    assert page["angelos_peers_connected",] == 2
    assert page["angelos_store_up", "postgres"] == page["angelos_store_up", "valkey"] == 1
    assert page["angelos_journal_aof_ok",] == 1
    assert page["angelos_journal_entries",] > 0
    pem = (system.data.keys / "hub.pem").read_bytes()
    expiry = page["angelos_certificate_expiry_timestamp_seconds", "hub"]
    assert 0 <= expiry - _not_after(pem) < 1  # a certificate has whole seconds
    assert page["angelos_pool_limit",] >= page["angelos_pool_connections", "idle"] > 0
    assert page["angelos_info", status.version] == 1
    assert page["process_resident_memory_bytes",] > 0  # Jupyter's own page follows


def finished(page):
    return {name[1]: n for name, n in page.items() if name[0].endswith("finished_total")}


def _not_after(pem: bytes) -> float:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()


async def _until(question, done) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not done(answer := await question()):  # noqa: ASYNC110 - nobody says it
            await asyncio.sleep(0.2)
    return answer


async def test_what_changes_is_measured(system):
    """A task that runs, boxes, a flush of the journal: each shows on the page, and ends there."""

    async def page():
        return await asyncio.to_thread(scraped, system)

    killed = ("angelos_tasks_finished_total", "killed")
    before = (await page()).get(killed, 0)  # another test may have ended one
    async with Angelos.connect(system.data.root) as angelos:
        async with await angelos.tasks.start(code="import time\ntime.sleep(600)") as task:
            await _until(  # the node measures itself, and the journal tells of its tasks
                page,
                lambda p: (
                    p.get(("angelos_boxes", "exec1", "open")) == 1
                    and p.get(("angelos_tasks", "running")) == 1
                    and p.get(("angelos_node_tasks", "exec1")) == 1
                    and p.get(("angelos_node_slots", "exec1", "busy")) == 1
                ),
            )
            load = await angelos.load()
            assert load.tasks["running"] == 1
            assert {n.id for n in load.nodes} == {"node/exec1", "node/labs1"}
            await task.cancel()
        await _until(
            page,
            lambda p: (
                p.get(killed) == before + 1
                and p["angelos_tasks", "running"] == 0
                and p["angelos_boxes", "exec1", "open"] == 0
            ),
        )
    fresh = await _until(page, lambda p: p["angelos_journal_lag_seconds", "audit"] == 0)
    fresh = await _until(page, lambda p: p.get(("angelos_journal_bytes",), 0) > 0)
    assert fresh["angelos_retention_removed_total", "facts"] == 0
    assert 0 <= fresh["angelos_journal_fsync_age_seconds",] < PATIENCE_S


def test_anyone_may_ask_whether_it_lives_and_nobody_learns_more(system):
    url = system.data.system().url
    assert get(f"{url}/healthz")[::2] == (200, '{"status":"ok"}')
    status, _, body = get(f"{url}/readyz")
    assert status == 200
    assert json.loads(body) == {"parts": {"postgres": "ok", "valkey": "ok"}, "status": "ok"}
    status, media, body = get(f"{url}/metrics")
    assert (status, media) == (401, "application/problem+json")
    assert "angelos_" not in body
    assert get(f"{url}/metrics", Authorization="Bearer wrong")[0] == 401
    assert get(f"{url}/readyz/x")[0] == 404


async def test_a_token_for_nothing_else_reads_the_metrics(system):
    async with Angelos.connect(system.data.root) as angelos:
        token = (await angelos.tokens.create("scraper", [Permission.status_read])).token
        other = (await angelos.tokens.create("other", [Permission.tasks_read])).token
    page = await asyncio.to_thread(scraped, system, token)
    assert page["angelos_store_up", "postgres"] == 1
    url = system.data.system().url
    for path, credential in (("/angelos/api/tasks", token), ("/metrics", other)):
        answer = await asyncio.to_thread(get, url + path, Authorization=f"Bearer {credential}")
        assert answer[0] == 403, path


async def test_the_hub_answers_on_both_of_its_ports(system, tmp_path):
    where, folder = system.data.server(), tmp_path / "scraper"
    async with Angelos.connect(system.data.root) as angelos:
        token = (await angelos.agents.add("scraper")).token
    await Angelos.join(token, folder)
    with_certificate = Identity.load(folder).client_context()
    status, _, body = await asyncio.to_thread(get, f"{where.hub_url}/metrics", with_certificate)
    assert status == 200
    assert 'angelos_nodes{role="execution",state="connected"} 1.0' in body
    anyone = ssl.create_default_context(cafile=system.data.keys / "ca.pem")
    for url, tls, expected in (
        (f"{where.hub_url}/readyz", with_certificate, 200),
        (f"{where.enrol_url}/healthz", anyone, 200),
        (f"{where.enrol_url}/readyz", anyone, 200),
        (f"{where.enrol_url}/metrics", anyone, 404),
    ):
        assert (await asyncio.to_thread(get, url, tls))[0] == expected, url


def test_no_page_holds_a_secret_or_what_people_wrote(system):
    file = system.data.system()
    body = get(f"{file.url}/metrics", Authorization=f"token {file.token}")[2]
    body += get(f"{file.url}/readyz")[2]
    secrets = [file.token, file.valkey, file.postgres, str(system.data.root), "time.sleep"]
    assert not [secret for secret in secrets if secret in body]


def log_lines(up: Up, name: str) -> list[dict[str, Any]]:
    """Return the lines of a part's log; each has to be a JSON object."""
    text = (up.data.logs / f"{name}.log").read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


async def test_a_task_is_one_trace_from_request_to_result(system, collector):
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    async with Angelos.connect(system.data.root) as angelos:
        with traced(trace, caller):
            assert (await angelos.tasks.run("print(1)")).status == "ok"

    async def spans():
        return {span.name: span for span in collector.of(trace)}

    names = {
        "POST /tasks", "PutTask", "task", "task.queued", "task.run",
        "node.task", "node.run", "box", "node.result",
    }  # fmt: skip
    got = await _until(spans, lambda found: found.keys() >= names)
    parents = {
        "POST /tasks": caller, "task": got["POST /tasks"].span, "task.run": got["task"].span,
        "node.task": got["task"].span, "node.run": got["node.task"].span,
        "box": got["node.run"].span, "node.result": got["node.task"].span,
    }  # fmt: skip
    assert {name: got[name].parent for name in parents} == parents
    assert got["box"].service == "angelos-node"
    assert got["task"].service == "angelos-server"
    assert all(got[name].ok for name in names)
    assert 0 < got["box"].seconds <= got["node.task"].seconds
    for part, words in (("server", "POST /tasks: 202"), ("exec1", "has ended: ok")):

        async def lines(part=part):
            return [line for line in log_lines(system, part) if line.get("trace_id") == trace]

        said = await _until(lines, lambda ls, words=words: any(words in x["event"] for x in ls))
        assert {line["level"] for line in said} == {"info"}


async def test_a_patch_is_one_trace_from_its_edit_to_the_nodes(system, collector):
    steps = '[pipeline]\nsteps = [{name = "text", run = ["python", "-m", "unittest"]}]\n'
    case = "import unittest\n\nclass A(unittest.TestCase):\n    def test_a(self):\n        pass\n"
    trace, caller = secrets.token_hex(16), secrets.token_hex(8)
    async with Angelos.connect(system.data.root) as angelos:
        files = {"a.txt": "one\n", "angelos.toml": steps, "test_a.py": case}
        book = await angelos.repos.create("book", files)
        with traced(trace, caller):
            edit = NewText(path="a.txt", text="two\n")
            proposal = await book.propose([edit], base="main", message="second")
        async with asyncio.timeout(PATIENCE_S):
            assert (await proposal.settled()).state == "promoted"

    async def spans():
        return collector.of(trace)

    names = {
        "POST /repos/{repo}/proposals", "proposal", "proposal.candidate", "proposal.tests",
        "proposal.promote", "task", "node.task", "box", "checkout",
    }  # fmt: skip

    def one_tree(found):
        tree = {span.span for span in found} | {caller}
        return {span.name for span in found} >= names and {s.parent for s in found} <= tree

    got = await _until(spans, one_tree)
    one = {span.name: span for span in got}
    assert one["proposal"].parent == one["POST /repos/{repo}/proposals"].span
    assert one["POST /repos/{repo}/proposals"].parent == caller
    for name in ("proposal.candidate", "proposal.tests", "proposal.promote", "checkout"):
        assert one[name].parent == one["proposal"].span, name
    tasks = [span for span in got if span.name == "task"]
    assert {task.parent for task in tasks} == {one["proposal.tests"].span}
    assert one["node.task"].parent in {task.span for task in tasks}
    for part in ("server", "exec1"):  # where its tests ran
        assert any(line.get("trace_id") == trace for line in log_lines(system, part)), part


def test_what_is_no_line_of_a_log_becomes_one(system):
    """Every line of every part is an object with a time, a level, a logger and an event."""
    for part in ("server", "exec1", "labs1"):
        for line in log_lines(system, part):
            assert line.keys() >= {"time", "level", "logger", "event"}, line


def test_top_is_a_table_an_object_or_an_error(system):
    once = cli(system.data.root, "top", "--once")
    assert once.returncode == 0, once.stderr
    assert re.search(r"exec1 +connected +[#.]{10} +[0-9]+%", once.stdout), once.stdout
    view = json.loads(cli(system.data.root, "top", "--once", "--json").stdout)
    assert {node["id"] for node in view["nodes"]} == {"node/exec1", "node/labs1"}
    assert view["load"]["tasks"]["running"] == 0
    piped = cli(system.data.root, "top")
    assert piped.returncode == 2
    assert "needs a terminal" in piped.stderr


async def test_top_shows_looks_cancels_and_leaves_the_terminal_clean(system):
    code = "import time\nprint('hello' + chr(27) + '[2Jfrom the box', flush=True)\ntime.sleep(600)"
    where = ("--data-dir", str(system.data.root), "--interval", "0.5")
    async with Angelos.connect(system.data.root) as angelos:
        task = await angelos.tasks.start(code, label="slow")
        await _until(task.view, lambda view: view.state == "running")
        with on_terminal("top", *where) as top:
            await asyncio.to_thread(_drive, top, str(task.id))
            assert top.ended() == 0
            assert top.clean
        view = await _until(task.view, lambda view: view.state == "finished")
        assert view.result.status == "killed"


def _drive(top, task: str) -> None:
    """Choose the task, look at it, cancel it, and leave."""
    top.until(f"{task} +running")
    top.press("\x1b[B")
    top.until(rf"\x1b\[7m{task}")
    top.press("\r")
    top.until(r"hello\\x1b\[2Jfrom the box")  # shown, not obeyed
    top.press("x")
    top.until("AngelOS")
    top.press("c")
    top.until(f"Cancel {task}")
    top.press("n")
    top.until("Not cancelled")
    top.press("cy")
    top.until("no open task")
    top.press("q")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_top_leaves_the_terminal_clean_when_it_is_interrupted(system, number):
    with on_terminal("top", "--data-dir", str(system.data.root)) as top:
        top.until("labs1")
        if number == signal.SIGINT:
            top.press("\x03")  # as a person does
        else:
            top.process.send_signal(number)
        assert top.ended() == 0
        assert top.clean, top.raw[-200:]
