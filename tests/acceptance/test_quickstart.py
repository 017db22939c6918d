"""The quickstart notebook, executed against a running system as a reader would, and again."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from angelos.demo.steps import STEPS
from tests.acceptance.up_process import Up, running

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "00_quickstart.ipynb"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for both readings."""
    with running(tmp_path_factory.mktemp("system") / "data") as up:
        yield up


async def _read_it(
    up: Up, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[nbformat.NotebookNode]:
    """Execute the notebook in `folder` and return its code cells; fail where a cell fails."""
    monkeypatch.setenv("ANGELOS_DATA_DIR", str(up.data.root))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    await client.async_execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _evidence(cells: list[nbformat.NotebookNode], step: str) -> dict:
    """Return what a step's cell evaluated to, once it has printed `ok`."""
    cell = next(cell for cell in cells if f'tour.step("{step}")' in cell.source)
    printed = "".join(out.text for out in cell.outputs if out.output_type == "stream")
    assert re.fullmatch(r"ok, \d+\.\d\d s: .+\n", printed), printed
    (result,) = [out for out in cell.outputs if out.output_type == "execute_result"]
    return ast.literal_eval(result.data["text/plain"])


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_step_is_ok_and_again_on_the_same_system(system, tmp_path, monkeypatch):
    revisions = []
    for reading in ("first", "second"):
        folder = tmp_path / reading
        folder.mkdir()
        cells = await _read_it(system, folder, monkeypatch)
        steps = re.findall(r'tour\.step\("(\w+)"\)', "\n".join(cell.source for cell in cells))
        assert steps == [name for name, _, _ in STEPS]
        evidence = {step: _evidence(cells, step) for step in steps}
        revisions.append(evidence["undo"]["back"]["revision"])
        assert evidence["import"]["revision"] == evidence["undo"]["to"]
        widget = "application/vnd.jupyter.widget-view+json"
        assert any(widget in out.get("data", {}) for cell in cells for out in cell.outputs)

    # Each reading had a repository of its own, and both nodes ended on its last revision.
    for node in ("labs1", "exec1"):
        checkouts = system.data.node(node) / "checkouts"
        current = [(checkouts / repo / "current").readlink().name for repo in ("study", "study-2")]
        assert current == revisions
