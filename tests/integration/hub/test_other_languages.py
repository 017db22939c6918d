"""A peer in another language, enrolled and written from docs/reference/wire.md alone."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.net.dial import dial, hang_up, problem_of
from angelos.adapters.net.websocket import CHANNEL_PATH, connect_channel
from angelos.core.api import CreateEnrolment
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Kind, TaskResult
from angelos.core.frame_codecs import CODECS, JSON
from angelos.core.frames import Bye, Dispatch, FactReport, Ping, Post, PostReceipt, Settle
from angelos.core.grants import Grant, SignedGrant, digest, sign_grant
from angelos.core.ids import GrantId, PrincipalId, TaskId, new_command_id
from angelos.core.messages import Command, RunTask, encode
from angelos.core.signing import SigningKey
from angelos.hub.config import HubConfig
from angelos.testing import eventually, make_fact, need, next_fact
from angelos.testing.hub import OPERATOR, join, running_hub

ROOT = Path(__file__).parents[3]
PEER = ROOT / "examples" / "node-peer" / "peer.mjs"
NODE = PrincipalId("node/js")
KEY = SigningKey.generate()


def envelope(code: str, grant: SignedGrant | None = None) -> RoutedEnvelope:
    """A command to run `code`, with control's grant for it."""
    payload = encode(RunTask(task=TaskId(f"task-{code}"), code=code, stdin=bytes(70_000)))
    signed = sign_grant(
        KEY,
        Grant(
            id=GrantId("grant-1"), who=OPERATOR, what=digest(payload), where=NODE, policy="p",
            rule="r", not_after=time.time() + 60,
        ),
    )  # fmt: skip
    command = Command(id=new_command_id(), to=NODE, grant=grant or signed, payload=payload)
    header = EnvelopeHeader(
        id=command.id, source=PrincipalId("system/control"), destination=NODE, lane=Lane.command,
        sequence=1, codec="msgpack",
    )  # fmt: skip
    return RoutedEnvelope(header, encode(command))


def commands_of_the_page() -> list[str]:
    """The shell commands of wire.md: to enrol, and to renew."""
    page = (ROOT / "docs" / "reference" / "wire.md").read_text()
    return re.findall(r"```sh\n(.*?)```", page, re.DOTALL)


@asynccontextmanager
async def peer(folder: Path):
    process = await asyncio.create_subprocess_exec(
        "node", str(PEER), str(folder), stdout=sys.stderr, stderr=sys.stderr
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def test_a_peer_in_node_takes_tasks_and_answers_them_also_after_a_restart_of_the_hub(
    database, journal, queue, tmp_path
):
    need(shutil.which("node") is not None, "there is no Node.js")
    assert len(PEER.read_text().splitlines()) <= 60
    config, folder = HubConfig(grant_key=KEY.public.raw), tmp_path / "js"
    folder.mkdir()
    async with running_hub(database, journal, queue, tmp_path, config=config) as hub:
        wish = CreateEnrolment(kind="node", name="js")
        token = (await hub.create_enrolment(wish, OPERATOR)).token
        script = "set -eu\n" + "".join(commands_of_the_page())
        shell = await asyncio.create_subprocess_exec(
            "sh", "-c", script, cwd=folder, env={"PATH": "/usr/bin:/bin", "TOKEN": token}
        )
        assert await shell.wait() == 0
        assert {path.stat().st_mode & 0o77 for path in folder.iterdir()} == {0}
        async with peer(folder):
            await queue.put(envelope("a"))
            first = (await next_fact(journal, kind=Kind.task_finished)).payload()
            assert isinstance(first, TaskResult)
            assert (first.stdout, first.node) == ("A", NODE)
            port = int(hub.url.rpartition(":")[2])
            await hub.sessions.close()
            await hub.listeners.close()
            again = HubConfig(grant_key=KEY.public.raw, port=port)
            async with running_hub(database, journal, queue, tmp_path, config=again):
                stolen = sign_grant(
                    SigningKey.generate(),
                    Grant(
                        id=GrantId("grant-2"), who=OPERATOR, what="", where=NODE, policy="p",
                        rule="r", not_after=time.time() + 60,
                    ),
                )  # fmt: skip
                await queue.put(envelope("b", stolen))
                await queue.put(envelope("c"))
                await next_fact(journal, kind=Kind.task_finished, subject="task-c")

                async def refused() -> bool:
                    letters = await queue.dead_letters(NODE)
                    return [letter.reason for letter in letters] == ["refused"]

                await eventually(refused)

                async def settled() -> bool:
                    return not (await queue.depth(NODE)).waiting

                await eventually(settled)
    ended = [f.subject for f in await journal.read("0-0") if f.kind == Kind.task_finished]
    assert ended == ["task-a", "task-c"]


async def test_every_subprotocol_carries_facts_posts_and_dispatches(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        for number, codec in enumerate(CODECS.values()):
            identity = await join(hub, "node", f"n{number}", tmp_path / f"n{number}")
            context = identity.client_context()
            channel = connect_channel(hub.url, context, SystemClock(), codec=codec)
            async with channel:
                fact = make_fact(Kind.task_started, f"task-{number}", actor=identity.id)
                body = bytes(range(256)) * 100
                post = Post("p1", identity.id, Lane.message, 1, "raw", body, sticky="ä")
                await channel.send([FactReport(fact.id, encode(fact)), post])
                items = []
                while len(items) < 2:
                    items += await channel.recv()
                dispatch = next(item for item in items if isinstance(item, Dispatch))
                assert (dispatch.body, dispatch.header.source) == (body, identity.id)
                assert next(item for item in items if isinstance(item, PostReceipt)).code == ""
                await channel.send([Settle((dispatch.position,))])
                await next_fact(journal, kind=Kind.task_started, subject=f"task-{number}")


async def test_a_subprotocol_that_is_not_spoken_and_a_message_of_the_wrong_type_are_refused(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        address = hub.url.replace("https", "wss") + CHANNEL_PATH
        request = HTTPRequest(address, ssl_options=identity.client_context())
        with pytest.raises(HTTPClientError) as caught:
            await dial(request, subprotocols=["angelos.v2.json", "chat"])
        assert caught.value.code == 400
        assert problem_of(caught.value).code == "invalid-input"
        request = HTTPRequest(address, ssl_options=identity.client_context())
        socket = await dial(request, subprotocols=["chat", JSON.subprotocol])
        assert socket.selected_subprotocol == JSON.subprotocol
        await socket.write_message(JSON.write(Ping()), binary=True)
        bye = JSON.read(str(await socket.read_message()).encode())
        assert isinstance(bye, Bye)
        assert bye.code == "protocol"
        hang_up(socket)
