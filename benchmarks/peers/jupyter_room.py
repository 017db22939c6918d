"""A plain Jupyter server with its own collaboration rooms, on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from tornado.httpclient import AsyncHTTPClient

_EXTENSIONS = {"jupyter_server_ydoc": True, "jupyter_server_fileid": True}
_OTHERS = ("jupyter_ext", "jupyterlab", "notebook_shim", "jupyter_lsp", "jupyter_server_terminals",
           "jupyter_collaboration", "nbdime")  # fmt: skip


class PlainJupyter(NamedTuple):
    """Where it is, and its token."""

    url: str
    token: str


@asynccontextmanager
async def plain_jupyter(names: Sequence[str]) -> AsyncIterator[PlainJupyter]:
    """Run the server on a folder of small files."""
    with tempfile.TemporaryDirectory(prefix="plain-jupyter-") as name:
        root = Path(name) / "root"
        root.mkdir()
        for file in names:
            (root / file).write_text("x\n")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        token = secrets.token_hex(16)
        config = Path(name) / "config"
        config.mkdir()
        extensions = {**_EXTENSIONS, **dict.fromkeys(_OTHERS, False)}
        settings = {"ServerApp": {"jpserver_extensions": extensions}}
        (config / "jupyter_server_config.json").write_text(json.dumps(settings))
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "ANGELOS"))}
        env |= {"HOME": name, "JUPYTER_CONFIG_DIR": str(config)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
            f"--ServerApp.port={port}", f"--ServerApp.root_dir={root}",
            f"--IdentityProvider.token={token}", "--ServerApp.port_retries=0",
            env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            url = f"http://127.0.0.1:{port}"
            await _answers(url, process)
            yield PlainJupyter(url, token)
        finally:
            process.terminate()
            await process.wait()


async def _answers(url: str, process: asyncio.subprocess.Process) -> None:
    client = AsyncHTTPClient(force_instance=True)
    for _ in range(600):
        if process.returncode is not None:
            raise RuntimeError("the plain Jupyter server ended")
        try:
            await client.fetch(f"{url}/api")
        except (OSError, Exception):  # noqa: BLE001 - it is starting
            await asyncio.sleep(0.1)
        else:
            client.close()
            return
    raise RuntimeError("the plain Jupyter server does not answer")
