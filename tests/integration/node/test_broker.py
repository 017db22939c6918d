"""Programs in real boxes reach what their rules open, by the broker, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from angelos.core.facts import NetworkRequested
from angelos.core.messages import Limits, Status, Tier
from angelos.core.network import NetworkVerdict, parse_rules
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.core.sessions import SessionSpec
from angelos.node.broker.models import NetworkConfig
from angelos.node.broker.service import Brokers
from angelos.node.config import SandboxConfig
from angelos.node.sandbox.sandbox import BubblewrapSandbox
from angelos.testing import need
from tests.integration.node.web import ADA, config_for, page, web_host

LIMITS = Limits(wall_s=60, cpu_s=60, pids=64)
Facts = list[tuple[NetworkRequested, NetworkVerdict]]


@pytest.fixture(params=[True, False], ids=["cgroup", "sampler"])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[BubblewrapSandbox]:
    config = SandboxConfig(ready_boxes=0, use_cgroups=request.param)
    async with BubblewrapSandbox(config) as box:
        need(box.tier in {Tier.full, Tier.reduced}, f"no boxes here: {box.reasons}")
        yield box


async def run(
    sandbox: BubblewrapSandbox, brokers: Brokers, rules: list[str], spec: RunSpec
) -> tuple[Exit, str, Facts]:
    facts: Facts = []

    async def report(fact: NetworkRequested, verdict: NetworkVerdict) -> None:
        facts.append((fact, verdict))

    printed = b""
    async with brokers.opened(parse_rules(rules), ADA, "task-1", report) as order:
        spec = msgspec.structs.replace(
            spec, env={**order.env, **spec.env}, read_only={**spec.read_only, **order.read_only}
        )
        beside: Callable[..., Any] = lambda s: order.broker.serving(s.listener())  # noqa: E731
        session = SessionSpec(run=spec, broker=True)
        async for event in run_session(sandbox, session, beside=beside):
            if isinstance(event, Output):
                printed += event.data
            else:
                return event, printed.decode(), facts
    raise AssertionError("no end")


PROGRAM = """
import json, socket, ssl, urllib.error, urllib.request
answers = {}
for url in ("https://index.test/simple/", "https://index.test/secret", "https://other.test/",
            "http://index.test/simple/"):
    try:
        answers[url] = urllib.request.urlopen(url, timeout=50).read().decode()
    except urllib.error.HTTPError as error:
        answers[url] = error.code
    except OSError as error:
        answers[url] = str(error)
for name, address in (("host", ("127.0.0.1", HOST)), ("out", ("93.184.216.34", 443))):
    try:
        socket.create_connection(address, timeout=5)
        answers[name] = "open"
    except OSError as error:
        answers[name] = "closed"
print(json.dumps(answers))
"""


async def test_a_program_reaches_what_its_rules_open_and_nothing_else(
    sandbox: BubblewrapSandbox, tmp_path: Path
) -> None:
    async with web_host() as host:
        host.pages["/simple/"] = page(b"the index")
        brokers = Brokers(tmp_path, config_for(tmp_path, host))
        spec = RunSpec(argv=(), code=PROGRAM.replace("HOST", str(host.port)), limits=LIMITS)
        end, printed, facts = await run(sandbox, brokers, ["https://index.test/simple/"], spec)
        brokers.close()
    assert end.status is Status.ok, printed
    answers = json.loads(printed)
    assert answers["https://index.test/simple/"] == "the index"
    assert answers["https://index.test/secret"] == 403
    assert "403" in answers["https://other.test/"]
    assert answers["http://index.test/simple/"] == 403
    assert answers["host"] == answers["out"] == "closed"
    assert [verdict.value for _, verdict in facts] == ["allowed", "no-rule", "no-rule", "no-rule"]
    assert facts[0][0].url == "https://index.test:443/simple/"
    assert facts[0][0].received == len("the index")
    assert facts[1][0].allows == "GET https://index.test/"
    assert not list((tmp_path / "network").iterdir())
    assert len(host.heads) == 1


async def test_tools_find_the_broker_and_trust_it(tmp_path: Path) -> None:
    """Curl by its bundle, git over HTTPS, and openssl's own store by SSL_CERT_FILE."""
    git, curl = shutil.which("git"), shutil.which("curl")
    need(git is not None and curl is not None, "git and curl are not installed")
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox, web_host() as host:
        need(sandbox.tier in {Tier.full, Tier.reduced}, f"no boxes here: {sandbox.reasons}")
        host.pages["/a"] = page(b"by curl\n")
        host.pages["/study.git/info/refs"] = page(
            b"001e# service=git-upload-pack\n0000"
            + _line(b"b" * 40 + b" HEAD\0agent=test\n")
            + _line(b"b" * 40 + b" refs/heads/main\n")
            + b"0000",
            b"Content-Type: application/x-git-upload-pack-advertisement",
        )
        brokers = Brokers(tmp_path, config_for(tmp_path, host))
        script = "curl -sS https://index.test/a; git ls-remote https://index.test/study.git main"
        spec = RunSpec(argv=("sh", "-c", script), limits=LIMITS)
        end, printed, facts = await run(sandbox, brokers, ["https://index.test/"], spec)
        brokers.close()
    assert printed == "by curl\n" + "b" * 40 + "\trefs/heads/main\n"
    assert end.status is Status.ok
    assert [fact.method for fact, _ in facts] == ["GET", "GET"]


def _line(text: bytes) -> bytes:
    return b"%04x" % (len(text) + 4) + text


async def test_without_rules_a_box_has_no_listener(sandbox: BubblewrapSandbox) -> None:
    code = "import socket\nsocket.create_connection(('127.0.0.1', 3128))"
    ends = [
        event
        async for event in run_session(sandbox, RunSpec(argv=(), code=code, limits=LIMITS))
        if isinstance(event, Exit)
    ]
    assert ends[0].status is Status.error


async def test_bytes_of_a_host_that_is_open_as_a_whole_are_passed_on(tmp_path: Path) -> None:
    code = """
import ssl, urllib.request
context = ssl.create_default_context(cadata=open('/in/ca.pem').read())
print(urllib.request.urlopen('https://index.test/a', context=context, timeout=50).read().decode())
"""
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox, web_host() as host:
        need(sandbox.tier in {Tier.full, Tier.reduced}, f"no boxes here: {sandbox.reasons}")
        host.pages["/a"] = page(b"unread")
        config: NetworkConfig = config_for(tmp_path, host)
        brokers = Brokers(tmp_path, config)
        inputs = tmp_path / "in"
        inputs.mkdir()
        (inputs / "ca.pem").write_bytes(host.authority.pem)
        spec = RunSpec(argv=(), code=code, limits=LIMITS, read_only={"/in": str(inputs)})
        end, printed, facts = await run(sandbox, brokers, ["tls://index.test"], spec)
        brokers.close()
    assert printed == "unread\n"
    assert end.status is Status.ok
    assert [(fact.method, verdict.value) for fact, verdict in facts] == [("CONNECT", "allowed")]
    assert facts[0][0].received > len("unread")
