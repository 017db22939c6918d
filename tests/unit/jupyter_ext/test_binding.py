"""Which files are managed, and what is refused while the system is away."""

from __future__ import annotations

from types import SimpleNamespace

import msgspec
import pytest

from angelos.core.errors import ServerState, Unavailable, from_problem
from jupyter_ext.auth.authorizer import _managed
from jupyter_ext.binding import Binding
from jupyter_ext.rooms.handler import canonical_room


@pytest.fixture
def binding(tmp_path):
    (tmp_path / "data" / "workspace").mkdir(parents=True)
    return Binding(workspace=tmp_path / "data" / "workspace", root_dir=tmp_path)


@pytest.mark.parametrize(
    ("path", "relative"),
    [
        ("data/workspace/study/a.py", "study/a.py"),
        ("/data/workspace/study/a.py", "study/a.py"),
        ("data/workspace/study/../study/a.py", "study/a.py"),
        ("data/./workspace//study/a.py", "study/a.py"),
        ("data/workspace", ""),
        ("data/workspace/../elsewhere", None),
        ("data/workspace-too/a.py", None),
        ("a.py", None),
        ("../data/workspace/a.py", None),
    ],
)
def test_a_path_is_seen_as_the_file_that_it_opens(binding, path, relative):
    assert binding.workspace_path(path) == relative


@pytest.mark.parametrize(
    ("path", "above"),
    [("data", True), ("", True), ("data/x/..", True), ("data/workspace", False), ("dat", False)],
)
async def test_a_folder_above_the_workspace_is_managed_too(binding, path, above):
    assert binding.holds_workspace(path) == above
    if above:
        assert await _managed(binding, path)


async def test_nothing_of_the_workspace_is_opened_before_the_system_runs(binding):
    with pytest.raises(Unavailable, match="starting"):
        await binding.locate("data/workspace/study/a.py")
    assert await binding.locate("elsewhere/a.py") is None
    binding.fail("no disk.")
    with pytest.raises(Unavailable, match="no disk") as caught:
        binding.require()
    assert caught.value.extra["state"] == ServerState.not_started


def test_the_state_of_the_system_crosses_to_up_as_data(binding):
    backend = SimpleNamespace(routes=[], at_root=[])
    assert _state(binding) == ServerState.starting
    binding.bind(backend)
    binding.unbind()
    assert _state(binding) == ServerState.starting, "it was stopped"
    binding.bind(backend)
    binding.fail("the disk is full")
    binding.unbind()
    assert _state(binding) == ServerState.failed


def _state(binding) -> str:
    """Return what another process reads in the problem document."""
    with pytest.raises(Unavailable) as caught:
        binding.require()
    return from_problem(msgspec.json.decode(msgspec.json.encode(caught.value.problem()))).extra[
        "state"
    ]


def test_a_document_has_one_room():
    assert canonical_room("study/a.py", "7") == "text:file:7"
    assert canonical_room("study/b.ipynb", "7") == "json:notebook:7"
