"""The server and the nodes of `angelos up` as parts that are kept running.

    part = ServerPart(child, url)
    await keep(part, reporter)          # host/supervision.py

The stores are parts themselves (`host/embedded.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from tornado.httpclient import HTTPRequest

from angelos.adapters.host.notify import EVERY_S, SignsOfLife
from angelos.adapters.host.supervision import PROBE_S
from angelos.adapters.net.dial import caller
from angelos.core.errors import Unavailable
from angelos.system.child import Child

_START_S = 60.0
_POLL_S = 0.1
_MAX_ANSWER = 65_536
_LATE_S = EVERY_S + PROBE_S


class _ChildPart:
    """A child process; what probing it means is up to its kind."""

    def __init__(self, child: Child, before: Callable[[], Awaitable[None]] | None = None) -> None:
        self.child = child
        self._before = before

    @property
    def name(self) -> str:
        """Its name in messages and facts."""
        return self.child.name

    @property
    def pid(self) -> int:
        """Its process; raises `Unavailable` when there is none."""
        if self.child.record is None:
            raise Unavailable(f"{self.name} was not started.")
        return self.child.record.pid

    async def ended(self) -> int | None:
        """Wait until its process has ended and return its exit code."""
        return await self.child.wait()

    async def probe(self) -> bool:
        """Return whether it answers."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Kill what is left of it and start it again; return once it answers."""
        self.child.kill()
        await self.child.stop()
        if self._before is not None:
            await self._before()
        await self.child.start()
        ended = asyncio.create_task(self.child.wait())
        try:
            async with asyncio.timeout(_START_S):
                while not await self._is_up():
                    if ended.done():
                        raise Unavailable(f"{self.name} ended with exit code {ended.result()}.")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(f"{self.name} did not answer within {_START_S:.0f} s.") from None
        finally:
            ended.cancel()
            await asyncio.wait({ended})

    async def _is_up(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                return await self.probe()
        except (TimeoutError, OSError):
            return False


class ServerPart(_ChildPart):
    """The Jupyter server, which answers an HTTP request that needs neither store nor sign-in."""

    def __init__(self, child: Child, url: str) -> None:
        super().__init__(child)
        self._url = f"{url}/api"

    async def probe(self) -> bool:
        """Return whether it answers, whatever it answers."""
        request = HTTPRequest(self._url, connect_timeout=PROBE_S, request_timeout=PROBE_S)
        async with caller(_MAX_ANSWER) as http:
            try:
                await http.fetch(request, raise_error=False)
            except Exception:  # noqa: BLE001 - Tornado raises many kinds; none is an answer
                return False
        return True


class NodePart(_ChildPart):
    """A node, which gives a sign of life every second while its event loop runs."""

    def __init__(
        self, child: Child, signs: SignsOfLife, before: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(child, before)
        self._signs = signs

    async def probe(self) -> bool:
        """Return whether its last sign of life is recent."""
        last = self._signs.last(self.pid)
        return last is not None and time.monotonic() - last < _LATE_S

    async def restart(self) -> None:
        """Start it again."""
        self._signs.forget(self.pid)
        self.child.env["NOTIFY_SOCKET"] = str(self._signs.path)
        await super().restart()
