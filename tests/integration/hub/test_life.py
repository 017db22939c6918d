"""The hub's own life: a start that fails leaves nothing, a renewal that fails is tried again."""

from __future__ import annotations

import asyncio

import pytest

from angelos.adapters.identity.authority import Pki
from angelos.core.errors import Unavailable
from angelos.hub import app, service
from angelos.testing import eventually
from angelos.testing.hub import running_hub


async def test_a_start_that_fails_leaves_no_open_port(
    database, journal, queue, tmp_path, monkeypatch
):
    urls: list[str] = []

    class OnlyOne(app.Listener):
        def __init__(self, *args, **ways) -> None:
            if urls:
                raise Unavailable("The hub cannot listen.")
            super().__init__(*args, **ways)
            urls.append(self.url)

    monkeypatch.setattr(app, "Listener", OnlyOne)
    with pytest.raises(Unavailable, match="cannot listen"):
        async with running_hub(database, journal, queue, tmp_path):
            pytest.fail("it started")
    (url,) = urls
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))


async def test_a_renewal_that_fails_is_tried_again(database, journal, queue, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "LIFETIME_S", 0)
    monkeypatch.setattr(service, "_RETRY_S", 0)
    failures, real = [ValueError("not a key"), OSError("no disk")], Pki.renew_server
    renewed: list[float] = []

    def renew(pki: Pki) -> float:
        if failures:
            raise failures.pop(0)
        renewed.append(real(pki))
        return renewed[-1]

    async with running_hub(database, journal, queue, tmp_path):
        monkeypatch.setattr(Pki, "renew_server", renew)
        await eventually(lambda: renewed)
