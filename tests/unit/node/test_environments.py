"""What a build leaves, and what ends it, spoil no environment that others are given."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from angelos.core.errors import Tampered
from angelos.core.ids import PrincipalId
from angelos.node.environments import store as module
from angelos.node.environments.store import (
    EnvironmentFailure,
    Environments,
    PackageIndex,
    _finish,
    _within,
)

INDEX = PackageIndex("https://index.test/simple/", ())
NOBODY: Any = None


class Built(Environments):
    """An environment is one file, put there without a box."""

    async def _build(
        self, folder: Path, requirements: object, sandbox: object, by: object, report: object
    ) -> EnvironmentFailure | None:
        (folder / "site" / "module.py").write_text("x = 1\n", encoding="utf-8")
        return None


def environments(tmp_path: Path, keep_bytes: int = 1_000_000) -> Built:
    return Built(tmp_path, NOBODY, INDEX, keep_bytes)


async def _use(store: Environments, *names: str) -> Path:
    async with store.use(names, NOBODY, PrincipalId("person/ada"), NOBODY) as path:
        return cast("Path", path)


@pytest.mark.parametrize("name", ["size", "tmp"])
def test_a_pipe_that_a_build_leaves_stops_nobody(tmp_path: Path, name: str) -> None:
    folder = tmp_path / ".new-1"
    (folder / "site").mkdir(parents=True)
    os.mkfifo(folder / name)
    ending = threading.Thread(target=_finish, args=(folder, tmp_path / "key"), daemon=True)
    ending.start()
    ending.join(30)
    if stuck := ending.is_alive():  # it waits for a reader: let it go
        os.close(os.open(folder / name, os.O_RDONLY | os.O_NONBLOCK))
    assert not stuck
    assert {path.name for path in (tmp_path / "key").iterdir()} == {"site", "size"}


async def test_a_build_that_is_cancelled_at_its_end_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = environments(tmp_path)
    begun, go_on = threading.Event(), threading.Event()

    def slowly(folder: Path, path: Path) -> None:
        begun.set()
        go_on.wait(60)
        folder.rename(path)

    monkeypatch.setattr(module, "_finish", slowly)
    task = asyncio.create_task(_use(store, "a"))
    await asyncio.to_thread(begun.wait, 60)
    task.cancel()
    for _ in range(20):
        await asyncio.sleep(0)
    removed = await asyncio.to_thread(
        lambda: not any((tmp_path / "environments").glob("*/site/module.py"))
    )
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not removed
    assert (await _use(store, "a") / "module.py").is_file()


async def test_what_is_forgotten_cannot_be_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = environments(tmp_path, keep_bytes=1)
    old = await _use(store, "old")
    os.utime(old.parent, (1, 1))
    begun, go_on, remove = threading.Event(), threading.Event(), module._remove

    def slowly(path: Path) -> None:
        if (path / "size").exists():
            begun.set()
            go_on.wait(60)
        remove(path)

    monkeypatch.setattr(module, "_remove", slowly)
    building = asyncio.create_task(_use(store, "new"))
    await asyncio.to_thread(begun.wait, 60)
    async with store.use(["old"], NOBODY, PrincipalId("person/ada"), NOBODY) as path:
        go_on.set()
        await building
        assert (cast("Path", path) / "module.py").is_file()


def _nested(path: Path, depth: int) -> None:
    """Make folders in folders, deeper than any path can name."""
    path.mkdir()
    here = os.open(path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d" * 50, dir_fd=here)
        below = os.open("d" * 50, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def test_what_is_too_deep_to_be_measured_is_too_large_and_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "environments" / ".new-1"
    folder.parent.mkdir()
    _nested(folder, 1_200)
    assert not _within(folder, 1_000_000_000)
    environments(tmp_path).sweep()
    assert list(folder.parent.iterdir()) == []


def test_a_folder_that_its_build_has_removed_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / ".new-1"
    folder.mkdir()
    with pytest.raises(Tampered):
        _finish(folder, tmp_path / "key")
