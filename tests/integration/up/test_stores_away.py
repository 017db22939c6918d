"""Stores of others that stop answering: everybody is told, nothing ends, and it goes on."""

from __future__ import annotations

import os
import signal
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest

from angelos.adapters.host.datadir import DataDir
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.core.errors import Unavailable
from angelos.core.ids import PrincipalId
from angelos.testing import eventually
from angelos.wiring.build import build_server
from angelos.wiring.settings import load

PATIENCE_S = 60.0


@contextmanager
def frozen(store):
    """Stop a store without ending it, as a network that is cut does."""
    pids = [store.pid, *children(store.pid)]  # PostgreSQL has a process for each connection
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


async def test_a_banner_says_which_store_is_waited_for(tmp_path):
    others = DataDir(tmp_path / "others")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        postgres = await enter(EmbeddedPostgres(others.postgres, tmp_path / "run", fsync=False))
        valkey = await enter(EmbeddedValkey(others.valkey, tmp_path / "run"))
        env = {"ANGELOS_POSTGRES_DSN": postgres.url, "ANGELOS_VALKEY_URL": valkey.url}
        server = await enter(build_server(load(env, data_dir=tmp_path / "data")))
        await server.repository.create("study", {"a": b"1\n"}, PrincipalId("person/owner"), "x")

        async def banner():
            return (await server.control.status()).banner

        assert "does not answer" not in await banner()
        for store, name in ((valkey, "Valkey"), (postgres, "PostgreSQL")):
            with frozen(store):
                await eventually(
                    lambda name=name: name in server.control.away(), within_s=PATIENCE_S
                )
                view = await server.control.status()  # answers at once, without that store
                assert f"{name} does not answer since" in view.banner
                assert "waits: work goes on by itself" in view.banner
                assert view.repos == ()
                with pytest.raises(Unavailable) as caught:
                    await server.at_root[1].handler(None)  # /readyz
                assert caught.value.extra["parts"][name.lower()[: len("postgres")]] == "unavailable"
                assert (await server.monitor.load()).banner == view.banner
            await eventually(lambda: not server.control.away(), within_s=PATIENCE_S)
            view = await server.control.status()
            assert "does not answer" not in view.banner
            assert [repo.name for repo in view.repos] == ["study"]
