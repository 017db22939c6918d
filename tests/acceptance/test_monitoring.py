"""How a running system says how it is, asked as monitors, load balancers and operators do."""

from __future__ import annotations

import asyncio
import json
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
from tests.acceptance.up_process import Up, running

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for all of this file; three tasks have ended in it."""
    with running(tmp_path_factory.mktemp("watched") / "data") as up:
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

    page = await _until(scrape, lambda p: p["angelos_task_duration_seconds_count",] >= 3)
    async with Angelos.connect(system.data.root) as angelos:
        status, tasks = await angelos.status(), await angelos.tasks.list()
    ended = Counter(task.result.status for task in tasks if task.result)
    assert {name[1]: n for name, n in page.items() if name[0].endswith("finished_total")} == ended
    assert page["angelos_task_duration_seconds_count",] == ended.total() >= 3
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

    async with Angelos.connect(system.data.root) as angelos:
        async with await angelos.tasks.start(code="import time\ntime.sleep(600)") as task:
            seen = await _until(page, lambda p: p.get(("angelos_boxes", "exec1", "open")) == 1)
            assert seen["angelos_tasks", "running"] == 1
            assert seen["angelos_node_tasks", "exec1"] == 1
            assert seen["angelos_node_slots", "exec1", "busy"] == 1
            load = await angelos.load()
            assert load.tasks["running"] == 1
            assert {n.id for n in load.nodes} == {"node/exec1", "node/labs1"}
            await task.cancel()
        await _until(
            page,
            lambda p: (
                p.get(("angelos_tasks_finished_total", "killed")) == 1
                and p["angelos_tasks", "running"] == 0
                and p["angelos_boxes", "exec1", "open"] == 0
            ),
        )
    fresh = await _until(page, lambda p: p["angelos_journal_lag_seconds", "audit"] == 0)
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
