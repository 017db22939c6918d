"""What `angelos run` sends as inputs, and where it writes what a task has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from angelos.cli.task_files import RepoFile, read_inputs, write_output
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.task_files import FILE_BYTES, InputFile, check_inputs, may_write


def test_files_folders_and_files_of_repositories_are_inputs(tmp_path: Path) -> None:
    project = tmp_path / "project"
    (project / "pkg").mkdir(parents=True)
    (project / "pkg/a.py").write_text("x = 1\n")
    (project / ".env").write_text("secret")
    (project / "link").symlink_to("/etc/passwd")
    single = tmp_path / "data.csv"
    single.write_bytes(b"1,2\n")
    here, there = read_inputs([str(project), str(single), "study@dev:lib/b.py", "study:c.py"])
    assert here == {"project/pkg/a.py": b"x = 1\n", "data.csv": b"1,2\n"}
    assert there == {
        "b.py": RepoFile("study", "dev", "lib/b.py"),
        "c.py": RepoFile("study", "main", "c.py"),
    }


def test_inputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(FILE_BYTES + 1)
    with pytest.raises(TooLarge):
        read_inputs([str(big)])
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_inputs([str(tmp_path / "none")])
    (tmp_path / "a.py").write_text("")
    with pytest.raises(InvalidInput, match=r"Two inputs are called a\.py"):
        read_inputs([str(tmp_path / "a.py"), "study:x/a.py"])


@pytest.mark.parametrize(
    "files",
    [
        (InputFile(path="../a", sha256="0" * 64),),
        (InputFile(path="/a", sha256="0" * 64),),
        (InputFile(path="a", sha256="0" * 64), InputFile(path="a", sha256="1" * 64)),
        (InputFile(path="a", sha256="0" * 64), InputFile(path="a/b", sha256="1" * 64)),
        (InputFile(path="a"),),
        (InputFile(path="a", repo="study"),),
    ],
)
def test_inputs_have_a_place_and_a_content_of_their_own(files: tuple[InputFile, ...]) -> None:
    with pytest.raises(InvalidInput):
        check_inputs(files)


def test_outputs_are_written_below_the_folder_and_through_no_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("mine")
    folder = tmp_path / "out"
    assert write_output(folder, "plots/a.png", b"png", ("**",))
    assert (folder / "plots/a.png").read_bytes() == b"png"
    (folder / "victim").symlink_to(outside / "victim")
    assert write_output(folder, "victim", b"new", ("*",))  # the link is replaced, not followed
    assert (outside / "victim").read_text() == "mine"
    (folder / "deep").symlink_to(outside)
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_output(folder, "deep/victim", b"new", ("**",))
    with pytest.raises(InvalidInput):
        write_output(folder, "../up", b"", ("**",))
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_output(folder, "plots", b"", ("**",))  # a folder stays one
    assert sorted(path.name for path in folder.iterdir()) == ["deep", "plots", "victim"]
    assert not write_output(folder, ".bashrc", b"", ("*", "**"))


def test_hidden_files_are_written_where_a_pattern_names_them() -> None:
    assert may_write(".config/x", (".config/**",))
    assert not may_write("a/.x", ("a/*",))
    assert not may_write("b", ("a",))
