"""Watches the running server: its metrics, whether it is ready, and how busy it is.

    async with SystemMonitor(parts) as monitor:
        await monitor.metrics()          # the text for Prometheus
        await monitor.ready()            # raises `Unavailable` with the parts that do not answer

What one question costs does not grow with the facts, tasks or revisions that there ever were, and
callers who ask at the same time share one answer, which is `FRESH_S` old at most: nobody can keep
the server busy by asking.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

from angelos import __version__
from angelos.adapters.host.aof import stamp_of
from angelos.adapters.host.endless import FAILURES, endless
from angelos.adapters.host.supervision import cpu_seconds
from angelos.adapters.stores.pipeline import StoreError
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.streams import Client
from angelos.control.projection import Projection
from angelos.control.state.decide import KINDS
from angelos.control.views import banner, restart_views
from angelos.core.api import LoadView, NodeLoadView, RetentionView
from angelos.core.envelopes import QueueDepth
from angelos.core.errors import AngelError, Unavailable
from angelos.core.ids import START, Offset, PrincipalId, TaskId
from angelos.core.ports import Clock, EnvelopeQueue, Journal
from angelos.governance.log.service import LogService
from angelos.hub.service import Hub
from angelos.node.load import resident_bytes
from angelos.wiring.monitoring.counters import FactCounters
from angelos.wiring.monitoring.families import exposition
from angelos.wiring.monitoring.samples import (
    JournalReport,
    Observation,
    Samples,
    samples,
    shown_nodes,
)

FRESH_S = 1.0
_ANSWER_S = 2.0
_RETRY_S = 1.0
_JOURNAL_KEY = "{journal}"
POSTGRES, VALKEY = "postgres", "valkey"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The parts that are watched."""

    clock: Clock
    journal: Journal
    queue: EnvelopeQueue
    database: Database
    valkey: Client
    valkey_url: str
    projection: Projection
    hub: Hub
    audit: LogService | None = None
    """None in a gateway, which has none."""
    away: Callable[[], str] = str
    """Says which store does not answer."""
    retention: Callable[[], RetentionView | None] = lambda: None
    """Says what is kept of what grows."""


class SystemMonitor:
    """Observes one server; `async with` owns the task that counts its facts.

    Args:
        parts: What is watched.
    """

    def __init__(self, parts: Watched) -> None:
        self._parts = parts
        self._counters = FactCounters()
        self._started_at = parts.clock.time()
        self._counting: asyncio.Task[None] | None = None
        self._counted: Offset = START
        self._asking = asyncio.Lock()
        self._last: tuple[float, Observation, Samples] | None = None
        self._fsync = _FsyncAge(parts.valkey, parts.valkey_url)
        self._cpu = (parts.clock.monotonic(), cpu_seconds(os.getpid()))
        self._cpu_share = 0.0

    async def __aenter__(self) -> Self:
        self._counted = await self._parts.journal.last()
        self._counting = endless("metrics", self._count)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.wait({self._counting})

    # -- answers -----------------------------------------------------------------------------

    async def metrics(self) -> bytes:
        """Return the text for Prometheus, with what Jupyter and the process say of themselves."""
        from prometheus_client import REGISTRY

        _, page = await self._observe()
        return exposition(page, [REGISTRY])

    async def ready(self) -> dict[str, str]:
        """Return the parts that work can rely on, each `ok`.

        Raises:
            Unavailable: One does not answer; `parts` says which.
        """
        observation, _ = await self._observe()
        parts = {name: "ok" if up else "unavailable" for name, up in observation.stores.items()}
        if not all(observation.stores.values()):
            away = ", ".join(name for name, state in parts.items() if state != "ok")
            raise Unavailable(f"Not ready: {away}.", parts=parts)
        return parts

    async def load(self) -> LoadView:
        """Return how busy the system is now."""
        seen, page = await self._observe()
        tasks = {s.labels[0]: int(cast("float", s.value)) for s in page["angelos_tasks"]}
        measured = self._parts.hub.loads.current()
        return LoadView(
            at=self._parts.clock.time(),
            tasks=tasks,
            finished=dict(self._counters.finished),
            proposals={s.labels[0]: int(cast("float", s.value)) for s in page["angelos_proposals"]},
            queue={s.labels[0]: int(cast("float", s.value)) for s in page["angelos_queue_waiting"]},
            nodes=tuple(
                NodeLoadView(
                    id=node,
                    at=row.at,
                    load=row.load,
                    queue_waiting=sum(seen.depths[node].waiting.values())
                    if node in seen.depths
                    else 0,
                )
                for node, row in sorted(measured.items())
            ),
            server_cpu=self._cpu_share,
            server_resident_bytes=resident_bytes(),
            banner=" ".join(filter(None, (self._parts.away(), banner(seen.state)))),
            restarts=restart_views(seen.state),
        )

    # -- observing ---------------------------------------------------------------------------

    async def _observe(self) -> tuple[Observation, Samples]:
        """Return an observation and its samples, at most `FRESH_S` old."""
        async with self._asking:
            now = self._parts.clock.monotonic()
            if self._last is None or now - self._last[0] >= FRESH_S:
                observation = await self._look()
                # At once: counters go on counting, and one page should agree with itself.
                page = samples(observation)
                self._last = (self._parts.clock.monotonic(), observation, page)
            return self._last[1:]

    async def _look(self) -> Observation:
        parts = self._parts
        state = parts.projection.state
        self._measure_cpu()
        (postgres, journal), depths = await asyncio.gather(
            self._ask_stores(), self._depths(shown_nodes(state))
        )
        return Observation(
            version=__version__,
            started_at=self._started_at,
            monotonic=parts.clock.monotonic(),
            state=parts.projection.state,
            counters=self._counters,
            certificates=parts.hub.certificates,
            peers=len(parts.hub.sessions.candidates()),
            loads={node: row.load for node, row in parts.hub.loads.current().items()},
            depths=depths,
            stores={POSTGRES: postgres, VALKEY: journal is not None},
            journal=journal or JournalReport(),
            audit_position=parts.audit.position if parts.audit is not None else None,
            pool=parts.database.pool,
            retention=parts.retention(),
            failures=dict(FAILURES),
        )

    async def _ask_stores(self) -> tuple[bool, JournalReport | None]:
        return await asyncio.gather(_answers(self._select()), self._journal_report())

    async def _select(self) -> None:
        async with self._parts.database.transaction() as connection:
            await connection.execute("select 1")

    async def _journal_report(self) -> JournalReport | None:
        """Return what the journal's store says, None if it does not answer."""
        call = self._parts.valkey.reader.call
        try:
            async with asyncio.timeout(_ANSWER_S):
                entries = int(await call("XLEN", _JOURNAL_KEY))
                info: bytes = await call("INFO", "persistence")
                age = await self._fsync.age_s()
        except (AngelError, OSError, TimeoutError):
            return None
        except StoreError:  # it answers, and does not let us ask
            return JournalReport()
        return JournalReport(entries=entries, aof_ok=float(_aof_ok(info)), fsync_age_s=age)

    async def _depths(self, nodes: list[PrincipalId]) -> dict[PrincipalId, QueueDepth]:
        """Return what waits for these nodes, nothing while the store does not answer."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                rows = await asyncio.gather(*map(self._parts.queue.depth, nodes))
        except (AngelError, StoreError, OSError, TimeoutError):
            return {}
        return dict(zip(nodes, rows, strict=True))

    def _measure_cpu(self) -> None:
        now, used = self._parts.clock.monotonic(), cpu_seconds(os.getpid())
        before, used_before = self._cpu
        if now - before >= FRESH_S:
            self._cpu_share = round(max(0.0, used - used_before) / (now - before), 4)
            self._cpu = (now, used)

    # -- counting ----------------------------------------------------------------------------

    async def _count(self) -> None:
        """Count the facts of the journal, for ever."""
        while True:
            facts = cast("Any", self._parts.journal.follow(self._counted))
            with contextlib.suppress(AngelError, OSError):
                async with aclosing(facts) as following:
                    async for fact in following:
                        self._counted = fact.offset
                        record = self._parts.projection.state.tasks.get(TaskId(fact.subject))
                        self._counters.note(
                            fact,
                            now=self._parts.clock.monotonic(),
                            for_control=fact.kind in KINDS,
                            accepted_at=record.at if record is not None else None,
                        )
            await asyncio.sleep(_RETRY_S)


class _FsyncAge:
    """How long ago the journal was last flushed to the disk, where that can be known."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        split = urlsplit(url)
        self._stamp = stamp_of(Path(split.path)) if split.scheme == "unix" else None
        self._always: bool | None = None

    async def age_s(self) -> float:
        """Return the age in seconds; NaN where nobody says it."""
        if self._stamp is not None:
            try:
                return max(0.0, time.time() - self._stamp.stat().st_mtime)
            except OSError:
                pass
        if self._always is None:
            words = await self._client.reader.call("CONFIG", "GET", "appendfsync")
            self._always = b"always" in words
        return 0.0 if self._always else math.nan


async def _answers(question: Awaitable[object]) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S):
            await question
    except (AngelError, OSError, TimeoutError):
        return False
    return True


def _aof_ok(info: bytes) -> bool:
    lines = {name: value for name, _, value in (x.partition(b":") for x in info.splitlines())}
    return lines.get(b"aof_enabled") == b"1" and lines.get(b"aof_last_write_status") == b"ok"
