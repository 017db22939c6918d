"""The program that a notebook's pipeline step runs in the sandbox: a clean-kernel re-run.

Sent to the node as `code`, so that it needs nothing there but nbclient and ipykernel. The
kernel talks over Unix sockets in the writable /tmp: the box has no network.

>>> compile(program("analysis.ipynb"), "step", "exec") is not None
True
"""

from __future__ import annotations

_PROGRAM = '''\
import os
import sys
import tempfile

PATH = {path!r}
KERNEL = """
from ipykernel import iostream, kernelapp
iostream.IOPubThread._setup_pipe_in = lambda self: setattr(self, "_pipe_flag", False)
kernelapp.launch_new_instance()
"""
SECONDS = {seconds!r}
folder = tempfile.mkdtemp(prefix="k")
os.environ.update(
    HOME=folder, JUPYTER_RUNTIME_DIR=folder, JUPYTER_DATA_DIR=folder, IPYTHONDIR=folder,
    PYTHONDONTWRITEBYTECODE="1",
)
os.environ.pop("JPY_PARENT_PID", None)

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

notebook = nbformat.read(PATH, as_version=4)
manager = AsyncKernelManager(
    transport="ipc", ip=os.path.join(folder, "s"), connection_file=os.path.join(folder, "c.json")
)
manager.cache_ports = False
# The kernel's pipe for output of forked children listens on TCP, which this box does not have;
# libzmq may abort the process over that, so the kernel is started without the pipe.
manager.kernel_spec.argv = [sys.executable, "-c", KERNEL, "-f", "{{connection_file}}"]
work = os.path.dirname(os.path.abspath(PATH))
client = NotebookClient(
    notebook, km=manager, timeout=SECONDS, resources={{"metadata": {{"path": work}}}}
)
try:
    client.execute(cwd=os.getcwd())
except CellExecutionError as error:
    print(error)
    sys.exit(1)
cells = sum(cell.cell_type == "code" for cell in notebook.cells)
print(f"{{PATH}}: {{cells}} code cells ran in a clean kernel")
'''


def program(path: str, seconds: float = 120.0) -> str:
    """Return the program that runs the notebook at `path`, relative to the checkout."""
    return _PROGRAM.format(path=path, seconds=int(seconds) + 1)
