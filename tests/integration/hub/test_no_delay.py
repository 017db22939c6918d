"""Frames leave at once: Nagle's algorithm and delayed acknowledgements together cost 40 ms."""

from __future__ import annotations

import socket

from tornado.iostream import IOStream

from angelos.testing.hub import connect, join, running_hub


async def test_both_ends_of_a_channel_send_without_delay(
    database, journal, queue, tmp_path, monkeypatch
):
    streams: dict[int, IOStream] = {}
    set_nodelay = IOStream.set_nodelay

    def noted(self: IOStream, value: bool) -> None:  # noqa: FBT001 - Tornado's signature
        streams[id(self)] = self
        set_nodelay(self, value)

    monkeypatch.setattr(IOStream, "set_nodelay", noted)
    async with running_hub(database, journal, queue, tmp_path) as hub:
        identity = await join(hub, "node", "exec1", tmp_path / "exec1")
        streams.clear()
        async with connect(hub, identity):
            ends = [stream for stream in streams.values() if not stream.closed()]
            options = [
                stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for stream in ends
            ]
    assert options == [1, 1]
