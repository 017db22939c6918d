"""`angelos import`: which files of a folder are taken."""

import subprocess
from pathlib import Path

import pytest

from angelos.cli.commands import import_
from angelos.core.errors import InvalidInput, TooLarge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in {
        "a.py": "a\n",
        "sub/b.txt": "ü\n",
        ".hidden/c": "c",
        "sub/d.log": "d",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_without_git_all_that_is_not_hidden(folder: Path) -> None:
    assert import_.read_files(folder) == {"a.py": "a\n", "sub/b.txt": "ü\n", "sub/d.log": "d"}


def test_with_git_what_it_does_not_ignore(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.log\n.hidden\n")
    assert set(import_.read_files(folder)) == {".gitignore", "a.py", "sub/b.txt"}


def test_a_link_is_left_out(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    assert "link" not in import_.read_files(folder)


def test_what_is_not_text_is_named(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"\xff\x00")
    with pytest.raises(InvalidInput, match=r"x\.bin"):
        import_.read_files(folder)


def test_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_, "MAX_FILES", 2)
    with pytest.raises(TooLarge):
        import_.read_files(folder)


def test_no_folder_and_no_files(tmp_path: Path) -> None:
    for root in (tmp_path / "absent", tmp_path):
        with pytest.raises(InvalidInput):
            import_.read_files(root)
