"""Run a notebook from its first cell in a clean kernel; runs inside the sandbox.

The pipeline sends this file's text as the code of a task, with `NOTEBOOK` set in front of it. The
kernel talks over Unix sockets, since the box has no network. Exit code 1 and the failing cell's
traceback if a cell raises.
"""

import asyncio
import sys
import time
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

NOTEBOOK = globals().get("NOTEBOOK", "")


def main() -> int:
    """Execute the notebook of the checkout; print what ran and how long it took."""
    started = time.monotonic()
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip="/tmp/k")  # noqa: S108
    client = NotebookClient(
        notebook, km=kernel, timeout=None, resources={"metadata": {"path": str(Path.cwd())}}
    )
    try:
        asyncio.run(client.async_execute())
    except CellExecutionError as error:
        print(error)
        return 1
    except DeadKernelError:
        print(f"{NOTEBOOK}: the kernel died")
        return 1
    count = sum(cell.cell_type == "code" for cell in notebook.cells)
    print(f"{NOTEBOOK}: {count} cells ran in {time.monotonic() - started:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
