"""Which files of a folder `angelos repo import` takes."""

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from angelos.cli import folder as reading
from angelos.cli.commands.repo import repo
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
    files, binary = reading.read_files(folder)
    assert files == {"a.py": "a\n", "sub/b.txt": "ü\n", "sub/d.log": "d"}
    assert binary == []


def test_with_git_what_it_does_not_ignore(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.log\n.hidden\n")
    assert set(reading.read_files(folder)[0]) == {".gitignore", "a.py", "sub/b.txt"}


def test_where_git_does_not_work_nothing_is_guessed(folder: Path, monkeypatch) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.log\n")  # what its owner shows to nobody
    (folder / ".git" / "config").write_text("[broken\n")
    for place in (folder, folder / "sub"):
        with pytest.raises(InvalidInput, match=r"bad config.*Nothing was imported"):
            reading.read_files(place)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InvalidInput, match="git"):
        reading.read_files(folder)


def test_a_link_is_named(folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    files, binary = reading.read_files(folder)
    assert "link" not in files
    assert binary == ["link"]


def test_what_is_not_text_is_named_and_only_left_out_on_demand(folder: Path) -> None:
    (folder / "x.bin").write_bytes(b"\xff\xfe")
    (folder / "y.dat").write_bytes(b"a\0b")
    files, binary = reading.read_files(folder)
    assert binary == ["x.bin", "y.dat"]
    assert not files.keys() & set(binary)
    refused = CliRunner().invoke(repo, ["import", str(folder)])
    assert refused.exit_code == 1
    assert "x.bin, y.dat are not text in UTF-8; nothing was imported" in refused.output
    assert "--text-only" in refused.output


def test_a_text_over_the_limit_is_too_large_wherever_it_is_cut(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "long.txt").write_text("ü" * 100)
    for limit in (100, 101):
        monkeypatch.setattr(reading, "MAX_BYTES", limit)
        with pytest.raises(TooLarge):
            reading.read_files(folder)


def test_bounds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_FILES", 2)
    with pytest.raises(TooLarge):
        reading.read_files(folder)


def test_no_folder_and_no_files(tmp_path: Path) -> None:
    for root in (tmp_path / "absent", tmp_path):
        refused = CliRunner().invoke(repo, ["import", str(root)])
        assert refused.exit_code == 2
        assert str(root) in refused.output
