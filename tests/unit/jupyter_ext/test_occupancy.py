"""A room is taken away when nobody has a place in it, and not under the feet of who comes in."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from jupyter_server_ydoc.rooms import DocumentRoom

from jupyter_ext.rooms.handler import RoomHandler
from jupyter_ext.rooms.room import ManagedRoom

ROOM = "text:file:1"


class Loaders(dict):
    """Jupyter's files: this one has a subscriber left."""

    def __missing__(self, file_id):
        return SimpleNamespace(number_of_subscriptions=1)


@pytest.fixture
def handler() -> RoomHandler:
    """A handler whose client has gone, of a room that nobody else is served by."""
    handler, room = RoomHandler.__new__(RoomHandler), DocumentRoom.__new__(DocumentRoom)
    room._cleaner = None
    rooms = {ROOM: room}

    async def delete_room(room):
        rooms.pop(ROOM)

    handler.application = SimpleNamespace(settings={})
    handler._websocket_server = SimpleNamespace(rooms=rooms, delete_room=delete_room)
    handler._room_locks, handler._cleanup_delay, handler._file_loaders = {}, 0, Loaders()
    handler._room_id, handler.room = ROOM, room
    handler._emit = lambda *_: None
    handler.occupancy.enter(ROOM, handler)
    return handler


async def test_an_empty_room_is_taken_away(handler):
    handler._leave()
    await handler.room.cleaner
    assert handler._websocket_server.rooms == {}


async def test_a_room_stays_for_somebody_who_came_while_its_end_was_awaited(handler):
    lock = handler._room_lock(ROOM)
    async with lock:  # somebody is just looking whether there is a room
        handler._leave()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert lock._waiters, "the cleaner is past its delay"
        handler.occupancy.enter(ROOM, "who comes in")
    await handler.room.cleaner
    assert list(handler._websocket_server.rooms) == [ROOM]
    assert handler._room_lock(ROOM) is lock, "others may wait for it"


async def test_the_last_one_to_go_has_it_taken_away_though_an_earlier_end_was_called_off(handler):
    handler._leave()
    first = handler.room.cleaner
    handler.occupancy.enter(ROOM, handler)
    first.cancel()  # as Jupyter does when somebody is served again
    handler._leave()
    assert handler.room.cleaner is not first
    await handler.room.cleaner
    assert handler._websocket_server.rooms == {}


async def test_a_room_whose_edits_cannot_be_stored_yet_is_not_taken_away(handler):
    room, stored, asked = ManagedRoom.__new__(ManagedRoom), asyncio.Event(), asyncio.Event()

    async def flush() -> None:
        asked.set()
        await stored.wait()

    room.flush, room._cleaner = flush, None
    handler.room = handler._websocket_server.rooms[ROOM] = room
    handler._leave()
    await asked.wait()
    assert list(handler._websocket_server.rooms) == [ROOM]
    stored.set()
    await room.cleaner
    assert handler._websocket_server.rooms == {}
