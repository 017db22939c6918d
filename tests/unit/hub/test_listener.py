"""Newcomers wait for the event loop; established peers do not wait for them."""

from __future__ import annotations

import asyncio
import socket

from angelos.hub.listener import AcceptPace, accept_paced


def test_the_later_the_loop_is_the_longer_newcomers_wait_and_within_bounds():
    pace = AcceptPace()
    shortest = pace.pause_s
    pauses = []
    for _ in range(20):
        pace.was_late(0.01)
        pauses.append(pace.pause_s)
    assert pauses == sorted(pauses)
    assert 0.035 < pauses[-1] <= 0.04  # a fifth of the loop's time is theirs
    for _ in range(20):
        pace.was_late(10.0)
    longest = pace.pause_s
    assert longest == 0.1  # some are accepted, however late it is
    for _ in range(50):
        pace.was_late(0.0)
    assert pace.pause_s == shortest


async def test_all_are_accepted_one_after_the_other_until_the_end():
    accepted: list[socket.socket] = []
    came = asyncio.Event()

    def take(connection: socket.socket, _: object) -> None:
        accepted.append(connection)
        came.set()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        listening.settimeout(0)
        end = accept_paced(listening, take)
        clients = [socket.create_connection(listening.getsockname()) for _ in range(20)]
        while len(accepted) < 20:
            came.clear()
            await came.wait()
        end()
        clients.append(socket.create_connection(listening.getsockname()))
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(accepted) == 20
        assert [one.getpeername() for one in accepted] == [
            one.getsockname() for one in clients[:20]
        ]
        for one in [*accepted, *clients]:
            one.close()
