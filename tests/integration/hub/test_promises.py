"""Revocation of resumed TLS sessions, renewal while facts flow, a crowd that is only there."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import AsyncExitStack, closing, suppress
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest

from angelos.adapters.net.dial import dial, hang_up
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Fact, Kind, TaskOutput, TaskResult, from_json
from angelos.core.frames import FactReport, Settle
from angelos.core.ids import PrincipalId
from angelos.core.messages import Status, Tier, encode
from angelos.testing.hub import OPERATOR, connect, join, running_hub

ADA, NODE = PrincipalId("agent/ada"), PrincipalId("node/exec1")
CROWD, AT_ONCE = 100, 8
REQUEST = b"GET /angelos/api/events HTTP/1.1\r\nHost: hub\r\n\r\n"
"""What is no upgrade is refused with 400 to a peer, and with 401 to anybody else."""


def line_to(hub, context, session=None):
    """Return a TLS connection, resumed where the hub agrees."""
    where = urlsplit(hub.url)
    raw = socket.create_connection((where.hostname, where.port), timeout=60)
    return context.wrap_socket(raw, server_hostname=where.hostname, session=session)


def status_on(line):
    """Return the status of the answer to a request; b"" where the connection was closed."""
    line.sendall(REQUEST)
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = line.recv(4096)
        if not part:
            return b""
        answer += part
    return answer.split()[1]


async def test_a_tls_session_that_was_resumed_ends_with_a_revocation(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        context = ada.client_context()

        def resume_twice():
            with closing(line_to(hub, context)) as first:
                status = status_on(first)
                ticket = first.session
            second = line_to(hub, context, ticket)
            return status, second, status_on(second), second.session

        status, live, again, ticket = await asyncio.to_thread(resume_twice)
        with closing(live):
            assert live.session_reused
            assert status == again != b"401"
            await hub.quarantine(ADA, "It asked for it.")
            assert await asyncio.to_thread(live.recv, 4096) == b""

        def resume_once_more():
            with suppress(ssl.SSLError, OSError), closing(line_to(hub, context, ticket)) as third:
                return third.session_reused, status_on(third)
            return False, b""

        reused, refused = await asyncio.to_thread(resume_once_more)
        assert not reused
        assert refused in {b"401", b""}


async def test_certificates_are_renewed_while_facts_flow_over_one_connection(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        node = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, node) as channel:
            wire, before = channel.wire, node.enrolled.certificate
            reports = [_output(n) for n in range(300)]

            async def flow():
                for report in reports:
                    await channel.send([report])
                    await channel.drained()

            flowing = asyncio.create_task(flow())
            await node.renew()
            hub._pki.renew_server()
            hub._pki.load_server_chain(hub.listeners.peers.context)
            async with connect(hub, await join(hub, "agent", "ada", tmp_path / "ada")):
                pass  # a newcomer sees the hub's new certificate
            await flowing
            assert node.enrolled.certificate != before
            assert channel.wire is wire
        facts = await journal.read("0-0", kinds=[Kind.task_output])
        assert [fact.id for fact in facts] == [report.id for report in reports]
        ends = await journal.read("0-0", kinds=[Kind.node_disconnected])
        assert len(ends) <= 1  # its own goodbye


def _output(number):
    payload = TaskOutput(stream="stdout", text=str(number))
    fact = Fact.of(payload, at=time.time(), actor=NODE, subject="task-1")
    return FactReport(fact.id, encode(fact))


async def few_at_a_time(works):
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(work):
        async with gate:
            return await work

    return await asyncio.gather(*map(one, works))


async def test_a_task_runs_among_a_hundred_nodes_and_a_hundred_readers(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub, AsyncExitStack() as stack:
        nodes = await few_at_a_time(
            join(hub, "node", f"n{n}", tmp_path / f"n{n}") for n in range(CROWD)
        )
        agents = await few_at_a_time(
            join(hub, "agent", f"a{n}", tmp_path / f"a{n}") for n in range(4)
        )
        links = await few_at_a_time(
            stack.enter_async_context(connect(hub, node, patience_s=120)) for node in nodes
        )
        url = f"wss{hub.url[5:]}/angelos/api/events?kinds=task.finished"
        contexts = [agent.client_context() for agent in agents]
        readers = await few_at_a_time(
            dial(HTTPRequest(url, ssl_options=contexts[n % 4], request_timeout=120))
            for n in range(CROWD)
        )
        for reader in readers:
            stack.callback(hang_up, reader)
        last = nodes[-1].id
        header = EnvelopeHeader(
            id="c1", source=OPERATOR, destination=last, lane=Lane.command, sequence=1, codec="raw"
        )
        await queue.put(RoutedEnvelope(header, b"run"))
        (dispatch,) = await links[-1].recv()
        result = TaskResult(
            status=Status.ok, exit_code=0, stdout="42\n", stderr="", duration_s=0.0, node=last,
            tier=Tier.none,
        )  # fmt: skip
        fact = Fact.of(result, at=time.time(), actor=last, subject="task-1", outcome="ok")
        await links[-1].send([FactReport(fact.id, encode(fact)), Settle((dispatch.position,))])
        ends = await asyncio.gather(*(reader.read_message() for reader in readers))
        assert {from_json(end).id for end in ends} == {fact.id}
        assert all(link.online for link in links)
