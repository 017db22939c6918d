"""A boxed kernel beside a plain one of the same server, turn about; median, p99, ratio and bound.

    python benchmarks/kernels.py [--quick] [--json] [--rounds N]

Both are used as a browser does: started over HTTP, talked to over the WebSocket of their channels.
`start` is from the request to the first reply (`kernel_info`); `cell` from a cell to its end in a
kernel that has run before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
import uuid
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

from angelos.adapters.host.datadir import DataDir
from angelos.demo.world import start_up
from jupyter_ext.kernels.manager import UNBOXED

BOXED = "python3"
CODE = "print(6 * 7)"


class Kernel:
    """One kernel of the server, with one WebSocket."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._headers = url, {"Authorization": f"token {token}"}
        self._session = uuid.uuid4().hex

    async def start(self, name: str) -> Self:
        """Start it, and wait for its first reply."""
        answer = await self._ask("/api/kernels", "POST", json.dumps({"name": name}))
        self._id = json.loads(answer)["id"]
        url = self._url.replace("http", "ws", 1)
        self._socket = await websocket_connect(
            HTTPRequest(
                f"{url}/api/kernels/{self._id}/channels?session_id={self._session}",
                headers=self._headers,
            )
        )
        await self._answered("kernel_info_request", {}, "kernel_info_reply")
        return self

    async def run(self) -> None:
        """Run a cell to its end."""
        content = {"code": CODE, "silent": False, "store_history": False, "allow_stdin": False}
        await self._answered("execute_request", content, "execute_reply")

    async def end(self) -> None:
        """Leave it, and have the server end it."""
        self._socket.close()
        await self._ask(f"/api/kernels/{self._id}", "DELETE")

    async def _answered(self, kind: str, content: dict[str, Any], reply: str) -> None:
        number = uuid.uuid4().hex
        header = {
            "msg_id": number, "msg_type": kind, "username": "", "session": self._session,
            "version": "5.3", "date": "",
        }  # fmt: skip
        message = {
            "header": header, "parent_header": {}, "metadata": {}, "content": content,
            "channel": "shell", "buffers": [],
        }  # fmt: skip
        await self._socket.write_message(json.dumps(message))
        while (text := await self._socket.read_message()) is not None:
            answer = json.loads(text)
            if answer["msg_type"] == reply and answer["parent_header"].get("msg_id") == number:
                return
        raise ConnectionError("The kernel's socket was closed.")

    async def _ask(self, path: str, method: str, body: str | None = None) -> bytes:
        request = HTTPRequest(
            self._url + path, method=method, body=body, headers=self._headers, request_timeout=60
        )
        return (await AsyncHTTPClient().fetch(request)).body


def row(work: str, ours: list[float], theirs: list[float], at_most: float) -> dict[str, Any]:
    """Return one row; `ratio` is how many times the plain kernel's time ours takes."""
    a, b = statistics.median(ours), statistics.median(theirs)
    return {
        "work": work, "unit": "ms", "ours": round(a * 1e3, 2), "peer": "a plain kernel",
        "theirs": round(b * 1e3, 2), "ratio": round(a / b, 2), "at_most": at_most,
        "ours_p99": round(_p99(ours) * 1e3, 2), "theirs_p99": round(_p99(theirs) * 1e3, 2),
    }  # fmt: skip


def _p99(times: list[float]) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * 0.99))]


async def starts(url: str, token: str, rounds: int) -> dict[str, Any]:
    """Time the start of both."""
    times: dict[str, list[float]] = {BOXED: [], UNBOXED: []}
    for number in range(-1, rounds):
        for name in sorted(times, reverse=bool(number % 2)):
            began = time.perf_counter()
            kernel = await Kernel(url, token).start(name)
            if number >= 0:
                times[name].append(time.perf_counter() - began)
            await kernel.end()
    return row("kernel, start to first reply", times[BOXED], times[UNBOXED], 1.2)


async def cells(url: str, token: str, rounds: int) -> dict[str, Any]:
    """Time a cell in both."""
    kernels = {name: await Kernel(url, token).start(name) for name in (BOXED, UNBOXED)}
    times: dict[str, list[float]] = {BOXED: [], UNBOXED: []}
    for number in range(-10, rounds):
        for name in sorted(times, reverse=bool(number % 2)):
            began = time.perf_counter()
            await kernels[name].run()
            if number >= 0:
                times[name].append(time.perf_counter() - began)
    for kernel in kernels.values():
        await kernel.end()
    return row("cell, round trip", times[BOXED], times[UNBOXED], 1.1)


async def main() -> None:
    """Run both and print them, last as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under 60 s; a smoke test")
    parser.add_argument("--json", action="store_true", help="only the line of JSON")
    parser.add_argument("--rounds", type=int, default=0, help="of starts; of cells 20 times that")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 15)
    os.environ["ANGELOS_UNBOXED_KERNELS"] = UNBOXED
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="angelos-bench-")))
        await asyncio.to_thread(folder.chmod, 0o755)
        await start_up(folder / "data", stack)
        system = DataDir(folder / "data").system()
        rows = [
            await starts(system.url, system.token, rounds),
            await cells(system.url, system.token, 20 * rounds),
        ]
    if not options.json:
        for r in rows:
            print(
                f"{r['work']}: {r['ours']} against {r['theirs']} ms, p99 {r['ours_p99']} and "
                f"{r['theirs_p99']}, {r['ratio']} times a plain kernel's, at most {r['at_most']}"
            )
    machine = {
        "cpus": os.cpu_count(), "load": os.getloadavg()[0], "system": platform.platform(),
        "python": platform.python_version(),
    }  # fmt: skip
    print(json.dumps({"benchmark": "kernels", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    asyncio.run(main())
