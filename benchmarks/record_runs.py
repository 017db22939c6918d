"""Records what honest programs do in a real box, for `benchmarks/detection.py`.

    python benchmarks/record_runs.py > benchmarks/data/recorded_runs.jsonl

Each line is one run: what the program was, how it ended, and the evidence of it.
"""
# ruff: noqa: E501 - programs stand on a line each

from __future__ import annotations

import asyncio
import json

from angelos.core.messages import Limits
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, RunSpec
from angelos.node.sandbox.sandbox import BubblewrapSandbox

PROGRAMS = {
    "print": "print(sum(range(1000)))",
    "statistics": "import statistics; print(statistics.mean(range(99999)))",
    "json": "import json; print(len(json.dumps(list(range(10000)))))",
    "sqlite": "import sqlite3; sqlite3.connect(':memory:').execute('select 1')",
    "files": "open('/tmp/a', 'w').write('x' * 10**6); print(len(open('/tmp/a').read()))",
    "threads": "import threading as t; a=[t.Thread(target=sum,args=([1],)) for _ in range(8)]; [x.start() for x in a]; [x.join() for x in a]",
    "processes": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1)'])",
    "pool": "from concurrent.futures import ThreadPoolExecutor as P; print(list(P(4).map(abs, range(9))))",
    "asyncio": "import asyncio; asyncio.run(asyncio.sleep(0.01))",
    "fetch": "import urllib.request as r\ntry: r.urlopen('http://example.org', timeout=1)\nexcept OSError as e: print(e)",
    "resolve": "import socket\ntry: socket.getaddrinfo('example.org', 80)\nexcept OSError as e: print(e)",
    "retry": "import socket\nfor _ in range(20):\n try: socket.create_connection(('10.0.0.1', 80), 0.1)\n except OSError: pass",
    "numpy": "try:\n import numpy as n; print(n.linalg.svd(n.ones((200, 200)))[1][:2])\nexcept ImportError: print('none')",
    "platform": "import platform, os; print(platform.uname(), os.cpu_count(), os.getloadavg())",
    "busy": "import time; e=time.process_time()+1.5\nwhile time.process_time()<e: pass",
    "error": "raise ValueError('a mistake')",
    "missing": "import a_module_that_is_not_there",
    "memory": "a = bytearray(80_000_000); print(len(a))",
    "temporary": "import tempfile; f = tempfile.NamedTemporaryFile(); f.write(b'1'); print(f.name)",
    "signals": "import signal, os; signal.signal(signal.SIGUSR1, print); os.kill(os.getpid(), signal.SIGUSR1)",
    "nice": "import os\ntry: os.nice(5)\nexcept OSError as e: print(e)",
    "chown": "import os\nopen('/tmp/b', 'w').close()\ntry: os.chown('/tmp/b', 0, 0)\nexcept OSError as e: print(e)",
    "mmap": "import mmap; m = mmap.mmap(-1, 4096); m[:2] = b'ab'; print(m[:2])",
    "compress": "import zlib, lzma; print(len(lzma.compress(zlib.compress(b'ab' * 10**5))))",
    "regular": "import re; print(len(re.findall(r'a+b', 'aab' * 10**4)))",
}  # fmt: skip


async def main() -> None:
    """Run each program, and print what was seen of it."""
    limits = Limits(wall_s=20, cpu_s=10, memory_mb=512)
    async with BubblewrapSandbox() as sandbox:
        for name, code in PROGRAMS.items():
            async for event in run_session(
                sandbox, RunSpec(argv=("python",), code=code, limits=limits)
            ):
                if isinstance(event, Exit):
                    row = {"program": name, "status": event.status, "tier": event.tier}
                    print(json.dumps(row | {"evidence": event.evidence}, default=str))


if __name__ == "__main__":
    asyncio.run(main())
