"""Working files on a real file system: nothing that stands there is ever lost."""

from __future__ import annotations

import ctypes
import errno
import os
import time
from pathlib import Path

import pytest

from angelos.adapters.host import rename
from angelos.angelgit.worktree import files as module
from angelos.angelgit.worktree.files import WorkingFiles
from angelos.angelgit.worktree.reconcile import DiskFile, FileKind
from angelos.core.errors import Refused
from angelos.core.revision import MAX_FILE_BYTES

ABSENT = DiskFile(FileKind.absent)


@pytest.fixture
def files(tmp_path) -> WorkingFiles:
    return WorkingFiles(tmp_path / "ws")


@pytest.fixture
def ws(tmp_path) -> Path:
    return tmp_path / "ws/r"


@pytest.fixture(params=["kernel", "ordinary"])
def renames(request, monkeypatch):
    """Both ways to rename: by the kernel, and where it does not know how."""
    if request.param == "ordinary":
        monkeypatch.setattr(rename, "_renameat2", lambda *_: False)


def old(path: Path) -> None:
    """Make a file look as if nobody had touched it for long."""
    os.utime(path, (time.time() - 60,) * 2)


def put(files, content, path="a.txt", *, now=None):
    return files.put("r", path, content, 0o644, now or files.look("r", path))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.usefixtures("renames")
def test_files_are_written_whole_and_removed_with_their_folders(files, ws):
    assert put(files, b"one", "a/b/c.txt")
    assert put(files, b"two", "a/b/c.txt")
    place = ws / "a/b/c.txt"
    assert place.read_bytes() == b"two"
    assert place.stat().st_mode & 0o777 == 0o644
    assert names(place.parent) == ["c.txt"]
    assert files.remove("r", "a/b/c.txt", {b"two"})
    assert not (ws / "a").exists()
    assert files.remove("r", "a/b/c.txt", {b"two"})


@pytest.mark.usefixtures("renames")
def test_a_file_that_is_not_as_expected_is_put_back(files, ws):
    put(files, b"one")
    seen = files.look("r", "a.txt")
    (ws / "a.txt").write_bytes(b"somebody's")
    assert not put(files, b"two", now=seen)
    assert not put(files, b"two", now=ABSENT)
    (ws / "b.txt").write_bytes(b"new")
    assert not put(files, b"two", "b.txt", now=ABSENT)
    assert not put(files, b"two", "c.txt", now=seen)  # deleted meanwhile
    assert (ws / "a.txt").read_bytes() == b"somebody's"
    assert (ws / "b.txt").read_bytes() == b"new"
    assert names(ws) == ["a.txt", "b.txt"]


def test_a_save_between_two_exchanges_is_kept(files, ws, monkeypatch):
    put(files, b"one")
    seen = files.look("r", "a.txt")
    (ws / "a.txt").write_bytes(b"first")
    real, count = module.exchange, []

    def exchange(one, other):
        real(one, other)
        count.append(1)
        if len(count) == 1:  # an editor replaces ours by its own before we put the first back
            (ws / "new").write_bytes(b"second")
            (ws / "new").replace(ws / "a.txt")

    monkeypatch.setattr(module, "exchange", exchange)
    assert not put(files, b"two", now=seen)
    assert sorted(p.read_bytes() for p in ws.iterdir()) == [b"first", b"second"]


def test_the_file_at_the_path_is_kept_aside_whatever_it_is(files, ws, tmp_path, renames):
    secret = tmp_path / "secret"
    secret.write_text("s")
    ws.mkdir()
    (ws / "a.txt").write_bytes(b"text")
    (ws / "b.txt").symlink_to(secret)
    (ws / "c.d").mkdir()
    (ws / "c.d/x").write_bytes(b"x")
    os.mkfifo(ws / "e")
    for path in ("a.txt", "b.txt", "c.d", "e"):
        kept = files.put_aside("r", path, b"live", 0o644, "disk-now")
        assert (ws / path).read_bytes() == b"live"
        assert kept == f"{Path(path).stem}.disk-now{Path(path).suffix}"
    assert (ws / "a.disk-now.txt").read_bytes() == b"text"
    assert (ws / "b.disk-now.txt").readlink() == secret
    assert (ws / "c.disk-now.d/x").read_bytes() == b"x"
    assert (ws / "e.disk-now").is_fifo()
    assert secret.read_text() == "s"
    assert files.put_aside("r", "a.txt", b"again", 0o644, "disk-now") == "a.disk-now-2.txt"
    assert files.put_aside("r", "n/new.txt", b"n", 0o644, "disk-now") == ""
    assert len(names(ws)) == 10


def test_only_regular_files_are_read(files, ws, tmp_path):
    ws.mkdir(parents=True)
    (ws / "link").symlink_to("/dev/zero")
    (ws / "loop").symlink_to("loop")
    os.mkfifo(ws / "fifo")  # opening it would wait for a writer
    with (ws / "huge").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    seen = {name: files.look("r", name) for name in ("link", "loop", "fifo", "huge")}
    assert {disk.kind for disk in seen.values()} == {"unreadable"}
    assert all(disk.content == b"" and disk.reason for disk in seen.values())


def test_links_do_not_lead_out_of_the_workspace(files, ws, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    ws.mkdir()
    (ws / "a").symlink_to(outside)
    with pytest.raises(Refused):
        put(files, b"x", "a/x.txt", now=ABSENT)
    with pytest.raises(Refused):
        files.look("r", "a/x.txt")
    assert names(outside) == []


def test_a_file_that_is_being_written_says_so(files, ws):
    put(files, b"one")
    old(ws / "a.txt")
    assert files.look("r", "a.txt") == DiskFile(FileKind.file, b"one")
    with (ws / "a.txt").open("ab") as writer:
        assert files.look("r", "a.txt") == DiskFile(FileKind.file, b"one", being_written=True)
        writer.write(b"!")
    assert files.look("r", "a.txt") == DiskFile(FileKind.file, b"one!", recent=True)


def test_a_file_opened_for_writing_before_the_exchange_is_put_back(files, ws):
    put(files, b"one")
    seen = files.look("r", "a.txt")
    with (ws / "a.txt").open("ab") as writer:
        assert not put(files, b"two", now=seen)
        writer.write(b" more")
    assert (ws / "a.txt").read_bytes() == b"one more"


def test_where_files_cannot_be_leased_none_seems_to_be_written(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EAGAIN, "as NFS does")

    monkeypatch.setattr(module.fcntl, "fcntl", refuse)
    files = WorkingFiles(tmp_path / "ws")
    put(files, b"one")
    assert not files.look("r", "a.txt").being_written


def test_a_file_that_somebody_has_changed_is_not_removed(files, ws):
    put(files, b"mine")
    assert not files.remove("r", "a.txt", {b"ours"})
    assert (ws / "a.txt").exists()
    (ws / "b.txt").symlink_to(ws / "a.txt")
    assert not files.remove("r", "b.txt", {b"mine"})


def test_an_error_of_the_kernel_is_reported(tmp_path, monkeypatch):
    (tmp_path / "a").touch()
    with pytest.raises(FileNotFoundError):
        rename.exchange(tmp_path / "a", tmp_path / "missing")
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.ENOSYS)
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileNotFoundError):
        rename.exchange(tmp_path / "a", tmp_path / "missing")
    assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("name", ["ä" * 98 + ".txt", "a." + "x" * 198])
def test_a_long_name_leaves_room_for_the_mark(files, ws, name):
    ws.mkdir()
    (ws / name).write_bytes(b"theirs")
    kept = files.put_aside("r", name, b"ours", 0o644, "disk-20261122T233654Z")
    assert (ws / kept).read_bytes() == b"theirs"
    assert (ws / name).read_bytes() == b"ours"
