"""What a box holds, and flags that must never be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from angelos.core.errors import InvalidInput
from angelos.core.messages import Limits
from angelos.core.runs import RunSpec
from angelos.core.sessions import SessionSpec
from angelos.node.sandbox.layout import (
    Bind,
    BoxShape,
    flags,
    interpreter,
    shape_of,
    this_interpreter,
)


def session(**fields: Any) -> SessionSpec:
    own = {name: fields.pop(name) for name in ("shared", "writable") if name in fields}
    return SessionSpec(run=RunSpec(argv=("true",), limits=Limits(), **fields), **own)


def test_the_flags_close_every_known_hole() -> None:
    words = flags((Bind("/usr", "/usr"),), (("usr/lib", "/lib"),), BoxShape(disk_mb=8), 9)
    for needed in (
        "--unshare-all", "--unshare-user", "--disable-userns", "--assert-userns-disabled",
        "--die-with-parent", "--new-session", "--clearenv",
    ):  # fmt: skip
        assert needed in words
    assert words[-2:] == ["--remount-ro", "/"], "last, when everything is in place"
    text = " ".join(words)
    assert "--cap-drop ALL" in text
    assert "--remount-ro /dev " in text
    assert "--size 8388608 --tmpfs /tmp" in text
    assert "--as-pid-1" not in text
    assert "overlay" not in text
    assert "--bind " not in text


def test_an_interpreter_below_work_is_moved(tmp_path: Path) -> None:
    result = interpreter("/usr/bin/python3", ("/work/x/.venv", "/usr"))
    assert [bind for bind in result.binds if bind.source == "/work/x/.venv"] == [
        Bind("/work/x/.venv", "/opt/angelos/.venv")
    ]


def test_every_link_on_the_way_to_the_interpreter_is_bound(tmp_path: Path) -> None:
    real = tmp_path / "opt" / "python" / "bin"
    real.mkdir(parents=True)
    (real / "python3").touch()
    venv = tmp_path / "venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "python").symlink_to(real / "python3")
    result = interpreter(str(venv / "python"), (str(tmp_path / "venv"),))
    assert {bind.source for bind in result.binds} == {
        str(tmp_path / "venv"), str(tmp_path / "opt" / "python"),
    }  # fmt: skip


def test_this_interpreter_never_exposes_the_root_folder() -> None:
    sources = {bind.source for bind in this_interpreter().binds}
    assert not sources & {"/", "/root", "/home"}
    with pytest.raises(InvalidInput):
        interpreter("/python", ("/",))


@pytest.mark.parametrize("inside", ["/etc", "/work/../usr", "/works", "work"])
def test_a_task_may_bind_only_work(inside: str) -> None:
    with pytest.raises(InvalidInput):
        shape_of(session(read_only={inside: "/tmp"}))
    with pytest.raises(InvalidInput):
        shape_of(session(read_only={"/work": "relative"}))
