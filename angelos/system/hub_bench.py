"""What the hub does on this machine: a hub of its own, with stores of its own, and its figures.

The hub runs in a process of its own over mutual TLS, with identities in PostgreSQL and journal and
queues in Valkey, as in `angelos up`; here is the node that talks to it. Nothing of a running system
is touched, and everything is gone afterwards.

    async with BenchHub.running(Path("/tmp/x"), "everysec") as bench:
        seconds = await bench.facts(10_000, batch=32)
        waits = await bench.lone_facts(1_000)            # seconds that each took
    figures = await measure(count=10_000, durability="everysec")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec
from tornado.httpclient import HTTPRequest

from angelos.adapters.host.clock import SystemClock
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.identity.authority import Pki
from angelos.adapters.identity.enrolment import Identity, enrol
from angelos.adapters.net.frame_loop import connect as websocket
from angelos.adapters.net.websocket import ClientChannel, connect_channel
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.api import CreateEnrolment
from angelos.core.envelopes import EnvelopeHeader, Lane, PutReceipt, RoutedEnvelope
from angelos.core.facts import Fact, TaskOutput
from angelos.core.frames import Dispatch, FactReport, Settle
from angelos.core.ids import Offset, PrincipalId
from angelos.core.messages import encode
from angelos.hub.app import bind, serve
from angelos.hub.config import HubConfig
from angelos.hub.parts import HubParts
from angelos.hub.service import Hub
from angelos.hub.store import Identities
from angelos.wiring.stores import PLANES

Durability = Literal["everysec", "always"]
NODE = PrincipalId("node/bench")
BODY = os.urandom(256)
_OPERATOR = PrincipalId("person/operator")
_CAPACITY = 1_000_000
_TOGETHER, _WINDOW = 64, 512
"""So many commands are put in one turn, and so many may be under way to the store."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `angelos hub bench`."""

    work: str
    value: float
    unit: str


class _AcceptAll:
    """An `Admission` that accepts every fact."""

    def admitted(self, fact: Fact) -> Fact | None:
        """Return the fact."""
        return fact

    def folds(self, kind: str) -> bool:
        """Return that nothing is folded."""
        del kind
        return False

    async def folded(self, offset: Offset) -> None:
        """Return at once."""
        del offset

    async def catch_up(self) -> None:
        """Return at once: nothing is learnt."""


# -- the hub's process ---------------------------------------------------------------------------


async def _serve(folder: Path, durability: Durability, beside: str) -> None:
    """Run a hub until standard input ends; print where it is, and a token for each line.

    Args:
        folder: Of its stores and keys.
        durability: Of its stores.
        beside: The addresses of the stores of another hub on the same folder, as JSON.
    """
    async with contextlib.AsyncExitStack() as stack:
        if beside:
            where = json.loads(beside)
        else:
            postgres = EmbeddedPostgres(folder / "postgres", folder / "run", fsync=False)
            valkey = EmbeddedValkey(folder / "valkey", folder / "run", durability=durability)
            await stack.enter_async_context(postgres)
            await stack.enter_async_context(valkey)
            where = {"postgres": postgres.url, "valkey": valkey.url}
        database = await stack.enter_async_context(Database(where["postgres"]))
        await database.migrate(PLANES)
        client = connect(where["valkey"])
        stack.push_async_callback(client.aclose)
        clock, config = SystemClock(), HubConfig()
        pki = Pki.open(folder / "keys", clock)
        parts = HubParts(
            journal=ValkeyJournal(client),
            queue=ValkeyEnvelopeQueue(client, capacity=_CAPACITY),
            identities=Identities(database, clock),
            pki=pki,
            clock=clock,
            listeners=bind(pki, config),
            admission=_AcceptAll(),
            config=config,
        )
        hub = await stack.enter_async_context(Hub(parts))
        serve(hub)
        print(json.dumps({"url": hub.url, **where}), flush=True)  # noqa: T201 - to the parent
        while line := await asyncio.to_thread(sys.stdin.readline):
            kind, _, name = line.strip().partition("/")
            asked = msgspec.convert({"kind": kind, "name": name}, CreateEnrolment)
            view = await hub.create_enrolment(asked, _OPERATOR)
            print(view.token, flush=True)  # noqa: T201 - to the parent


# -- the peers -----------------------------------------------------------------------------------


class BenchHub:
    """One hub of its own and what connects to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, where: dict[str, str], folder: Path
    ) -> None:
        self._process, self._folder = process, folder
        self.where = where
        self.node: ClientChannel
        self._reader: Identity | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, folder: Path, durability: Durability, beside: BenchHub | None = None
    ) -> AsyncIterator[BenchHub]:
        """Yield a hub with one node connected; `beside` another it shares that one's stores."""
        stores = json.dumps(beside.where) if beside is not None else ""
        command = [sys.executable, "-m", "angelos.system.hub_bench", str(folder), durability]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stores, stdin=pipe, stdout=pipe)
        assert process.stdin is not None  # noqa: S101 - a pipe, above
        try:
            where = json.loads(await cls._line(process))
            bench = cls(process, where, folder)
            name = "bench" if beside is None else "beside"
            async with bench.connected(name) as bench.node:
                yield bench
        finally:
            process.stdin.close()
            await process.wait()

    @staticmethod
    async def _line(process: asyncio.subprocess.Process) -> bytes:
        assert process.stdout is not None  # noqa: S101 - a pipe
        return await process.stdout.readline()

    async def identity(self, principal: str) -> Identity:
        """Enrol a principal."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe
        self._process.stdin.write(f"{principal}\n".encode())
        token = (await self._line(self._process)).decode().strip()
        return await enrol(token, self._folder / principal.replace("/", "-"))

    @contextlib.asynccontextmanager
    async def connected(self, name: str) -> AsyncIterator[ClientChannel]:
        """Yield the channel of a new node."""
        context = (await self.identity(f"node/{name}")).client_context()
        async with connect_channel(self.where["url"], context, SystemClock()) as channel:
            yield channel

    def cpu_s(self) -> float:
        """Return the seconds of processor that the hub has used, without its stores."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/schedstat")
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9

    def memory_kib(self) -> int:
        """Return the resident memory of the hub's process."""
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") // 1024

    # -- work, in seconds ------------------------------------------------------------------------

    async def facts(self, count: int, batch: int = 1, name: str = "bench") -> float:
        """Send facts of a node and wait until all are acknowledged."""
        reports = [report(name) for _ in range(count)]
        began = time.perf_counter()
        for start in range(0, count, batch):
            await self.node.send(reports[start : start + batch])
        await self.node.drained()
        return time.perf_counter() - began

    async def lone_facts(
        self, count: int, node: ClientChannel | None = None, name: str = "bench"
    ) -> list[float]:
        """Send facts of a node one after the other and return how long each took."""
        node = node or self.node
        waits: list[float] = []
        for one in [report(name) for _ in range(count)]:
            began = time.perf_counter()
            await node.send([one])
            await node.drained()
            waits.append(time.perf_counter() - began)
        return waits

    async def commands(self, count: int) -> float:
        """Put commands; the node settles each; wait until the queue has forgotten all.

        At most `_WINDOW` puts are under way; nats-py keeps all of a round under way.
        """
        client = connect(self.where["valkey"])
        queue = ValkeyEnvelopeQueue(client, capacity=_CAPACITY)
        name = os.urandom(6).hex()
        envelopes = [_command(f"{name}-{n}", n + 1) for n in range(count)]
        began = time.perf_counter()

        async def put() -> None:
            under_way: deque[asyncio.Future[list[PutReceipt]]] = deque()
            for start in range(0, count, _TOGETHER):
                puts = map(queue.submit, envelopes[start : start + _TOGETHER])
                under_way.append(asyncio.gather(*puts))
                if len(under_way) == _WINDOW // _TOGETHER:
                    await under_way.popleft()
            await asyncio.gather(*under_way)

        async def work() -> None:
            done = 0
            while done < count:
                items = [item for item in await self.node.recv() if isinstance(item, Dispatch)]
                if items:
                    await self.node.send([Settle(tuple(item.position for item in items))])
                done += len(items)
            await self.node.drained()  # settled in the store: the hub acknowledges only then

        try:
            await asyncio.gather(put(), work())
            return time.perf_counter() - began
        finally:
            await client.aclose()

    async def events(self, count: int) -> float:
        """Send facts until an event reader has all of them."""
        if self._reader is None:
            self._reader = await self.identity("agent/reader")
        client = connect(self.where["valkey"])
        last = await ValkeyJournal(client).last()
        await client.aclose()
        url = f"wss{self.where['url'][5:]}/angelos/api/events?kinds=task.output&after={last}"
        link = await websocket(HTTPRequest(url, ssl_options=self._reader.client_context()))
        began = time.perf_counter()
        sending = asyncio.create_task(self.facts(count))
        for _ in range(count):
            await link.read_message()
        took = time.perf_counter() - began
        await sending
        link.close()
        return took


def report(name: str = "bench") -> FactReport:
    """Return a fact of about 300 bytes of the node with this name, ready to be sent."""
    payload = TaskOutput(stream="stdout", text="x" * 100)
    fact = Fact.of(payload, at=time.time(), actor=PrincipalId(f"node/{name}"), subject="task-1")
    return FactReport(fact.id, encode(fact))


def _command(name: str, sequence: int) -> RoutedEnvelope:
    header = EnvelopeHeader(
        id=name,
        source=_OPERATOR,
        destination=NODE,
        lane=Lane.command,
        sequence=sequence,
        codec="raw",
    )
    return RoutedEnvelope(header, BODY)


# -- figures -------------------------------------------------------------------------------------


async def measure(count: int, durability: Durability, rounds: int = 3) -> list[Figure]:
    """Return what a hub of its own does here: medians of some rounds after a warm-up.

    Args:
        count: Messages a round.
        durability: `always` syncs the disk before each acknowledgement.
        rounds: How many.
    """
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="ab-") as name:
        async with BenchHub.running(Path(name), durability) as bench:
            works: list[tuple[str, Callable[[int], Awaitable[float]]]] = [
                ("fact acknowledged", bench.facts),
                ("fact acknowledged, batches of 32", lambda n: bench.facts(n, 32)),
                ("command put, node, acknowledged", bench.commands),
                ("fact to event reader", bench.events),
            ]
            for work, run in works:
                await run(count // 5 + 1)
                before = bench.cpu_s()
                rates = [count / await run(count) for _ in range(rounds)]
                used = (bench.cpu_s() - before) / (rounds * count)
                figures.append(Figure(work=work, value=statistics.median(rates), unit="/s"))
                figures.append(Figure(work=f"{work}: hub's CPU", value=used * 1e6, unit="us"))
            waits = sorted(await bench.lone_facts(max(100, count // 10)))
            for share in (50, 99):
                wait = waits[len(waits) * share // 100] * 1000
                work = f"one fact at a time, p{share}"
                figures.append(Figure(work=work, value=wait, unit="ms"))
    return figures


def _main(arguments: list[str]) -> None:
    folder, durability, beside = arguments
    durable: Durability = "always" if durability == "always" else "everysec"
    Path(folder).mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(Path(folder), durable, beside))


if __name__ == "__main__":
    _main(sys.argv[1:])
