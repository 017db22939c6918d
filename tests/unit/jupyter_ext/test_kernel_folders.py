"""Which folder a kernel sees."""

from __future__ import annotations

import pytest

from jupyter_ext.kernels.folders import Places, folder_for


@pytest.fixture
def places(tmp_path):
    root = tmp_path / "root"
    for name in ("workspace/study/deep", "workspace/.trash", "data/keys", "home/notes", ".hidden"):
        (root / name).mkdir(parents=True)
    return Places(root, root / "workspace", root / "data", root / "home")


@pytest.mark.parametrize(
    ("start", "folder"),
    [
        ("workspace/study", "workspace/study"),
        ("workspace/study/deep", "workspace/study"),
        ("home/notes", "home/notes"),
        ("workspace", None),  # it holds every repository
        ("workspace/.trash", None),
        ("", None),  # it holds the data directory
        ("home", None),
        ("data", None),
        ("data/keys", None),
        (".hidden", None),
        ("..", None),
        ("workspace/study/../../data", None),
    ],
)
def test_a_kernel_sees_one_folder_or_none(places, start, folder):
    expected = places.root / folder if folder else None
    assert folder_for(places.root / start, places) == expected


def test_a_link_is_not_followed(places):
    (places.workspace / "study" / "away").symlink_to(places.data)
    (places.workspace / "alias").symlink_to(places.home)
    assert folder_for(places.workspace / "study" / "away", places) is None
    assert folder_for(places.workspace / "alias", places) is None
    assert folder_for(places.workspace / "alias" / "notes", places) is None
