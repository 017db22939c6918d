"""Files of a server whose root folder the operator has put behind a link."""

from __future__ import annotations

import pytest
from jupyter_process import Served
from tornado.web import HTTPError

from jupyter_ext.kernels.contents import LinklessContents

ME = "t-researcher"
TEXT = {"type": "file", "format": "text", "content": "hello\n"}


@pytest.fixture(scope="module")
def linked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linked")
    (folder / "real").mkdir()
    (folder / "root").symlink_to(folder / "real")
    server = Served(folder / "root" / "data", root="..")
    server.start()
    yield server
    server.end()


async def test_files_are_written_and_read(linked):
    root = linked.folder.parent
    for code in (201, 200):
        answer = await linked.ask("/api/contents/a.txt", ME, "PUT", json=TEXT)
        assert answer.code == code, answer.body
    assert (root / "a.txt").read_text() == "hello\n"
    answer = await linked.ask("/files/a.txt", ME, headers={"Range": "bytes=1-2"})
    assert (answer.code, answer.body) == (206, b"el")
    for number, content in ((1, "AAEC"), (-1, "AwQF")):
        part = {"type": "file", "format": "base64", "content": content, "chunk": number}
        answer = await linked.ask("/api/contents/b.bin", ME, "PUT", json=part)
        assert answer.code in {200, 201}, answer.body
    assert (root / "b.bin").read_bytes() == bytes(range(6))


async def test_a_checkpoint_brings_a_file_back(linked):
    path = "/api/contents/c.txt"
    await linked.ask(path, ME, "PUT", json=TEXT)
    (linked.folder.parent / "c.txt").chmod(0o640)
    assert (await linked.ask(f"{path}/checkpoints", ME, "POST")).code == 201
    await linked.ask(path, ME, "PUT", json={**TEXT, "content": "worse\n"})
    answer = await linked.ask(f"{path}/checkpoints/checkpoint", ME, "POST")
    assert answer.code == 204, answer.body
    file = linked.folder.parent / "c.txt"
    assert file.read_text() == "hello\n"
    assert file.stat().st_mode & 0o777 == 0o640


async def test_a_folder_is_not_copied_since_links_in_it_would_be_followed(linked):
    root = linked.folder.parent
    (root / "d" / "s").mkdir(parents=True)
    (root / "d" / "s" / "k").symlink_to("/etc/passwd")
    answer = await linked.ask("/api/contents/", ME, "POST", json={"copy_from": "d"})
    assert answer.code == 400, answer.body
    assert not [p for p in root.iterdir() if "Copy" in p.name]


async def test_folders_are_made_and_files_renamed_within_their_folders(linked):
    root = linked.folder.parent
    assert (await linked.ask("/api/contents/r", ME, "PUT", json={"type": "directory"})).code == 201
    assert (root / "r").is_dir()
    (root / "r" / "a.txt").write_text("a")
    (root / "r" / "b.txt").write_text("b")
    taken = await linked.ask("/api/contents/r/a.txt", ME, "PATCH", json={"path": "r/b.txt"})
    assert (taken.code, (root / "r" / "b.txt").read_text()) == (409, "b")
    moved = await linked.ask("/api/contents/r/a.txt", ME, "PATCH", json={"path": "r/c.txt"})
    assert (moved.code, (root / "r" / "c.txt").read_text()) == (200, "a")
    gone = await linked.ask("/api/contents/r/a.txt", ME, "PATCH", json={"path": "r/d.txt"})
    assert gone.code == 404, gone.body


def test_a_folder_that_becomes_a_link_takes_no_file_along(tmp_path):
    """The check is over, and then a cell exchanges the folder for a link: the use sees it."""
    outside = tmp_path / "outside"
    for folder in (tmp_path / "root" / "d", outside):
        folder.mkdir(parents=True)
    files = LinklessContents(root_dir=str(tmp_path / "root"))
    (tmp_path / "root" / "x").write_text("x")
    places = [str(tmp_path / "root" / name) for name in ("x", "d/x", "d/made")]
    (tmp_path / "root" / "d").rmdir()
    (tmp_path / "root" / "d").symlink_to(outside)
    (outside / "x").write_text("outside")
    acts = (
        lambda: files._rename(*places[:2]), lambda: files._make(places[2]),
        lambda: files._delete(places[1]), lambda: files._remove(places[1]),
    )  # fmt: skip
    for act in acts:
        with pytest.raises(HTTPError) as refused:
            act()
        assert refused.value.status_code == 404
    assert (outside / "x").read_text() == "outside"
    assert list(outside.iterdir()) == [outside / "x"]


def test_what_is_deleted_is_in_the_trash_of_this_user(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "root" / "d").mkdir(parents=True)
    (tmp_path / "root" / "d" / "x y.txt").write_text("x")
    files = LinklessContents(root_dir=str(tmp_path / "root"))
    files._delete(str(tmp_path / "root" / "d" / "x y.txt"))
    trash = tmp_path / "home" / "Trash"
    (deleted,), (info,) = (list((trash / name).iterdir()) for name in ("files", "info"))
    assert deleted.read_text() == "x"
    assert info.name == f"{deleted.name}.trashinfo"
    assert f"Path={tmp_path}/root/d/x%20y.txt\n" in info.read_text()
    files.delete_to_trash = False
    (tmp_path / "root" / "d" / "y").write_text("y")
    with pytest.raises(HTTPError, match="not empty"):
        files._delete(str(tmp_path / "root" / "d"))
    files._delete(str(tmp_path / "root" / "d" / "y"))
    files._delete(str(tmp_path / "root" / "d"))
    assert list((tmp_path / "root").iterdir()) == []
