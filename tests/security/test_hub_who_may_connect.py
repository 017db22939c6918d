"""Attacks on the hub's doors: wrong, missing, expired and revoked certificates, used tokens."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import StreamClosedError
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.websocket import websocket_connect

from angelos.adapters.host import clock as clock_module
from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.datadir import write_private
from angelos.adapters.identity.authority import (
    Pki,
    client_context,
    key_pem,
    signing_request,
)
from angelos.adapters.identity.enrolment import (
    Identity,
    Token,
    decode_token,
    encode_token,
    enrol,
)
from angelos.adapters.net.websocket import CHANNEL_PATH, connect_channel
from angelos.core.api import CreateEnrolment, Ok
from angelos.core.errors import Conflict, InvalidInput, Unauthenticated, Unavailable
from angelos.core.facts import Kind
from angelos.core.frames import Bye, Ping, read_frame, write_frame
from angelos.core.ids import PrincipalId
from angelos.core.permissions import OWNER, Permission
from angelos.core.routes import Call, Nothing, Route
from angelos.testing import ManualClock, eventually, facts_until, next_fact
from angelos.testing.hub import OPERATOR, connect, join, running_hub

NODE, ADA = PrincipalId("node/exec1"), PrincipalId("agent/ada")


async def ping(call: Call[Nothing]) -> Ok:
    return Ok(ok=call.principal.id == ADA)


async def bundle(call: Call[Nothing]) -> Ok:
    return Ok()


ROUTES = [
    Route("GET", "/ping", Permission.status_read, ping, response=Ok),
    Route("GET", "/bundle", Permission.revisions_read, bundle, response=Ok),
]


@pytest.fixture
async def hub(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path, routes=ROUTES) as running:
        yield running


async def get(url: str, context: ssl.SSLContext | None, **how) -> tuple[int, dict]:
    client = SimpleAsyncHTTPClient(force_instance=True)
    try:
        answer = await client.fetch(HTTPRequest(url, ssl_options=context, **how), raise_error=False)
        if answer.code == 599:
            raise answer.error
        return answer.code, msgspec.json.decode(answer.body)
    finally:
        client.close()


def forged(folder: Path, pki: Pki, who: str = "node/exec1") -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    issued = pki.issue(signing_request(key), PrincipalId(who))
    write_private(folder / "chain.pem", key_pem(key) + issued.certificate.encode())
    return folder / "chain.pem"


REFUSED_BY_TLS = (ssl.SSLError, StreamClosedError, OSError, HTTPClientError)


async def test_nobody_without_a_certificate(hub):
    with pytest.raises(REFUSED_BY_TLS):
        await get(f"{hub.url}/angelos/api/ping", client_context(hub._pki.ca_pem))


async def test_nobody_with_a_certificate_of_another_ca(hub, tmp_path):
    (tmp_path / "other").mkdir()
    chain = forged(tmp_path, Pki.open(tmp_path / "other", SystemClock()))
    context = client_context(hub._pki.ca_pem, chain)
    with pytest.raises(REFUSED_BY_TLS):
        await get(f"{hub.url}/angelos/api/ping", context)
    with pytest.raises(Unavailable):
        async with connect_channel(hub.url, context, SystemClock(), patience_s=0.5):
            pytest.fail("a stranger was welcomed")


async def test_nobody_with_an_expired_certificate(hub, tmp_path):
    long_ago = ManualClock(SystemClock().time() - 3 * 24 * 3600)
    chain = forged(tmp_path, Pki(tmp_path / "keys", long_ago))
    with pytest.raises(REFUSED_BY_TLS):
        await get(f"{hub.url}/angelos/api/ping", client_context(hub._pki.ca_pem, chain))


async def test_nobody_with_the_hubs_own_certificate(hub, tmp_path):
    context = client_context(hub._pki.ca_pem, tmp_path / "keys" / "hub.pem")
    with pytest.raises(REFUSED_BY_TLS):  # made for servers, no good for clients
        await get(f"{hub.url}/angelos/api/ping", context)


async def test_a_certificate_that_was_never_recorded_opens_nothing(hub, tmp_path):
    context = client_context(hub._pki.ca_pem, forged(tmp_path, hub._pki))
    code, problem = await get(f"{hub.url}/angelos/api/bundle", context)
    assert (code, problem["code"]) == (401, "unauthenticated")
    with pytest.raises(Unauthenticated):
        async with connect_channel(hub.url, context, SystemClock()):
            pytest.fail("a stranger was welcomed")


async def test_old_tls_is_refused(hub, tmp_path):
    identity = await join(hub, "agent", "ada", tmp_path / "ada")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=identity.enrolled.ca)
    context.load_cert_chain(tmp_path / "ada" / "identity.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(REFUSED_BY_TLS):
        await get(f"{hub.url}/angelos/api/ping", context)


async def test_a_client_refuses_a_hub_of_another_ca(hub, tmp_path):
    identity = await join(hub, "agent", "ada", tmp_path / "ada")
    context = client_context(Pki.open(tmp_path / "other", SystemClock()).ca_pem)
    context.load_cert_chain(tmp_path / "ada" / "identity.pem")
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        async with connect_channel(hub.url, context, SystemClock(), patience_s=0.5):
            pytest.fail("a stranger was trusted")
    assert identity.id == ADA


async def test_agents_and_nodes_may_each_do_their_own(hub, tmp_path):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    node = await join(hub, "node", "exec1", tmp_path / "exec1")
    url = f"{hub.url}/angelos/api"
    assert await get(f"{url}/ping", ada.client_context()) == (200, {"ok": True})
    for path in ("ping", "events"):
        code, problem = await get(f"{url}/{path}", node.client_context())
        assert (code, problem["code"]) == (403, "forbidden")
    how = {"method": "POST", "body": '{"kind":"agent","name":"eve"}'}
    for context in (ada.client_context(), node.client_context()):
        code, problem = await get(f"{url}/enrolments", context, **how)
        assert (code, problem["code"]) == (403, "forbidden")
        how = {"method": "POST", "body": "{}"}
        code, _ = await get(f"{url}/principals/agent/eve/quarantine", context, **how)
        assert code == 403


# -- enrolment -------------------------------------------------------------------------------


async def test_a_token_works_once(hub, tmp_path):
    token = (await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)).token
    answers = await asyncio.gather(
        *(enrol(token, tmp_path / f"try{i}") for i in range(4)), return_exceptions=True
    )
    assert sum(isinstance(a, Identity) for a in answers) == 1
    assert sum(isinstance(a, Unauthenticated) for a in answers) == 3


async def test_an_expired_or_invented_token_is_refused(hub, tmp_path, database):
    token = (await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)).token
    invented = msgspec.structs.replace(decode_token(token), secret="guess")
    with pytest.raises(Unauthenticated):
        await enrol(encode_token(invented), tmp_path / "a")
    async with database.transaction() as connection:
        await connection.execute("update enrolment set expires_at = 1")
    with pytest.raises(Unauthenticated):
        await enrol(token, tmp_path / "b")


async def test_a_bad_request_does_not_use_the_token_up(hub, tmp_path):
    token = (await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)).token
    parts = decode_token(token)
    body = msgspec.json.encode({"secret": parts.secret, "csr": "nonsense"})
    code, problem = await get(
        f"{parts.url}/angelos/api/enrol", client_context(parts.ca), method="POST", body=body
    )
    assert (code, problem["code"]) == (400, "invalid-input")
    assert (await enrol(token, tmp_path / "ada")).id == ADA


async def test_a_folder_that_cannot_be_written_does_not_use_the_token_up(hub, tmp_path):
    wish = CreateEnrolment(kind="agent", name="ada")
    token = (await hub.create_enrolment(wish, OPERATOR)).token
    with pytest.raises(InvalidInput, match="not used"):
        await enrol(token, Path("/proc/self"))
    assert (await enrol(token, tmp_path / "ada")).id == ADA


async def test_the_ca_in_the_token_is_pinned(hub, tmp_path):
    token = (await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)).token
    other = Pki.open(tmp_path / "other", SystemClock()).ca_pem
    lie = Token(url=decode_token(token).url, ca=other, secret=decode_token(token).secret)
    with pytest.raises(Unavailable):
        await enrol(encode_token(lie), tmp_path / "ada")
    assert (await enrol(token, tmp_path / "ada")).id == ADA  # the secret was not sent


@pytest.mark.parametrize("token", ["", "x", "A" * 20_000, "!!!", "gqR1cmw", "\ud800"])
def test_a_token_that_is_none_is_invalid_input(token):
    with pytest.raises(InvalidInput):
        decode_token(token)


async def test_the_enrolment_listener_serves_nothing_else(hub):
    context = client_context(hub._pki.ca_pem)
    for path in ("ping", "renew", "events", "openapi.json", "principals/agent/x/release"):
        code, problem = await get(f"{hub.enrol_url}/angelos/api/{path}", context)
        assert (code, problem["code"]) == (404, "not-found")


async def test_key_files_are_private_and_the_key_never_leaves(hub, tmp_path):
    await join(hub, "agent", "ada", tmp_path / "ada")
    for path in (*(tmp_path / "ada").iterdir(), *(tmp_path / "keys").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path
    assert "PRIVATE" not in (tmp_path / "ada" / "enrolled.json").read_text()


async def test_renewal_gives_a_new_key_on_the_live_context(hub, tmp_path):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    before = (tmp_path / "ada" / "identity.pem").read_text()
    async with connect(hub, ada) as channel:
        await ada.renew()
        assert (tmp_path / "ada" / "identity.pem").read_text() != before
        code, _ = await get(f"{hub.url}/angelos/api/ping", ada.client_context())
        assert code == 200
        assert channel.ended is None  # nobody was dropped
    assert Identity.load(tmp_path / "ada").not_after >= ada.renew_at


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("enrolled.json", b"{"),
        ("enrolled.json", None),  # whole, but its certificate is none
        ("identity.pem", b"nothing"),
    ],
)
async def test_an_identity_that_is_damaged_is_named(hub, tmp_path, name, body):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    if body is None:
        body = msgspec.json.encode(msgspec.structs.replace(ada.enrolled, certificate="none"))
    (tmp_path / "ada" / name).write_bytes(body)
    with pytest.raises(InvalidInput):
        Identity.load(tmp_path / "ada")


async def test_at_half_life_it_is_renewed_by_itself(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(clock_module, "PIECE_S", 0.01)
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    first, clock = ada.enrolled.certificate, ManualClock(ada.renew_at - 10)
    renewing = asyncio.create_task(ada.keep_renewed(clock))
    try:
        async with connect(hub, ada) as channel:
            assert ada.enrolled.certificate == first
            clock.advance(12)  # as after a night with the lid closed
            await eventually(lambda: ada.enrolled.certificate != first, "the renewal")
            code, _ = await get(f"{hub.url}/angelos/api/ping", ada.client_context())
            assert (code, channel.ended) == (200, None)
    finally:
        renewing.cancel()
        await asyncio.wait({renewing})


ANN, OLGA = PrincipalId("person/ann"), PrincipalId("person/olga")


async def test_the_name_of_a_live_agent_is_given_to_nobody(hub, tmp_path):
    wish = CreateEnrolment(kind="agent", name="ada")
    spare = (await hub.create_enrolment(wish, OLGA)).token
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    for by in (ANN, OLGA, OWNER.id):
        with pytest.raises(Conflict, match="alive"):
            await hub.create_enrolment(wish, by)
    with pytest.raises(Conflict, match="alive"):  # made before there was an ada
        await enrol(spare, tmp_path / "again")
    await hub.quarantine(ADA, "lost", by=ANN)
    await hub.release(ADA, by=ANN, new_key=True)
    token = (await hub.create_enrolment(wish, ANN)).token
    assert (await enrol(token, tmp_path / "again")).id == ada.id


async def test_two_people_enrol_a_live_node_again(hub, tmp_path):
    wish = CreateEnrolment(kind="node", name="far")
    await join(hub, "node", "far", tmp_path / "far")
    for _ in range(2):
        with pytest.raises(Conflict, match="second person"):
            await hub.create_enrolment(wish, ANN)
    token = (await hub.create_enrolment(wish, OLGA)).token
    assert (await enrol(token, tmp_path / "again")).id == "node/far"
    with pytest.raises(Conflict, match="second person"):  # once
        await hub.create_enrolment(wish, OLGA)


async def test_one_who_made_the_other_is_no_second_person_and_the_systems_node_is_its_own(
    hub, tmp_path
):
    object.__setattr__(hub._parts, "same_hands", lambda one, other: True)
    object.__setattr__(hub._parts, "owns", lambda node: node == "node/own")
    for name in ("own", "far"):
        await join(hub, "node", name, tmp_path / name)
        for by in (ANN, OLGA):
            with pytest.raises(Conflict, match="second person"):
                await hub.create_enrolment(CreateEnrolment(kind="node", name=name), by)
    await hub.create_enrolment(CreateEnrolment(kind="node", name="own"), OWNER.id)
    with pytest.raises(Conflict):
        await hub.create_enrolment(CreateEnrolment(kind="node", name="far"), OWNER.id)


# -- quarantine ------------------------------------------------------------------------------


async def test_quarantine_cuts_at_once_and_for_good(hub, tmp_path, journal, database, queue):
    spare = (await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)).token
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    events = await websocket_connect(
        HTTPRequest(
            f"wss{hub.url[5:]}/angelos/api/events?kinds=task.accepted",
            ssl_options=ada.client_context(),
        )
    )
    async with connect(hub, ada) as channel:
        await hub.quarantine(ADA, "it wrote to a protected path")
        with pytest.raises(Unavailable) as caught:
            await channel.recv()
        assert caught.value.extra["code"] == "quarantined"
    assert await events.read_message() is None
    events.close()
    assert await hub.is_quarantined(ADA)

    for refused in (
        get(f"{hub.url}/angelos/api/ping", ada.client_context()),
        get(f"{hub.url}/angelos/api/events", ada.client_context()),
    ):
        code, problem = await refused
        assert (code, problem["code"]) == (401, "unauthenticated")
        assert problem["extra"] == {"reason": "quarantined"}
    with pytest.raises(Unauthenticated, match="quarantined"):
        async with connect(hub, ada):
            pytest.fail("welcomed in quarantine")
    with pytest.raises(Unauthenticated):
        await ada.renew()
    with pytest.raises(Unauthenticated):
        await enrol(spare, tmp_path / "again")
    with pytest.raises(Unauthenticated, match="quarantined"):
        await hub.create_enrolment(CreateEnrolment(kind="agent", name="ada"), OPERATOR)

    await hub.quarantine(ADA, "again")  # idempotent
    facts = await journal.read("0-0", kinds=[Kind.principal_quarantined])
    assert [(f.subject, f.plain()) for f in facts] == [
        (ADA, {"reason": "it wrote to a protected path"})
    ]
    async with running_hub(database, journal, queue, tmp_path, routes=ROUTES) as restarted:
        with pytest.raises(Unauthenticated, match="quarantined"):
            async with connect(restarted, ada):
                pytest.fail("welcomed in quarantine")


async def test_a_kept_alive_connection_is_cut_as_well(hub, tmp_path):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    host, port = hub.url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=ada.client_context())
    writer.write(b"GET /angelos/api/ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    await reader.readuntil(b'{"ok":true}')
    await hub.quarantine(ADA, "test")
    assert await reader.read() == b""
    writer.close()


async def test_after_a_release_its_certificate_is_good_again(hub, tmp_path):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    assert await hub.knows(ADA)
    assert not await hub.knows(PrincipalId("agent/nobody"))
    await hub.quarantine(ADA, "test")
    await hub.release(ADA, probation_until=9.0)
    async with connect(hub, ada) as channel:
        assert channel is not None
    await hub.quarantine(ADA, "again")
    with pytest.raises(Unauthenticated, match="quarantined"):
        async with connect(hub, ada):
            pytest.fail("welcomed in quarantine")


async def test_after_a_release_with_a_new_key_only_a_new_enrolment_opens(hub, tmp_path, journal):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    await hub.quarantine(ADA, "test")
    await hub.release(ADA, new_key=True)
    await hub.release(ADA, new_key=True)
    assert not await hub.is_quarantined(ADA)
    with pytest.raises(Unauthenticated, match="No certificate"):
        async with connect(hub, ada):
            pytest.fail("an old certificate was taken")
    again = await join(hub, "agent", "ada", tmp_path / "ada")
    async with connect(hub, again):
        await next_fact(journal, kind=Kind.agent_connected)
    facts = await facts_until(journal, lambda f: f.kind == Kind.agent_connected)
    assert [f.kind for f in facts].count("principal.released") == 1


async def test_quarantine_holds_while_postgres_is_away(hub, tmp_path, database):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    async with connect(hub, ada) as channel:
        async with database.transaction() as connection:
            await connection.execute("alter table quarantine rename to gone")
        with pytest.raises(Exception, match="quarantine"):
            await hub.quarantine(ADA, "test")
        with pytest.raises(Unavailable):
            await channel.recv()
        async with database.transaction() as connection:
            await connection.execute("alter table gone rename to quarantine")
    code, problem = await get(f"{hub.url}/angelos/api/ping", ada.client_context())
    assert (code, problem["code"]) == (401, "unauthenticated")


async def test_a_quarantine_that_was_not_told_is_told_at_the_next_start(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        await hub._identities.quarantine(ADA, "we died right after this")
    async with running_hub(database, journal, queue, tmp_path):
        fact = await next_fact(journal, kind=Kind.principal_quarantined)
    assert fact.plain() == {"reason": "we died right after this"}


# -- frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [b"", b"\xc1garbage", "text", write_frame(Ping())])
async def test_a_peer_that_does_not_say_hello_is_shown_out(hub, tmp_path, first):
    ada = await join(hub, "agent", "ada", tmp_path / "ada")
    socket = await websocket_connect(
        HTTPRequest(f"wss{hub.url[5:]}{CHANNEL_PATH}", ssl_options=ada.client_context())
    )
    await socket.write_message(first, binary=isinstance(first, bytes))
    answer = await socket.read_message()
    assert isinstance(answer, bytes)
    bye = read_frame(answer)
    assert isinstance(bye, Bye)
    assert bye.code == "protocol"
    assert await socket.read_message() is None
    socket.close()
