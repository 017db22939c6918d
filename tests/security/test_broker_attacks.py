"""Attacks on the broker: each ends with its own verdict, and nothing of it reaches a host."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from angelos.node.broker.models import BrokerLimits, Credential
from tests.integration.node.web import (
    BrokerAtHand,
    WebHost,
    broker_at_hand,
    config_for,
    page,
    web_host,
)

RULES = ["https://index.test/open/", "POST https://index.test/open/up", "http://plain.test/open/"]
TUNNEL = "index.test:443"
SECRET = "Bearer 0123456789abcdef"


@pytest.fixture
async def host() -> AsyncIterator[WebHost]:
    async with web_host() as served:
        served.pages = {
            "/open/a": page(b"open"),
            "/open/up": lambda _, body: page(b"got " + body),
            "/secret": page(b"SECRET"),
        }
        yield served


@pytest.fixture
async def broker(host: WebHost, tmp_path: Path) -> AsyncIterator[BrokerAtHand]:
    async with broker_at_hand(RULES, config_for(tmp_path, host)) as at_hand:
        yield at_hand


def request(line: str, *headers: str, body: bytes = b"", name: str = "index.test") -> bytes:
    head = [line, f"Host: {name}", "Connection: close", *headers]
    return "\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body


INSIDE = {
    "another path": (request("GET /secret HTTP/1.1"), "no-rule"),
    "dots": (request("GET /open/../secret HTTP/1.1"), "malformed"),
    "escaped dots": (request("GET /open/%2e%2e/secret HTTP/1.1"), "malformed"),
    "escaped twice": (request("GET /open/%252e%252e/secret HTTP/1.1"), "malformed"),
    "escaped slash": (request("GET /open/..%2fsecret HTTP/1.1"), "malformed"),
    "parameters": (request("GET /open/..;/secret HTTP/1.1"), "malformed"),
    "backslashes": (request("GET /open\\..\\secret HTTP/1.1"), "malformed"),
    "empty folder": (request("GET //open/a HTTP/1.1"), "malformed"),
    "another case": (request("GET /OPEN/a HTTP/1.1"), "no-rule"),
    "a longer name": (request("GET /openx HTTP/1.1"), "no-rule"),
    "another method": (request("DELETE /open/a HTTP/1.1"), "no-rule"),
    "post": (request("POST /open/a HTTP/1.1", "Content-Length: 0"), "no-rule"),
    "a method in small letters": (request("get /open/a HTTP/1.1"), "no-rule"),
    "Host": (request("GET /open/a HTTP/1.1", name="other.test"), "other-host"),
    "port": (request("GET /open/a HTTP/1.1", name="index.test:8443"), "other-host"),
    "two Hosts": (request("GET /open/a HTTP/1.1", "Host: other.test"), "malformed"),
    "absolute form": (request("GET https://other.test/ HTTP/1.1"), "malformed"),
    "tunnel in a tunnel": (request("CONNECT other.test:443 HTTP/1.1"), "malformed"),
    "two lengths": (
        request("POST /open/up HTTP/1.1", "Content-Length: 4", "Content-Length: 5", body=b"abcd"),
        "malformed",
    ),
    "length and chunks": (
        request(
            "POST /open/up HTTP/1.1",
            "Content-Length: 4",
            "Transfer-Encoding: chunked",
            body=b"0\r\n\r\nGET /secret HTTP/1.1\r\nHost: index.test\r\n\r\n",
        ),
        "malformed",
    ),
    "unknown coding": (
        request("POST /open/up HTTP/1.1", "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
        "malformed",
    ),
    "space before colon": (
        request("POST /open/up HTTP/1.1", "Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
        "malformed",
    ),
    "chunks in 1.0": (
        request("POST /open/up HTTP/1.0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        "malformed",
    ),
    "a length with a sign": (
        request("POST /open/up HTTP/1.1", "Content-Length: +4", body=b"abcd"),
        "malformed",
    ),
    "bare returns": (b"GET /open/a HTTP/1.1\nHost: index.test\rX: y\n\n", "malformed"),
    "a null byte": (request("GET /open/a HTTP/1.1", "X: a\x00b"), "malformed"),
    "long head": (request("GET /open/a HTTP/1.1", "X: " + "y" * 40_000), "limit"),
    "headers": (request("GET /open/a HTTP/1.1", *(f"X-{n}: 1" for n in range(200))), "limit"),
}


async def test_inside_a_tunnel(host: WebHost, broker: BrokerAtHand) -> None:
    """One broker for all of them: none may leave anything behind for the next."""
    for name, (attack, verdict) in INSIDE.items():
        answer = await broker.say(attack, connect=TUNNEL, tls="index.test")
        assert broker.verdicts == [verdict], name
        assert b"SECRET" not in answer, name
        assert answer.split(b" ")[1] in {b"400", b"403", b"429"}, name
        assert host.heads == [], name
        broker.facts.clear()


ELSEWHERE = {
    "index.test:22": "no-rule",
    "index.test:80": "no-rule",
    "other.test:443": "no-rule",
    "index.test": "no-rule",
    "sub.index.test:443": "no-rule",
    "index.test.evil.test:443": "no-rule",
    "127.0.0.1:443": "malformed",
    "[::1]:443": "malformed",
    "[::ffff:127.0.0.1]:443": "malformed",
    "2130706433:443": "malformed",
    "0x7f000001:443": "malformed",
    "0177.0.0.1:443": "malformed",
    "127.1:443": "malformed",
    "index.test:0443": "malformed",
    "x@index.test:443": "malformed",
    "index.test:443:443": "malformed",
    "index.test:99999": "malformed",
    "plain.test:80": "no-rule",
    "xn--index.test:443": "malformed",
}


async def test_tunnels_to_elsewhere(host: WebHost, broker: BrokerAtHand) -> None:
    for target, verdict in ELSEWHERE.items():
        answer = await broker.say(b"", connect=target)
        assert broker.verdicts == [verdict], target
        assert answer.startswith((b"HTTP/1.1 403", b"HTTP/1.1 400")), target
        assert host.connections == 0, target
        broker.facts.clear()


async def test_a_handshake_that_names_another_host(host: WebHost, broker: BrokerAtHand) -> None:
    said = request("GET /open/a HTTP/1.1")
    for name in ("other.test", ""):
        assert await broker.say(said, connect=TUNNEL, tls=name) == b""
    assert broker.verdicts == ["other-host"] * 2
    assert host.connections == 0


async def test_one_host_has_one_spelling(host: WebHost, broker: BrokerAtHand) -> None:
    said = request("GET /open/%61 HTTP/1.1", name="INDEX.test.:443")
    answer = await broker.say(said, connect="Index.TEST.:443", tls="index.test")
    assert answer.endswith(b"open")
    assert host.heads[0].startswith(b"GET /open/a HTTP/1.1\r\nhost: index.test\r\n")
    assert broker.verdicts == ["allowed"]


async def test_what_is_said_before_its_turn_or_without_tls(
    host: WebHost, broker: BrokerAtHand
) -> None:
    early = b"CONNECT index.test:443 HTTP/1.1\r\nHost: x\r\n\r\n" + request("GET /secret HTTP/1.1")
    await broker.say(early)
    await broker.say(request("GET /secret HTTP/1.1"), connect=TUNNEL)
    await broker.say(request("GET /open/a HTTP/1.1"))
    await broker.say(request("GET https://index.test/open/a HTTP/1.1"))
    assert broker.verdicts == ["malformed"] * 4
    assert host.connections == 0


async def test_a_second_request_is_looked_at_as_the_first(
    host: WebHost, broker: BrokerAtHand
) -> None:
    first = b"POST /open/up HTTP/1.1\r\nHost: index.test\r\nContent-Length: 4\r\n\r\nabcd"
    answer = await broker.say(
        first + request("GET /secret HTTP/1.1"), connect=TUNNEL, tls="index.test"
    )
    assert b"got abcd" in answer
    assert b"SECRET" not in answer
    assert broker.verdicts == ["allowed", "no-rule"]
    assert len(host.heads) == 1


async def test_headers_of_the_connection_do_not_pass(host: WebHost, broker: BrokerAtHand) -> None:
    said = request(
        "GET /open/a HTTP/1.1", "Upgrade: websocket", "Proxy-Authorization: Basic x", "TE: x",
        "X-Mine: 1", "X-Drop: 1", "Connection: x-drop",
    )  # fmt: skip
    await broker.say(said, connect=TUNNEL, tls="index.test")
    names = {line.split(b":")[0] for line in host.heads[0].split(b"\r\n")[1:] if line}
    assert names == {b"host", b"x-mine", b"connection"}


async def test_a_redirect_is_a_request_of_its_own(host: WebHost, broker: BrokerAtHand) -> None:
    moved = page(b"", b"Location: https://other.test/", status=b"302 Found")
    host.pages["/open/a"] = moved
    answer = await broker.say(request("GET /open/a HTTP/1.1"), connect=TUNNEL, tls="index.test")
    assert answer.startswith(b"HTTP/1.1 302")
    refused = await broker.say(b"", connect="other.test:443")
    assert refused.startswith(b"HTTP/1.1 403")
    assert broker.verdicts == ["allowed", "no-rule"]


INNER = ("127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "10.0.0.1", "0.0.0.0")


async def test_a_name_server_that_leads_inside(host: WebHost, tmp_path: Path) -> None:
    """The name is open; its address is not. Nor is it later, when the answer has changed."""
    answers = [[address] for address in INNER] + [["93.184.216.34", "127.0.0.1"]]
    count = len(answers)

    async def lookup(_: str) -> Sequence[str]:
        return answers.pop(0)

    name = f"a.test:{host.port}"
    rules = [f"https://{name}/", f"http://{name}/"]
    async with broker_at_hand(rules, config_for(tmp_path, host), lookup=lookup) as broker:
        for _ in range(count - 1):
            said = request("GET / HTTP/1.1", name=name)
            answer = await broker.say(said, connect=name, tls="a.test")
            assert answer.startswith(b"HTTP/1.1 403")
        await broker.say(request(f"GET http://{name}/ HTTP/1.1", name=name))
        assert broker.verdicts == ["address"] * count
    assert host.connections == 0


async def test_a_host_with_a_certificate_of_another(host: WebHost, tmp_path: Path) -> None:
    config = config_for(tmp_path, host)
    config.hosts["a.test"] = f"127.0.0.1:{host.port}"
    async with broker_at_hand(["https://a.test/"], config) as broker:
        said = request("GET / HTTP/1.1", name="a.test")
        answer = await broker.say(said, connect="a.test:443", tls="a.test")
        assert answer.startswith(b"HTTP/1.1 502")
        assert broker.verdicts == ["unreachable"]
    assert host.heads == []


async def test_a_whole_host_is_the_one_that_the_handshake_names(
    host: WebHost, tmp_path: Path
) -> None:
    async with broker_at_hand(["tls://index.test"], config_for(tmp_path, host)) as broker:
        for name in ("other.test", ""):
            await broker.say(request("GET / HTTP/1.1"), connect=TUNNEL, tls=name)
        await broker.say(request("GET /secret HTTP/1.1"), connect=TUNNEL)
        assert broker.verdicts == ["other-host", "malformed", "malformed"]
    assert host.connections == 0


async def test_a_credential_is_put_in_and_never_comes_back(host: WebHost, tmp_path: Path) -> None:
    credential = Credential(name="key", host="index.test", value=SECRET)

    def echo(head: bytes, _: bytes) -> bytes:
        return page(b"you sent " + head, b"X-Echo: " + SECRET.encode())

    host.pages["/v1/echo"] = echo
    config = config_for(tmp_path, host, credentials=(credential,))
    rules = ["https://index.test/v1/ as key", "https://index.test/open/"]
    async with broker_at_hand(rules, config) as broker:
        said = request("GET /v1/echo HTTP/1.1", "authorization: Bearer mine", "Range: bytes=0-3")
        answer = await broker.say(said, connect=TUNNEL, tls="index.test")
        await broker.say(request("GET /open/a HTTP/1.1"), connect=TUNNEL, tls="index.test")
        assert broker.verdicts == ["allowed", "allowed"]
    assert f"authorization: {SECRET}".encode() in host.heads[0].lower().replace(
        b"bearer", b"Bearer"
    )
    assert b"mine" not in host.heads[0]
    assert b"authorization" not in host.heads[1].lower()
    assert b"you sent" in answer
    assert SECRET.encode() not in answer
    assert b"0123456789" not in answer


async def test_limits_of_requests_bodies_and_bytes(host: WebHost, tmp_path: Path) -> None:
    limits = BrokerLimits(requests=3, request_bytes=10, total_bytes=30)
    host.pages["/open/a"] = page(b"x" * 100)
    async with broker_at_hand(RULES, config_for(tmp_path, host), limits=limits) as broker:
        large = request("POST /open/up HTTP/1.1", "Content-Length: 11", body=b"y" * 11)
        answer = await broker.say(large, connect=TUNNEL, tls="index.test")
        assert answer.startswith(b"HTTP/1.1 429")
        await broker.say(request("GET /open/a HTTP/1.1"), connect=TUNNEL, tls="index.test")
        assert broker.verdicts == ["limit", "limit"]
        answer = await broker.say(b"", connect=TUNNEL)
        assert answer.startswith(b"HTTP/1.1 429")


async def test_a_connection_outlives_others_that_cannot_be_accepted(
    host: WebHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    accept = loop.sock_accept
    failures, accepted = [OSError(24, "Too many open files")], asyncio.Event()

    async def sometimes(listener: socket.socket) -> tuple[socket.socket, object]:
        pair = await accept(listener)
        accepted.set()
        if held and failures:
            pair[0].close()
            raise failures.pop()
        return pair

    monkeypatch.setattr(loop, "sock_accept", sometimes)
    held = False
    async with broker_at_hand(RULES, config_for(tmp_path, host)) as broker:
        reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
        writer.write(b"GET http://plain.test/secret HTTP/1.1\r\n")
        await asyncio.wait_for(accepted.wait(), 60)
        held = True
        await broker.say(b"")
        writer.write(b"Host: plain.test\r\n\r\n")
        assert b"403" in await reader.readline()
        writer.close()
        await writer.wait_closed()


async def test_what_is_too_much_is_reported_once(host: WebHost, tmp_path: Path) -> None:
    limits = BrokerLimits(requests=2)
    async with broker_at_hand(RULES, config_for(tmp_path, host), limits=limits) as broker:
        for _ in range(3):
            await broker.say(b"no request\r\n\r\n")
        for _ in range(3):
            answer = await broker.say(b"", connect="elsewhere.test:443")
            assert answer.startswith(b"HTTP/1.1 429")
        assert broker.verdicts == ["malformed", "malformed", "limit"]


async def test_an_answer_that_hides_an_echo_is_refused(host: WebHost, tmp_path: Path) -> None:
    credential = Credential(name="key", host="index.test", value=SECRET)
    host.pages["/v1/packed"] = page(b"packed", b"Content-Encoding: gzip")
    config = config_for(tmp_path, host, credentials=(credential,))
    async with broker_at_hand(["https://index.test/v1/ as key"], config) as broker:
        said = request("GET /v1/packed HTTP/1.1", "Accept-Encoding: gzip")
        answer = await broker.say(said, connect=TUNNEL, tls="index.test")
        assert answer.startswith(b"HTTP/1.1 502")
        assert b"\r\n\r\npacked" not in answer
        assert broker.verdicts == ["unreachable"]


async def test_connections_that_say_nothing_end_and_others_wait(
    host: WebHost, tmp_path: Path
) -> None:
    limits = BrokerLimits(connections=2, idle_s=0.3)
    async with broker_at_hand(RULES, config_for(tmp_path, host), limits=limits) as broker:
        idle = [socket.create_connection(("127.0.0.1", broker.port)) for _ in range(2)]
        try:
            answer = await broker.say(request("GET /open/a HTTP/1.1"))  # waits for its turn
            assert answer.startswith(b"HTTP/1.1 400")
            for sock in idle:
                assert await asyncio.to_thread(sock.recv, 1) == b""
        finally:
            for sock in idle:
                sock.close()


async def test_a_request_that_is_cut_off_by_the_end_of_its_box_is_reported(
    host: WebHost, tmp_path: Path
) -> None:
    begun = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    config = config_for(tmp_path, host)
    config.hosts["plain.test"] = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        async with broker_at_hand(RULES, config) as broker:
            said = request("GET http://plain.test/open/x HTTP/1.1", name="plain.test")
            asking = asyncio.create_task(broker.say(said))
            async with asyncio.timeout(60):
                await begun.wait()
        await asking
        assert [fact.reason for fact, _ in broker.facts] == ["it was cut off"]
