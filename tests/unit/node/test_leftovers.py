"""What a killed node has left is removed at its next start, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from angelos.node.sandbox.scratch import Leftovers

MAKER = """
import sys, time
from pathlib import Path
from angelos.node.sandbox.scratch import Leftovers
print(Leftovers(Path(sys.argv[1])).make(), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_folders_of_a_killed_process_are_swept_and_those_of_a_living_one_stay(
    tmp_path: Path, own_tmp: Path
) -> None:
    notes = tmp_path / "node" / "scratch"
    mine = Leftovers(notes).make()
    strangers = own_tmp / "angelos-task-0123456789abcdef"
    strangers.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, str(notes)], stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        left = Path(maker.stdout.readline().strip())
        (left / "deep").mkdir()
        (left / "deep" / "file").write_text("x")
        Leftovers(notes).sweep()
        assert left.is_dir(), "its maker lives"
        maker.send_signal(signal.SIGKILL)
    Leftovers(notes).sweep()
    assert not left.exists()
    assert mine.is_dir()
    assert strangers.is_dir()
    assert [note.name for note in notes.iterdir()] == [mine.name]
    Leftovers(notes).remove(mine)
    assert (list(notes.iterdir()), mine.exists()) == ([], False)


def test_a_note_that_points_elsewhere_or_is_cut_off_removes_nothing(tmp_path: Path) -> None:
    notes, precious = tmp_path / "scratch", tmp_path / "precious"
    notes.mkdir()
    precious.mkdir()
    note = f'{{"path":"{precious}","pid":{2**22 + 1},"start_ticks":5}}'
    (notes / "angelos-task-1").write_text(note)
    (notes / "angelos-task-2").write_text(note[:20])
    Leftovers(notes).sweep()
    assert precious.is_dir()
    assert not (notes / "angelos-task-2").exists()


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    notes, precious = tmp_path / "scratch", tmp_path / "precious"
    (precious / "kept").mkdir(parents=True)
    folders = Leftovers(notes)
    path = folders.make()
    path.rmdir()
    path.symlink_to(precious)
    folders.remove(path)
    assert (precious / "kept").is_dir()


def test_without_notes_folders_are_made_and_removed_all_the_same() -> None:
    folders = Leftovers(None)
    path = folders.make()
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_uid == os.geteuid()
    folders.remove(path)
    folders.remove(path)
    folders.sweep()
    assert not path.exists()
