"""Fixtures for pytest: real stores, a fresh database for each test, and waiting for facts."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import pytest_asyncio

from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.stores.envelope_queue import ValkeyEnvelopeQueue
from angelos.adapters.stores.postgres import Database
from angelos.adapters.stores.valkey import Client, ValkeyJournal, connect
from angelos.core.facts import Fact
from angelos.core.ids import START, Offset, PrincipalId, new_fact_id
from angelos.core.messages import encode
from angelos.core.ports import Clock, Journal
from angelos.testing.memory import ManualClock
from angelos.wiring.stores import PLANES

PATIENCE_S = 20.0
_TEMPLATE = "angelos_template"
_numbers = itertools.count(1)


class StoreAddresses(NamedTuple):
    """The servers of a test session."""

    postgres_url: str
    valkey_url: str


def need(condition: object, reason: str) -> None:
    """Skip the test when a part of the system is missing; with `CI` set, fail instead."""
    if condition:
        return
    if os.environ.get("CI"):
        pytest.fail(f"needed: {reason}")
    pytest.skip(reason)


async def eventually(
    predicate: Callable[[], Any | Awaitable[Any]],
    event: str = "",
    *,
    within_s: float = PATIENCE_S,
    every_s: float = 0.01,
) -> Any:
    """Return the first true answer of `predicate` (which may be async); fail after `within_s`.

    For state that no fact announces. Where one does, wait for the fact (`next_fact`).
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while True:
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if loop.time() > deadline:
            name = event or getattr(predicate, "__name__", "it")
            pytest.fail(f"{name} did not happen within {within_s:g} s")
        await asyncio.sleep(every_s)


async def facts_until(
    journal: Journal,
    done: Callable[[Fact], bool],
    *,
    after: Offset = START,
    within_s: float = PATIENCE_S,
) -> list[Fact]:
    """Return the facts after `after` up to and with the first that is `done`."""
    facts: list[Fact] = []
    try:
        async with asyncio.timeout(within_s):
            following = journal.follow(after)
            async with contextlib.aclosing(following):  # type: ignore[type-var]
                async for fact in following:
                    facts.append(fact)
                    if done(fact):
                        return facts
    except TimeoutError:
        pass
    kinds = ", ".join(fact.kind for fact in facts[-20:]) or "none"
    return pytest.fail(f"the fact did not come within {within_s:g} s; what came instead: {kinds}")


async def next_fact(
    journal: Journal,
    *,
    kind: str,
    subject: str = "",
    after: Offset = START,
    within_s: float = PATIENCE_S,
) -> Fact:
    """Return the first fact after `after` of this kind and, if given, subject; wait for it."""
    facts = await facts_until(
        journal,
        lambda fact: fact.kind == kind and subject in {"", fact.subject},
        after=after,
        within_s=within_s,
    )
    return facts[-1]


def make_fact(
    kind: str,
    subject: str,
    *,
    actor: str = "system/test",
    clock: Clock | None = None,
    data: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Fact:
    """Return a fact with a fresh id, whether or not `data` fit its kind.

    `fields` are `outcome`, `revision`, ... Code that is not a test uses `Fact.of`.
    """
    at = clock.time() if clock is not None else 1_700_000_000.0
    return Fact(
        id=new_fact_id(),
        at=at,
        actor=PrincipalId(actor),
        kind=kind,
        subject=subject,
        data=encode(dict(data or {})),
        **fields,
    )


@contextlib.contextmanager
def running_stores() -> Iterator[StoreAddresses]:
    """Run a PostgreSQL and a Valkey in a temporary directory, outside any event loop."""
    with (
        tempfile.TemporaryDirectory(prefix="angelos-") as folder,
        asyncio.Runner() as runner,
        contextlib.ExitStack() as stack,
    ):
        data, run = Path(folder) / "data", Path(folder) / "run"
        postgres = EmbeddedPostgres(data / "postgres", run, fsync=False)
        valkey = EmbeddedValkey(data / "valkey", run)
        for server in (postgres, valkey):
            stack.callback(lambda server=server: runner.run(server.stop()))
            runner.run(server.start())
        runner.run(_make_template(postgres.url))
        yield StoreAddresses(postgres.url, valkey.url)


async def _make_template(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(f"create database {_TEMPLATE}")
    async with Database(_named(url, _TEMPLATE), max_connections=1) as template:
        await template.migrate(PLANES)


def _named(url: str, name: str) -> str:
    return url.replace("/postgres?", f"/{name}?", 1)


@pytest.fixture(scope="session")
def stores() -> Iterator[StoreAddresses]:
    """A real PostgreSQL and a real Valkey, for the whole session."""
    with running_stores() as running:
        yield running


@pytest_asyncio.fixture
async def database(stores: StoreAddresses) -> AsyncIterator[Database]:
    """A fresh, migrated database of its own."""
    name = f"test_{next(_numbers)}"
    async with await psycopg.AsyncConnection.connect(stores.postgres_url, autocommit=True) as admin:
        await admin.execute(f"create database {name} template {_TEMPLATE}".encode())
        async with Database(_named(stores.postgres_url, name)) as fresh:
            yield fresh
        await admin.execute(f"drop database {name} with (force)".encode())


@pytest_asyncio.fixture
async def valkey(stores: StoreAddresses) -> AsyncIterator[Client]:
    """A client of an empty Valkey."""
    client = connect(stores.valkey_url)
    await client.execute_command("FLUSHDB")
    yield client
    await client.aclose()


@pytest.fixture
def journal(valkey: Client) -> ValkeyJournal:
    """An empty journal in Valkey."""
    return ValkeyJournal(valkey)


@pytest.fixture
def queue(valkey: Client) -> ValkeyEnvelopeQueue:
    """Empty queues in Valkey."""
    return ValkeyEnvelopeQueue(valkey)


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only by `advance`."""
    return ManualClock()
