"""Which files of a folder `angelos repo import` takes."""

import os
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
    files = reading.read_files(folder)
    assert files == reading.FolderFiles({"a.py": "a\n", "sub/b.txt": "ü\n", "sub/d.log": "d"})


def test_with_git_what_it_does_not_ignore(folder: Path) -> None:
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".gitignore").write_text("*.log\n.hidden\n")
    assert set(reading.read_files(folder).texts) == {".gitignore", "a.py", "sub/b.txt"}


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


def test_links_programs_and_what_is_no_text_are_kept_as_they_are(folder: Path) -> None:
    (folder / "link").symlink_to("sub/b.txt")
    (folder / "x.bin").write_bytes(b"\xff\xfe")
    (folder / "y.dat").write_bytes(b"a\0b")
    (folder / "a.py").chmod(0o755)
    (folder / "y.dat").chmod(0o755)
    files = reading.read_files(folder)
    assert files.links == {"link": "sub/b.txt"}
    assert files.blobs == {"x.bin": b"\xff\xfe", "y.dat": b"a\0b"}
    assert files.executable == ["a.py", "y.dat"]
    assert files.refused == []
    assert files.leave_out_other_kinds() == ["link", "x.bin", "y.dat"]
    assert (files.blobs, files.links, files.executable) == ({}, {}, ["a.py"])


def test_what_no_repository_can_hold_is_named_and_nothing_is_imported(folder: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    (folder / "up").symlink_to("../up")
    Path(os.fsdecode(os.fsencode(folder) + b"/na\xefve")).write_text("x")
    os.mkfifo(folder / "pipe")
    refused = CliRunner().invoke(repo, ["import", str(folder)])
    assert refused.exit_code == 1
    for name in ("out (", "up (", "pipe (no file)", r"na\xefve (its name is not UTF-8)"):
        assert name in refused.output
    assert "nothing was imported" in refused.output


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
