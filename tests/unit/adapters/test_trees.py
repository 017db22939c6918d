"""Folders that hold read-only folders are removed whole, and nothing beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from angelos.adapters.host.trees import remove_tree


def test_what_is_read_only_is_removed_too_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o500)
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("x")
    (top / "a" / "link").symlink_to(outside)
    for folder, mode in ((top / "a" / "b", 0o000), (top / "a", 0o500), (top, 0o500)):
        folder.chmod(mode)
    remove_tree(top)
    assert not top.exists()
    assert outside.stat().st_mode & 0o777 == 0o500


def test_a_link_and_a_folder_that_is_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    with pytest.raises(NotADirectoryError):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "kept").is_dir()
    with pytest.raises(FileNotFoundError):
        remove_tree(tmp_path / "absent")
