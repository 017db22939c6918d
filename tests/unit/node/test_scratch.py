"""The folders of a killed node are removed at its next start, and no others."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from angelos.node.sandbox.scratch import ScratchFolders

MAKER = """
import sys, time
from pathlib import Path
from angelos.node.sandbox.scratch import ScratchFolders
print(ScratchFolders(Path(sys.argv[1])).make(), flush=True)
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
    records = tmp_path / "node" / "scratch"
    ours = ScratchFolders(records).make()
    strangers = own_tmp / "angelos-task-0123456789abcdef"
    strangers.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", MAKER, str(records)], stdout=subprocess.PIPE, text=True
    ) as maker:
        assert maker.stdout is not None
        old = Path(maker.stdout.readline().strip())
        (old / "deep").mkdir()
        (old / "deep" / "file").write_text("x")
        ScratchFolders(records).sweep()
        assert old.is_dir(), "its maker lives"
        maker.send_signal(signal.SIGKILL)
    ScratchFolders(records).sweep()
    assert not old.exists()
    assert ours.is_dir()
    assert strangers.is_dir()
    assert [record.name for record in records.iterdir()] == [ours.name]
    ScratchFolders(records).remove(ours)
    assert (list(records.iterdir()), ours.exists()) == ([], False)


def test_a_record_that_points_elsewhere_or_is_cut_off_removes_nothing(tmp_path: Path) -> None:
    records, precious = tmp_path / "scratch", tmp_path / "precious"
    records.mkdir()
    precious.mkdir()
    record = f'{{"path":"{precious}","pid":{2**22 + 1},"start_ticks":5}}'
    (records / "angelos-task-1").write_text(record)
    (records / "angelos-task-2").write_text(record[:20])
    ScratchFolders(records).sweep()
    assert precious.is_dir()
    assert not (records / "angelos-task-2").exists()


def test_a_link_in_the_place_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    records, precious = tmp_path / "scratch", tmp_path / "precious"
    (precious / "kept").mkdir(parents=True)
    folders = ScratchFolders(records)
    path = folders.make()
    path.rmdir()
    path.symlink_to(precious)
    folders.remove(path)
    assert (precious / "kept").is_dir()


def test_without_records_folders_are_still_made_and_removed() -> None:
    folders = ScratchFolders(None)
    path = folders.make()
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_uid == os.geteuid()
    folders.remove(path)
    folders.remove(path)
    folders.sweep()
    assert not path.exists()
