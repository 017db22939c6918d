"""Control groups on paper: what is read from and written to the files of both versions."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from angelos.core.errors import Unavailable
from angelos.core.messages import Limits
from angelos.node.sandbox import cgroup
from angelos.node.sandbox.cgroup import Cgroups, Group, own_groups

LIMITS = Limits(memory_mb=64, pids=8)


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_the_group_of_this_process_is_read(tmp_path: Path) -> None:
    (tmp_path / "cpu,cpuacct").mkdir()
    first = "4:memory:/a\n3:pids:/b\n2:cpu,cpuacct:/\n1:name=systemd:/x\n0::/x\n"
    assert own_groups(first, tmp_path) == (
        1,
        {
            "memory": tmp_path / "memory" / "a",
            "pids": tmp_path / "pids" / "b",
            "cpuacct": tmp_path / "cpu,cpuacct",
        },
    )
    second = "0::/user.slice/run.scope\n"
    assert own_groups(second, tmp_path) == (2, {"unified": tmp_path / "user.slice/run.scope"})
    moved = "0::/user.slice/run.scope/angelos-node\n"
    assert own_groups(moved, tmp_path) == own_groups(second, tmp_path), "not one deeper each time"
    assert own_groups("3:pids:/b\n0::/x\n", tmp_path)[0] == 2, "memory is not version 1's"
    with pytest.raises(Unavailable):
        own_groups("", tmp_path)


def test_version_2_limits_memory_swap_and_tasks_together(tmp_path: Path) -> None:
    group = Group(2, {"unified": tmp_path / "box"})
    (tmp_path / "box" / "memory.swap.max").write_text("max")
    group.limit(LIMITS)
    group.add(10, 11)
    assert files(tmp_path / "box") == {
        "memory.max": str(64 * 1024 * 1024),
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "8",
        "cgroup.procs": "11",
    }


def test_version_2_counters(tmp_path: Path) -> None:
    group = Group(2, {"unified": tmp_path / "box"})
    for name, text in {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.events": "low 0\nmax 9\noom 3\noom_kill 2\noom_group_kill 1\n",
        "pids.events": "max 4\n",
    }.items():
        (tmp_path / "box" / name).write_text(text)
    usage = group.read()
    assert (usage.source, usage.cpu_s, usage.memory_bytes) == ("kernel", 1.5, 0)
    assert (usage.oom_kills, usage.pids_refused) == (2, 4)
    (tmp_path / "box" / "memory.peak").write_text("4096\n")
    assert group.read().memory_bytes == 4096


def test_version_1_limits_memory_before_memory_and_swap(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("memory", "pids", "cpuacct")}
    group = Group(1, folders)
    (folders["memory"] / "memory.memsw.limit_in_bytes").write_text("")
    group.limit(LIMITS)
    group.add(10, 11)
    assert files(folders["memory"])["memory.limit_in_bytes"] == str(64 * 1024 * 1024)
    assert files(folders["memory"])["memory.memsw.limit_in_bytes"] == str(64 * 1024 * 1024)
    assert files(folders["pids"])["pids.max"] == "8"
    assert {files(folder)["cgroup.procs"] for folder in folders.values()} == {"11"}


def test_delegation_asks_only_for_what_is_limited(tmp_path: Path) -> None:
    cgroup._delegate(tmp_path)
    assert files(tmp_path) == {"cgroup.subtree_control": "+memory +pids"}


def test_the_processor_is_divided_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    cgroup._delegate(tmp_path)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


def test_groups_of_the_dead_are_swept_but_no_process_that_cannot_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *args: killed.append(args))
    groups = Cgroups(2, {"unified": tmp_path})
    own = groups.new()
    dead = tmp_path / "angelos-4194305-1-0"
    dead.mkdir()
    (dead / "cgroup.procs").write_text("0\n4194304\n")
    groups.sweep()
    assert killed == [(4194304, signal.SIGKILL)], "0 is our own process group"
    assert own.close()


def test_root_in_a_group_with_others_uses_the_topmost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "session.scope"
    (own / "cgroup.subtree_control").mkdir(parents=True)  # cannot be written: busy
    (own / "cgroup.procs").write_text(f"1\n{os.getpid()}\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(OSError, match="subtree_control"):
        cgroup._limitable(own, tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cgroup._limitable(own, tmp_path) == tmp_path
    assert files(tmp_path) == {"cgroup.subtree_control": "+memory +pids"}
    assert (own / "cgroup.procs").read_text() == f"1\n{os.getpid()}\n", "nobody was moved"


def test_control_groups_of_both_versions_are_read(tmp_path: Path) -> None:
    one = "9:name=systemd:/\n8:pids:/p\n4:memory:/m/x\n2:cpu,cpuacct:/\n0::/\n"
    for name in ("pids", "memory", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
    version, folders = own_groups(one, tmp_path)
    assert version == 1
    assert folders == {
        "memory": tmp_path / "memory" / "m" / "x",
        "pids": tmp_path / "pids" / "p",
        "cpuacct": tmp_path / "cpu,cpuacct",
    }
    assert own_groups("0::/user.slice/a\n", tmp_path) == (
        2, {"unified": tmp_path / "user.slice" / "a"},
    )  # fmt: skip
