"""Who is connected, and how somebody who goes is closed."""

from __future__ import annotations

import asyncio
import time

import pytest

from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.testing import MemoryJournal, eventually, make_fact
from jupyter_ext import presence as module
from jupyter_ext.presence import Presence

ADA, BOB = PrincipalId("person/ada"), PrincipalId("person/bob")


class Socket:
    """As much of Tornado's handler as matters."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []
        self.taken: list[str] = []

    def close(self, code: int, reason: str) -> None:
        self.closed.append((code, reason))

    def open(self) -> None:
        self.taken.append("open")

    def on_message(self, message: str) -> None:
        self.taken.append(message)


def test_only_the_sockets_of_whoever_goes_are_closed_and_take_nothing_more():
    presence, mine, other, now = Presence(), Socket(), Socket(), time.monotonic()
    assert presence.enter(ADA, mine, now)
    assert presence.enter(BOB, other, now)
    presence.end(ADA, "removed")
    assert mine.closed == [(1008, "person/ada was removed.")]
    mine.on_message("typed while the goodbye is awaited")
    other.on_message("typed")
    assert (mine.taken, other.taken, other.closed) == ([], ["typed"], [])


def test_a_socket_that_is_just_being_opened_is_closed_then():
    presence, socket = Presence(), Socket()
    presence.enter(ADA, socket, time.monotonic())
    presence.end(ADA, "removed")
    socket.open()
    assert socket.taken == []
    assert len(socket.closed) == 2


def test_whoever_was_looked_up_before_they_went_does_not_enter():
    presence, before = Presence(), time.monotonic()
    presence.end(ADA, "removed")
    assert not presence.enter(ADA, Socket(), before)
    assert presence.enter(BOB, Socket(), before)
    assert presence.changed_at >= before
    while time.monotonic() <= presence.changed_at:
        pass
    assert presence.enter(ADA, Socket(), time.monotonic()), "added again since"


async def test_only_what_happens_from_now_on_counts_also_after_the_journal_was_away(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0)
    journal, presence, socket = MemoryJournal(), Presence(), Socket()
    await journal.append([make_fact(Kind.person_removed, ADA)])
    real, away = journal.follow, [Unavailable(), RuntimeError("a bug"), ValueError("bad bytes")]

    async def follow(*args):
        if away:
            raise away.pop()
        async for fact in real(*args):
            yield fact

    monkeypatch.setattr(journal, "follow", follow)
    now = await journal.last()
    presence.enter(ADA, socket, time.monotonic())
    other = Socket()
    presence.enter(BOB, other, time.monotonic())
    await journal.append([make_fact(Kind.person_removed, BOB)])  # before anybody looks
    watching = asyncio.create_task(presence.watch(journal, now))
    await eventually(lambda: other.closed == [(1008, "person/bob was removed.")])
    assert not away
    assert not socket.closed
    await journal.append([make_fact(Kind.principal_quarantined, ADA)])
    await eventually(lambda: socket.closed == [(1008, "person/ada was quarantined.")])
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
