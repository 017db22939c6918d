"""The notebook that shows the package runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.unit.llm.needs import need_ml

need_ml()

NOTEBOOK = Path(__file__).resolve().parents[3] / "notebooks/10_llm.ipynb"


@pytest.mark.slow
def test_every_cell_runs_and_the_loss_curve_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    context = {"metadata": {"path": str(NOTEBOOK.parent)}}
    NotebookClient(notebook, timeout=150, kernel_name="python3", resources=context).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("angelos is online" in output.get("text", "") for output in outputs)
