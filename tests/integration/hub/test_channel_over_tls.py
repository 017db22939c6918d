"""Commands go down and facts come up, over real mutual TLS and real stores."""

from __future__ import annotations

import asyncio
import math

import msgspec
import pytest

from angelos.control.config import ControlConfig
from angelos.control.projection import Projection
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.errors import Unavailable
from angelos.core.facts import Fact, Kind
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.grants import SignedGrant
from angelos.core.ids import PrincipalId, TaskId, new_command_id
from angelos.core.messages import CancelTask, Command, decode, encode
from angelos.core.node_profile import NodeProfile
from angelos.hub.config import HubConfig
from angelos.testing import eventually, facts_until, make_fact, next_fact
from angelos.testing.hub import AcceptAll, connect, join, running_hub

NODE = PrincipalId("node/exec1")


def command(task: str = "task-1") -> Command:
    return Command(
        id=new_command_id(),
        to=NODE,
        grant=SignedGrant(body=b"", signature=b""),
        payload=encode(CancelTask(task=TaskId(task))),
    )


def enveloped(command: Command) -> RoutedEnvelope:
    header = EnvelopeHeader(
        id=command.id, source=PrincipalId("system/control"), destination=NODE, lane=Lane.command,
        sequence=1, codec="msgpack",
    )  # fmt: skip
    return RoutedEnvelope(header, encode(command))


def report(fact: Fact) -> FactReport:
    return FactReport(fact.id, encode(fact))


def started(task: str) -> FactReport:
    return report(make_fact(Kind.task_started, task, actor=NODE))


async def waiting(queue) -> int:
    return (await queue.depth(NODE)).waiting.get(Lane.command, 0)


async def test_a_command_goes_down_and_its_facts_come_up(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        sent = command()
        await queue.put(enveloped(sent))
        profile = NodeProfile(version="1.2", cores=4, memory_bytes=8, languages=("python",))
        info = {"tier": "full", "pid": "7", "x": "y", **profile.texts()}
        async with connect(hub, identity, info=info) as channel:
            (dispatch,) = await channel.recv()
            assert isinstance(dispatch, Dispatch)
            assert dispatch.header == enveloped(sent).header
            assert decode(dispatch.body, Command) == sent
            fact = make_fact(Kind.task_started, "task-1", actor=NODE)
            await channel.send([report(fact), Settle((dispatch.position,))])
            await next_fact(journal, kind=Kind.task_started)

            async def acknowledged() -> bool:
                return await waiting(queue) == 0

            await eventually(acknowledged)
        facts = await facts_until(journal, lambda f: f.kind == Kind.node_disconnected)
    kinds = [f.kind for f in facts]
    assert kinds == ["node.enrolled", "node.connected", "task.started", "node.disconnected"]
    assert facts[0].on_behalf_of == "person/operator"
    assert facts[1].plain() == {
        "role": "execution", "tier": "full", "pid": "7", "hub": "",
        "serial": facts[0].plain()["serial"],
        "profile": {
            "version": "1.2", "cores": 4, "memory_bytes": 8, "gpus": [], "languages": ["python"],
            "labels": [],
        },
    }  # fmt: skip


async def test_a_lost_connection_loses_and_doubles_nothing(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as channel:
            for i in range(30):
                await channel.send([started(f"task-{i}")])
                if i % 10 == 5:
                    await queue.put(enveloped(command(f"task-{i}")))
                    hub.listeners.peers.cut(NODE)
            got = []
            while len(got) < 3:
                got += [d.header.id for d in await channel.recv()]
            assert len(set(got)) == 3
            facts = await facts_until(journal, lambda f: f.subject == "task-29")
    subjects = [f.subject for f in facts if f.kind == Kind.task_started]
    assert subjects == [f"task-{i}" for i in range(30)]


async def test_a_restarted_hub_gets_what_the_old_one_did_not_write(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        port = int(hub.url.rsplit(":", 1)[1])
        channel = connect(hub, identity)
        await channel.__aenter__()
        await channel.send([started("task-0")])
        await queue.put(enveloped(command("task-0")))
        await channel.recv()  # taken, and never acknowledged
    await channel.send([started("task-1")])  # while nobody is there
    async with running_hub(database, journal, queue, tmp_path, config=HubConfig(port=port)) as hub:
        assert hub.url.endswith(str(port))
        await next_fact(journal, kind=Kind.task_started, subject="task-1")
        (again,) = await channel.recv()
        assert isinstance(again, Dispatch)
        await channel.close()


async def test_a_restarted_node_gets_its_unfinished_commands_again(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        sent = [command("task-1"), command("task-2")]
        for one in sent:
            await queue.put(enveloped(one))
        async with connect(hub, identity) as first:
            got = await first.recv()
            while len(got) < 2:
                got += await first.recv()
            await first.send([Settle((got[1].position,))])  # out of order is fine

            async def one_left() -> bool:
                return await waiting(queue) == 1

            await eventually(one_left)
        async with connect(hub, identity) as second:
            assert [d.header.id for d in await second.recv()] == [sent[0].id]


async def test_a_second_connection_fences_the_first(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as first, connect(hub, identity) as second:
            with pytest.raises(Unavailable) as caught:
                await first.recv()
            assert caught.value.extra["code"] == "fenced"
            await second.send([started("task-1")])
            facts = await facts_until(journal, lambda f: f.kind == Kind.task_started)
    kinds = [f.kind for f in facts]
    assert kinds[1:] == ["node.connected", "node.disconnected", "node.connected", "task.started"]
    assert facts[2].plain() == {"code": "fenced", "hub": ""}


async def test_a_fact_that_is_not_accepted_is_left_out_and_the_channel_goes_on(
    database, journal, queue, tmp_path
):
    class OpenTasks(AcceptAll):
        def admitted(self, fact):
            return fact if fact.subject != "task-ended" else None

    async with running_hub(database, journal, queue, tmp_path, admission=OpenTasks()) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        sent = command()
        await queue.put(enveloped(sent))
        async with connect(hub, identity) as channel:
            (dispatch,) = await channel.recv()
            done = Settle((dispatch.position,))
            late = [started("task-ended"), done, started("task-ended")]
            await channel.send(late)

            async def acknowledged() -> bool:
                return await waiting(queue) == 0

            await eventually(acknowledged)
            await channel.send([started("task-2")])
            facts = await facts_until(journal, lambda f: f.kind == Kind.task_started)
    assert facts[-1].subject == "task-2"


async def test_a_hub_that_hears_late_of_a_task_asks_the_journal_first(
    database, journal, queue, clock, tmp_path
):
    """Its fold may lag behind the queue, after a store was away; nothing acknowledged is lost."""

    class Asked(Projection):
        was_asked = asyncio.Event()

        def admitted(self, fact):
            self.was_asked.set()
            return super().admitted(fact)

    projection = Asked(journal, clock, ControlConfig())
    data = {"command": new_command_id(), "request": "", "node": NODE, "wall_s": 9, "deadline": 9e9}
    await journal.append(
        [make_fact(Kind.task_accepted, "task-1", actor="system/control", data=data)]
    )
    async with running_hub(database, journal, queue, tmp_path, admission=projection) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as channel:
            await channel.send([started("task-1"), started("task-of-nobody")])
            await projection.was_asked.wait()
            following = asyncio.create_task(projection.follow(lambda _: None))
            facts = await facts_until(journal, lambda f: f.kind == Kind.task_started)
            following.cancel()
            await asyncio.wait({following})
    assert [f.subject for f in facts if f.kind == Kind.task_started] == ["task-1"]


async def test_a_node_may_speak_only_for_itself_and_of_its_work(database, journal, queue, tmp_path):
    forged = [
        make_fact(Kind.task_started, "task-9", actor="node/other"),
        make_fact(Kind.branch_advanced, "study:main", actor=NODE),
        make_fact(Kind.task_started, "task-9", actor=NODE, on_behalf_of=PrincipalId("agent/a")),
        make_fact(Kind.task_started, "task-9", actor=NODE, data={"text": "\0" * 3_000_000}),
        make_fact(Kind.task_started, "task-9", actor=NODE, data={"attempt": math.inf}),
    ]
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        for fact in forged:
            async with connect(hub, identity) as channel:
                await channel.send([started("task-1"), report(fact)])
                with pytest.raises(Unavailable) as caught:
                    await channel.recv()
                assert caught.value.extra["code"] == "refused"
    facts = await journal.read("0-0")
    assert {f.subject for f in facts if f.kind == Kind.task_started} == {"task-1"}
    assert not [f for f in facts if f.kind == Kind.branch_advanced]


async def test_an_agent_has_a_channel_but_no_facts(database, journal, queue, tmp_path):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "agent", "ada", tmp_path / "ada")
        async with connect(hub, identity) as channel:
            await next_fact(journal, kind=Kind.agent_connected, subject="agent/ada")
            fact = make_fact(Kind.task_started, "task-1", actor="agent/ada")
            await channel.send([report(fact)])
            with pytest.raises(Unavailable):
                await channel.recv()
        await next_fact(journal, kind=Kind.agent_disconnected)


async def test_a_peer_that_stays_away_is_forgotten(database, journal, queue, tmp_path):
    config = HubConfig(resume_s=0.01)
    async with running_hub(database, journal, queue, tmp_path, config=config) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity):
            await next_fact(journal, kind=Kind.node_connected)
        await eventually(lambda: not hub.sessions._sessions)


async def test_many_facts_arrive_in_order_through_a_small_window(
    database, journal, queue, tmp_path
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as channel:
            names = [f"task-{i}" for i in range(5000)]
            await channel.send([started(name) for name in names])
            async with asyncio.TaskGroup() as group:
                seen = group.create_task(facts_until(journal, lambda f: f.subject == names[-1]))
    assert [f.subject for f in seen.result() if f.kind == Kind.task_started] == names


async def test_a_connection_ends_with_its_certificate_and_goes_on_with_the_next(
    database, journal, queue, tmp_path
):
    config = HubConfig(tick_s=0.01)
    async with running_hub(database, journal, queue, tmp_path, config=config) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        async with connect(hub, identity) as channel:
            await next_fact(journal, kind=Kind.node_connected)
            await identity.renew()
            session = hub.sessions._sessions[NODE]
            session.peer = msgspec.structs.replace(session.peer, not_after=1.0)
            gone = await next_fact(journal, kind=Kind.node_disconnected)
            assert gone.plain() == {"code": "expired", "hub": ""}
            back = await next_fact(journal, kind=Kind.node_connected, after=gone.offset)
            first = await next_fact(journal, kind=Kind.node_connected)
            assert back.plain()["serial"] != first.plain()["serial"]
            await channel.send([started("task-1")])
            await next_fact(journal, kind=Kind.task_started)
            assert hub.sessions._sessions[NODE] is session


async def test_a_peer_that_hangs_up_before_it_is_let_in_is_no_error(
    database, journal, queue, tmp_path, caplog, monkeypatch
):
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        asked, known, real = asyncio.Event(), asyncio.Event(), hub.peer_of

        async def slowly(request):
            asked.set()
            await known.wait()
            return await real(request)

        monkeypatch.setattr(hub, "peer_of", slowly)
        host, port = hub.url.removeprefix("https://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=identity.client_context())
        writer.write(
            b"GET /angelos/channel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await asked.wait()
        streams = hub.listeners.peers._server.streams
        writer.close()
        await eventually(lambda: all(stream.closed() for stream in streams))
        known.set()
        await eventually(lambda: not hub.sessions._sessions)
    assert [r.getMessage() for r in caplog.records if r.levelname == "ERROR"] == []
