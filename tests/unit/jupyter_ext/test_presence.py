"""Who is connected, and how somebody who goes is closed."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from angelos.core.errors import Unavailable
from angelos.core.facts import Kind
from angelos.core.ids import PrincipalId
from angelos.core.permissions import Principal, Role
from angelos.core.principals import Generation
from angelos.testing import MemoryJournal, eventually, make_fact
from jupyter_ext import presence as module
from jupyter_ext.presence import Presence

ADA = Principal(id=PrincipalId("person/ada"), role=Role.reviewer, generation=Generation(1))
BOB = Principal(id=PrincipalId("person/bob"), role=Role.reviewer, generation=Generation(1))


def over(principal, generation=2, cause="removed"):
    data = {"generation": generation}
    return make_fact(Kind.principal_ended, principal.id, data=data, outcome=cause)


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
    presence.take(over(ADA))
    assert mine.closed == [(1008, "person/ada was removed.")]
    mine.on_message("typed while the goodbye is awaited")
    other.on_message("typed")
    assert (mine.taken, other.taken, other.closed) == ([], ["typed"], [])


def test_a_socket_that_is_just_being_opened_is_closed_then():
    presence, socket = Presence(), Socket()
    presence.enter(ADA, socket, time.monotonic())
    presence.take(over(ADA))
    socket.open()
    assert socket.taken == []
    assert len(socket.closed) == 2


def test_whoever_was_looked_up_before_they_went_does_not_enter():
    presence, before = Presence(), time.monotonic()
    presence.take(over(ADA))
    assert not presence.enter(ADA, Socket(), before)
    assert presence.enter(BOB, Socket(), before)
    assert presence.changed_at >= before
    again = msgspec.structs.replace(ADA, generation=Generation(2))
    assert presence.enter(again, Socket(), before), "signed in again since"


def test_a_revoked_token_ends_what_it_opened_and_nothing_else():
    presence, page, kernel, now = Presence(), Socket(), Socket(), time.monotonic()
    by_token = msgspec.structs.replace(ADA, session="tok-1")
    presence.enter(ADA, page, now)
    presence.enter(by_token, kernel, now)
    presence.take(make_fact(Kind.token_revoked, ADA.id, data={"token": "tok-1"}))
    assert (len(kernel.closed), page.closed) == (1, [])
    assert not presence.enter(by_token, Socket(), now)
    assert presence.enter(ADA, Socket(), now)


async def test_a_token_that_expires_ends_what_it_opened():
    presence, socket = Presence(), Socket()
    by_token = msgspec.structs.replace(ADA, expires_at=time.time() + 0.01)
    presence.enter(by_token, socket, time.monotonic())
    await eventually(lambda: socket.closed == [(1008, "The token has expired.")])


async def test_only_what_happens_from_now_on_counts_also_after_the_journal_was_away(monkeypatch):
    monkeypatch.setattr(module, "_RETRY_S", 0)
    journal, presence, socket = MemoryJournal(), Presence(), Socket()
    await journal.append([over(ADA)])
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
    await journal.append([over(BOB)])  # before anybody looks
    watching = asyncio.create_task(presence.watch(journal, now))
    await eventually(lambda: other.closed == [(1008, "person/bob was removed.")])
    assert not away
    assert not socket.closed
    await journal.append([make_fact(Kind.principal_quarantined, ADA.id)])
    await eventually(lambda: socket.closed == [(1008, "person/ada was quarantined.")])
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
