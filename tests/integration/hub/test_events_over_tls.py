"""Agents follow the journal over the hub's own socket."""

from __future__ import annotations

import asyncio
import socket
import ssl

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from angelos.core.facts import Kind, from_json
from angelos.hub.config import HubConfig
from angelos.hub.limits import EVENT_SOCKETS
from angelos.testing import eventually, make_fact
from angelos.testing.hub import join, running_hub


async def _close(events):
    """Close a socket and wait until both ends have: otherwise the loop ends before they do."""
    events.close()
    while await events.read_message() is not None:
        pass


async def test_events_come_in_order_and_go_on_from_an_offset(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        await journal.append([make_fact(Kind.task_accepted, f"task-{i}") for i in range(5)])
        after, seen = "0-0", []
        for _ in range(5):
            events = await websocket_connect(
                HTTPRequest(
                    f"wss{hub.url[5:]}/angelos/api/events?kinds=task.accepted&after={after}",
                    ssl_options=ada.client_context(),
                )
            )
            fact = from_json(await events.read_message())
            after = fact.offset
            seen.append(fact.subject)
            await _close(events)
    assert seen == [f"task-{i}" for i in range(5)]


async def test_a_reader_that_does_not_read_is_let_go(database, journal, queue, tmp_path):
    config = HubConfig(patience_s=0.2)
    async with running_hub(database, journal, queue, tmp_path, config=config) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        big = {"text": "x" * 100_000}
        for _ in range(10):
            await journal.append(
                [make_fact(Kind.task_output, "task-1", data=big) for _ in range(10)]
            )
        host, port = hub.url.removeprefix("https://").split(":")
        plain = socket.create_connection((host, int(port)))
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

        def upgrade() -> ssl.SSLSocket:
            link = ada.client_context().wrap_socket(plain, server_hostname=host)
            link.sendall(
                b"GET /angelos/api/events HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            return link

        link = await asyncio.to_thread(upgrade)
        name = "events for agent/ada"
        await eventually(lambda: any(t.get_name() == name for t in asyncio.all_tasks()))
        await eventually(lambda: not any(t.get_name() == name for t in asyncio.all_tasks()))
        link.close()


async def test_the_thirty_third_event_socket_of_an_identity_is_busy(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        ada = await join(hub, "agent", "ada", tmp_path / "ada")
        bob = await join(hub, "agent", "bob", tmp_path / "bob")

        def open_one(identity):
            return websocket_connect(
                HTTPRequest(
                    f"wss{hub.url[5:]}/angelos/api/events", ssl_options=identity.client_context()
                )
            )

        sockets = [await open_one(ada) for _ in range(EVENT_SOCKETS)]
        with pytest.raises(HTTPClientError) as error:
            await open_one(ada)
        assert error.value.code == 429
        assert error.value.response is not None
        assert int(error.value.response.headers["Retry-After"]) > 0
        await _close(await open_one(bob))
        await _close(sockets.pop())

        async def opened():
            try:
                sockets.append(await open_one(ada))
            except HTTPClientError:
                return False
            return True

        await eventually(opened, "a socket in the place of the closed one")
        await asyncio.gather(*(_close(each) for each in sockets))
