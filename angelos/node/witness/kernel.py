"""The program that runs a notebook's cells in a clean kernel, for the runner in the other box.

The kernel is a process of its own, which imports the checkout's modules; this one does not, and it
holds the nonces. Nothing of the checkout is on its import path, nor on the kernel's until that has
imported all that it needs itself. The kernel talks over Unix sockets in /tmp: there is no network.
"""

from __future__ import annotations

import sys

WORK = "/work"
sys.path[:] = [folder for folder in sys.path if folder not in ("", WORK)]  # before any import

import ctypes  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

_KERNEL = """
import sys
sys.path[:] = [folder for folder in sys.path if folder not in ("", {work!r})]
import asyncio, inspect, json, linecache, sqlite3, unittest
from IPython.core import completer, display_functions, oinspect, ultratb
from ipykernel import iostream, ipkernel, kernelapp
# The pipe for output of forked children listens on TCP, which this box does not have; libzmq may
# abort the process over that, so the kernel is started without the pipe.
iostream.IOPubThread._setup_pipe_in = lambda self: setattr(self, "_pipe_flag", False)
app = kernelapp.IPKernelApp.instance()
app.initialize(["-f", sys.argv[sys.argv.index("-f") + 1], "--IPKernelApp.ignore_cwd=True"])
sys.path.insert(0, {folder!r})
sys.argv = sys.argv[:1]
app.start()
"""
_OUTPUTS = 12_000_000
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_PR_SET_DUMPABLE = 4


class Kernel:
    """A clean kernel, and the cells that ran in it."""

    def __init__(self, path: str) -> None:
        folder = tempfile.mkdtemp(prefix="k")
        os.environ.update(
            HOME=folder,
            JUPYTER_RUNTIME_DIR=folder,
            JUPYTER_DATA_DIR=folder,
            IPYTHONDIR=folder,
            PYTHONDONTWRITEBYTECODE="1",
            MPLBACKEND="module://matplotlib_inline.backend_inline",
        )
        os.environ.pop("JPY_PARENT_PID", None)
        import nbformat
        from jupyter_client.manager import AsyncKernelManager
        from nbclient import NotebookClient

        self._format = nbformat
        self._notebook = nbformat.v4.new_notebook()
        manager = AsyncKernelManager(
            transport="ipc", ip=f"{folder}/s", connection_file=f"{folder}/c.json"
        )
        manager.cache_ports = False
        work = str(Path(WORK, path).parent)
        program = _KERNEL.format(work=WORK, folder=work)
        kernel: Any = manager.kernel_spec
        kernel.argv = [sys.executable, "-I", "-c", program, "-f", "{connection_file}"]
        self._client = NotebookClient(
            self._notebook,
            km=manager,
            timeout=None,
            allow_errors=True,
            resources={"metadata": {"path": work}},
        )
        self._session = self._client.setup_kernel()
        self._session.__enter__()

    def run(self, source: str, *, quiet: bool) -> dict[str, Any]:
        """Run a cell and return its outputs, and the error if it raised one."""
        cell = self._format.v4.new_code_cell(source)
        self._notebook.cells.append(cell)
        self._client.execute_cell(cell, len(self._notebook.cells) - 1)
        outputs = json.loads(json.dumps(cell.outputs))
        error = next((o for o in outputs if o["output_type"] == "error"), None)
        if not quiet:
            printed = [o["text"] for o in outputs if o["output_type"] == "stream"]
            sys.stderr.write("".join([*printed, *_shown(error)]))
        if len(json.dumps(outputs)) > _OUTPUTS:
            error = {"ename": "TooLarge", "evalue": f"its outputs have over {_OUTPUTS} bytes"}
            outputs = []
        return {"outputs": outputs, "error": error}

    def close(self) -> None:
        """End the kernel."""
        self._session.__exit__(None, None, None)


def _shown(error: dict[str, Any] | None) -> list[str]:
    """Return an error as the notebook shows it, without colours."""
    lines = error.get("traceback", []) if error else []
    return [_COLOUR.sub("", line) + "\n" for line in lines]


def main() -> None:
    """Answer requests until they end."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    # The kernel has the same user: it could open this process's memory and pipes in /proc.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    kernel: Kernel | None = None
    while line := requests.readline():
        request = json.loads(line)
        answer: dict[str, Any] = {}
        if request["do"] == "start":
            kernel = Kernel(request["path"])
        elif kernel is not None:
            answer = kernel.run(request["source"], quiet=request["quiet"])
        answers.write(json.dumps({"nonce": request["nonce"], **answer}).encode() + b"\n")
        answers.flush()
    if kernel is not None:
        kernel.close()


if __name__ == "__main__":
    main()
