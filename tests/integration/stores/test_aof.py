"""What the thread beside the embedded Valkey does for its append-only file."""

from __future__ import annotations

import asyncio
import errno
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from angelos.adapters.host import aof
from angelos.adapters.host.aof import MIN_FREE, AofKeeper
from angelos.adapters.host.embedded import EmbeddedValkey
from angelos.adapters.stores.valkey import ValkeyJournal, connect
from angelos.core.errors import Unavailable
from angelos.core.ids import START
from angelos.testing import make_fact


@contextmanager
def keeping(keeper):
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def test_a_disk_that_refuses_a_sync_is_told_and_asked_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(aof, "EVERY_S", 0.01)
    (tmp_path / "a.incr.aof").touch()
    answers, synced = iter([OSError(errno.ENOSPC, "No space left on device")]), threading.Event()

    def sync(path):
        if error := next(answers, None):
            raise error
        synced.set()

    with keeping(AofKeeper(tmp_path, tmp_path / "none.sock", sync=sync)):
        assert synced.wait(20)
    assert "may not be on the disk: [Errno 28]" in caplog.text


async def append_for_ever(journal, kept):
    while True:
        fact = make_fact("task.finished", "task-1")
        await journal.append([fact])
        kept.append(fact)


async def test_nothing_is_acknowledged_that_a_full_disk_could_not_keep(monkeypatch, caplog):
    """Valkey itself would take the write that fills the disk, and forget it when it ends."""
    monkeypatch.setattr(aof, "EVERY_S", 0.01)
    room = [MIN_FREE]
    monkeypatch.setattr(AofKeeper.__init__, "__kwdefaults__", {
        "sync": aof.sync, "free": lambda folder: room[0],
    })  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="angelos-") as name:
        folder = Path(name)
        async with EmbeddedValkey(folder / "valkey", folder / "run") as server:
            client = connect(server.url)
            journal = ValkeyJournal(client)
            kept = [make_fact("task.finished", "task-1")]
            await journal.append(kept)
            room[0] = MIN_FREE - 1
            with pytest.raises(Unavailable, match="its disk is nearly full"):
                await append_for_ever(journal, kept)
            assert [fact.id for fact in await journal.read(START, len(kept) + 1)] == [
                f.id for f in kept
            ]
            room[0] = MIN_FREE
            async with asyncio.timeout(20):
                while True:
                    try:
                        await journal.append([make_fact("task.finished", "task-2")])
                        break
                    except Unavailable:
                        await asyncio.sleep(0.01)
            await client.aclose()
    assert "nearly full; no facts are accepted" in caplog.text
