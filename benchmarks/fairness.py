"""What one peer can do to others: a flooder, a storm of reconnects, thousands that are only there.

One hub over mutual TLS, in a process of its own, on the bundled stores; calm nodes send one fact
each 20 ms and wait for its acknowledgement. The flooder and the storm run in processes of their
own, at full speed.

    python benchmarks/fairness.py [--quick] [--json] [--rounds N] [--many N] [--only PART]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tornado.httpclient import HTTPRequest

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.collection import spare_started
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.identity.enrolment import Identity, enrol
from angelos.adapters.net.dial import hang_up
from angelos.adapters.net.frame_loop import ClientConnection
from angelos.adapters.net.frame_loop import connect as websocket
from angelos.adapters.net.websocket import ClientChannel, connect_channel
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.api import CreateEnrolment
from angelos.core.channel import Config
from angelos.core.envelopes import EnvelopeHeader, Lane, RoutedEnvelope
from angelos.core.facts import Fact, Kind, TaskOutput, TaskResult, from_json
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.ids import PrincipalId
from angelos.core.messages import Status, Tier, encode
from angelos.testing.hub import OPERATOR, running_hub
from angelos.wiring.stores import PLANES

T = TypeVar("T")
CALM, STORM, READERS = 10, 300, 32
EVERY_S = 0.02
SHARE = 16 * READERS
"""So many nodes and readers are one process's, in the crowd."""
AT_ONCE = 6
"""Handshakes at the same time, of those that are made one after the other."""


# -- the hub, a process of its own --------------------------------------------------------------


async def serve(folder: Path, many: int) -> None:
    """Run stores and a hub until standard input ends; print where they are."""
    postgres = EmbeddedPostgres(folder / "postgres", folder / "run", fsync=False)
    valkey = EmbeddedValkey(folder / "valkey", folder / "run", durability="everysec")
    async with postgres, valkey, Database(postgres.url) as database:
        await database.migrate(PLANES)
        client = connect(valkey.url)
        queue = ValkeyEnvelopeQueue(client)
        async with running_hub(database, ValkeyJournal(client), queue, folder) as hub:

            async def token(kind: Any, name: str) -> str:
                wish = CreateEnrolment(kind=kind, name=name, ttl_s=86_400)
                return (await hub.create_enrolment(wish, OPERATOR)).token

            nodes = await few_at_a_time(token("node", f"n{n}") for n in range(many))
            agents = await few_at_a_time(
                token("agent", f"a{n}") for n in range(-(-many // READERS) + 1)
            )
            where = {"url": hub.url, "valkey": valkey.url, "nodes": nodes, "agents": agents}
            (folder / "where.json").write_text(json.dumps(where))
            spare_started()
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)
        await client.aclose()


async def few_at_a_time(works: Iterable[Awaitable[T]]) -> list[T]:
    """Do so many things, a few of them at the same time, and return what they give, in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[T]) -> T:
        async with gate:
            return await work

    return list(await asyncio.gather(*map(one, works)))


class Hub:
    """The hub, and who may connect to it."""

    def __init__(self, process: subprocess.Popen[str] | None, folder: Path) -> None:
        self.process, self.folder = process, folder
        where = json.loads((folder / "where.json").read_text())
        self.url, self.valkey = where["url"], where["valkey"]
        self.tokens: dict[str, list[str]] = {"node": where["nodes"], "agent": where["agents"]}

    async def identities(self, kind: str, numbers: range) -> list[Identity]:
        """Enrol so many."""
        return await few_at_a_time(
            enrol(self.tokens[kind][n], self.folder / f"{kind}{n}") for n in numbers
        )

    def memory_kib(self) -> int:
        """Return the resident memory of the hub's process."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])


@contextlib.asynccontextmanager
async def running(many: int) -> AsyncIterator[Hub]:
    """Yield a hub that knows `many` nodes and agents for as many readers."""
    with tempfile.TemporaryDirectory(prefix="ab-") as name:
        process = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
            [sys.executable, __file__, "--serve", name, "--many", str(many)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            line = await asyncio.to_thread(process.stdout.readline)  # type: ignore[union-attr]
            assert line == "ready\n", "the hub did not start"
            yield Hub(process, Path(name))
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            await asyncio.to_thread(process.wait)


# -- who disturbs, in processes of their own ----------------------------------------------------


@contextlib.contextmanager
def disturbing(kind: str, *folders: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a flooder or a storm with these identities until the block ends."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--disturb", kind, *map(str, folders)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at it\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()  # type: ignore[union-attr]
        process.stdout.close()


async def flood(folders: list[Path]) -> None:
    """Send facts as fast as the hub takes them, for ever."""
    (identity,) = map(Identity.load, folders)
    async with channel(identity) as link:
        print("at it", flush=True)
        while True:
            await link.send([report(identity.id) for _ in range(256)])


async def storm(folders: list[Path]) -> None:
    """Connect all at once, hang up all at once, for ever."""
    identities = [Identity.load(folder) for folder in folders]
    print("at it", flush=True)
    while True:
        links = [channel(identity) for identity in identities]
        await asyncio.gather(*(link.__aenter__() for link in links), return_exceptions=True)
        await asyncio.gather(*(link.close() for link in links), return_exceptions=True)


def channel(identity: Identity, config: Config | None = None) -> ClientChannel:
    """Return the channel of a peer."""
    context = identity.client_context()
    return connect_channel(identity.hub_url, context, SystemClock(), config=config, patience_s=120)


def report(author: PrincipalId, task: str = "task-bench") -> FactReport:
    """Return a fact of 256 bytes."""
    payload = TaskOutput(stream="stdout", text="x" * 100)
    fact = Fact.of(payload, at=time.time(), actor=author, subject=task)
    return FactReport(fact.id, encode(fact))


# -- what the others notice ---------------------------------------------------------------------


async def p99_ms(links: list[ClientChannel], seconds: float) -> float:
    """Return the 99th percentile of the time from a fact to its acknowledgement."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one(link: ClientChannel, author: PrincipalId) -> None:
        while time.perf_counter() < end:
            began = time.perf_counter()
            await link.send([report(author)])
            await link.drained()
            times.append(time.perf_counter() - began)
            await asyncio.sleep(EVERY_S)

    names = [PrincipalId(f"node/n{number}") for number in range(len(links))]
    await asyncio.gather(*map(one, links, names))
    return statistics.quantiles(times, n=100)[98] * 1000


async def disturbed(rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Return the rows of the flooder and the storm."""
    figures: dict[str, list[tuple[float, float]]] = {"flood": [], "storm": []}
    async with running(CALM + 1 + STORM) as hub:
        calm = await hub.identities("node", range(CALM))
        rest = await hub.identities("node", range(CALM, CALM + 1 + STORM))
        folders = [identity.directory for identity in rest]
        async with contextlib.AsyncExitStack() as stack:
            links = [await stack.enter_async_context(channel(one)) for one in calm]
            for _ in range(rounds):
                for kind, who in (("flood", folders[:1]), ("storm", folders[1:])):
                    before = await p99_ms(links, seconds)
                    with disturbing(kind, *who):
                        during = await p99_ms(links, seconds)
                    figures[kind].append((before, during))
    return [
        row("p99 of others while one floods", figures["flood"], 3),
        row(f"p99 of others while {STORM} reconnect for ever", figures["storm"], 10),
    ]


def row(work: str, pairs: list[tuple[float, float]], most: float) -> dict[str, Any]:
    """Return one row: ours is with the disturbance, theirs is calm."""
    calm, with_it = (statistics.median(values) for values in zip(*pairs, strict=True))
    return {
        "work": work, "unit": "ms", "ours": round(with_it, 1), "peer": "calm",
        "theirs": round(calm, 1), "ratio": round(calm / with_it, 3), "at_least": round(1 / most, 3),
        "ours_min_max": [round(f(pair[1] for pair in pairs), 1) for f in (min, max)],
        "theirs_min_max": [round(f(pair[0] for pair in pairs), 1) for f in (min, max)],
    }  # fmt: skip


# -- many that are only there -------------------------------------------------------------------


async def crowded(many: int) -> list[dict[str, Any]]:
    """Connect many nodes and as many event readers; run a task on the last node."""
    began = time.perf_counter()
    async with running(many) as hub, contextlib.AsyncExitStack() as stack:
        shares = [range(start, min(start + SHARE, many - 1)) for start in range(0, many - 1, SHARE)]
        crowds = [await stack.enter_async_context(Crowd.running(hub, each)) for each in shares]
        (last,) = await hub.identities("node", range(many - 1, many))
        (agent,) = await hub.identities(
            "agent", range(-(-many // READERS), -(-many // READERS) + 1)
        )
        await asyncio.gather(*(crowd.ready() for crowd in crowds))
        enrolled, empty = time.perf_counter(), hub.memory_kib()
        await asyncio.gather(*(crowd.step() for crowd in crowds))
        link = await stack.enter_async_context(channel(last, Config(window=16)))
        connected, idle = time.perf_counter(), (hub.memory_kib() - empty) / many
        await asyncio.gather(*(crowd.step() for crowd in crowds))
        own = await reader(agent)
        stack.callback(hang_up, own)
        reading = time.perf_counter()
        await asyncio.gather(
            run_task(hub, link, last.id), ended(own), *(crowd.ready() for crowd in crowds)
        )
        took = (time.perf_counter() - reading) * 1000
        steps = {
            "enrolled_s": round(enrolled - began, 1),
            "connected_s": round(connected - enrolled, 1),
            "reading_s": round(reading - connected, 1),
        }
        return [
            {"work": f"idle node among {many}, memory of the hub", "unit": "KiB",
             "ours": round(idle, 1), "peer": "target", "theirs": 48,
             "ratio": round(48 / idle, 2), "at_least": 1},
            {"work": f"a task runs, and {many} readers beside {many} nodes have its end",
             "unit": "ms", "ours": round(took), "peer": "none", "theirs": 0, "ratio": 1,
             "at_least": 1, "steps": steps},
        ]  # fmt: skip


class Crowd:
    """A process with a share of the nodes and readers: one alone could not dial all in time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, hub: Hub, share: range) -> AsyncIterator[Crowd]:
        """Yield a process that begins to enrol the nodes of its share."""
        bounds = (str(share.start), str(share.stop))
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--crowd", *bounds, str(hub.folder),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield cls(process)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has failed
                process.kill()
            await process.wait()

    async def ready(self) -> None:
        """Wait until its step is done."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line == b"ready\n", "a process of the crowd failed"

    async def step(self) -> None:
        """Let it do its next step, and wait until that is done."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        await self.ready()


async def crowd(share: range, folder: Path) -> None:
    """Enrol a share of the nodes, connect them, connect their readers, wait for a task's end."""
    hub = Hub(None, folder)

    async def step_is_done() -> None:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)

    nodes = await hub.identities("node", share)
    agents = await hub.identities("agent", range(share.start // READERS, -(-share.stop // READERS)))
    async with contextlib.AsyncExitStack() as stack:
        await step_is_done()
        quiet = Config(window=16)
        await few_at_a_time(stack.enter_async_context(channel(one, quiet)) for one in nodes)
        await step_is_done()
        readers = await few_at_a_time(
            reader(agents[n // READERS - share.start // READERS]) for n in share
        )
        for each in readers:
            stack.callback(hang_up, each)
        print("ready", flush=True)
        await asyncio.gather(*map(ended, readers))
        await step_is_done()


async def reader(identity: Identity) -> ClientConnection:
    """Return one reader of events."""
    url = f"wss{identity.hub_url[5:]}/angelos/api/events?kinds=task.finished"
    return await websocket(HTTPRequest(url, ssl_options=identity.client_context()))


async def ended(link: ClientConnection) -> None:
    """Wait until a reader has the end of the task."""
    fact = from_json(await link.read_message() or b"")
    assert fact.kind == Kind.task_finished


async def run_task(hub: Hub, link: ClientChannel, node: PrincipalId) -> None:
    """Put a command for a node, and answer it as the node."""
    client = connect(hub.valkey)
    header = EnvelopeHeader(
        id="bench-1", source=OPERATOR, destination=node, lane=Lane.command, sequence=1, codec="raw"
    )
    await ValkeyEnvelopeQueue(client).put(RoutedEnvelope(header, b"run"))
    (dispatch,) = await link.recv()
    assert isinstance(dispatch, Dispatch)
    result = TaskResult(
        status=Status.ok, exit_code=0, stdout="42\n", stderr="", duration_s=0.0, node=node,
        tier=Tier.none,
    )  # fmt: skip
    fact = Fact.of(result, at=time.time(), actor=node, subject="task-bench", outcome="ok")
    await link.send([FactReport(fact.id, encode(fact)), Settle((dispatch.position,))])
    await link.drained()
    await client.aclose()


# -- all ----------------------------------------------------------------------------------------


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke test, under 60 s")
    parser.add_argument("--json", action="store_true", help="print the line of JSON only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--many", type=int, default=2_000, help="nodes, and as many readers")
    parser.add_argument("--only", choices=["disturbed", "crowded"], default="")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--crowd", type=int, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--disturb", choices=["flood", "storm"], help=argparse.SUPPRESS)
    parser.add_argument("folders", type=Path, nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.serve:
        asyncio.run(serve(args.serve, args.many))
        return 0
    if args.crowd:
        asyncio.run(crowd(range(*args.crowd), args.folders[0]))
        return 0
    if args.disturb:
        asyncio.run((flood if args.disturb == "flood" else storm)(args.folders))
        return 0
    rounds, seconds, many = (1, 2.0, 50) if args.quick else (args.rounds, 8.0, args.many)
    rows: list[dict[str, Any]] = []
    for name, work in (("disturbed", disturbed(rounds, seconds)), ("crowded", crowded(many))):
        if args.only not in {"", name}:
            work.close()
            continue
        for each in asyncio.run(work):
            rows.append(each)
            if not args.json:
                print(f"{each['work']:62s} {each['ours']:>8} {each['unit']:4s} "
                      f"({each['peer']} {each['theirs']}), ratio {each['ratio']}, "
                      f"at least {each['at_least']}", flush=True)  # fmt: skip
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    print(json.dumps({"benchmark": "fairness", "machine": machine, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
