"""The data directory: modes, lock, atomic files, short sockets; and the settings."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from angelos.adapters.host.children import belongs_to, end_recorded, spawn, start_ticks
from angelos.adapters.host.datadir import (
    FORMAT,
    DataDir,
    Process,
    ServerFile,
    SystemFile,
    is_running,
    write_private,
)
from angelos.client.settings import find_data_dir
from angelos.core.errors import Conflict, InvalidInput, Unavailable
from angelos.testing import eventually, need
from angelos.wiring.settings import load


@pytest.fixture
def data(tmp_path):
    data = DataDir(tmp_path / "data")
    data.create()
    return data


@pytest.fixture
def me():
    return {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_is_for_the_owner_alone(data, me):
    old = os.umask(0)
    try:
        data.create()
        data.write_system(SystemFile(**me, started_at=0, postgres="", valkey=""))
        data.write_processes([Process("x", 1, 2)])
        with data.locked():
            pass
    finally:
        os.umask(old)
    for path in data.root.rglob("*"):
        assert _mode(path) & 0o077 == 0, path
    assert _mode(data.root) == 0o700


def test_an_open_root_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    DataDir(tmp_path).create()
    assert _mode(tmp_path) == 0o700


@pytest.mark.parametrize("lock", [False, True])
def test_a_folder_of_somebody_elses_files_is_left_as_it_is(tmp_path, lock):
    (tmp_path / "thesis.tex").write_text("")
    (tmp_path / "logs").mkdir()
    if lock:  # ours, into which something was put later
        (tmp_path / "lock").write_text("")
        (tmp_path / "format").write_text(f"{FORMAT}\n")
    tmp_path.chmod(0o755)
    if lock:
        DataDir(tmp_path).create()
        return
    with pytest.raises(InvalidInput, match=r"not empty \(it holds thesis\.tex\)"):
        DataDir(tmp_path).create()
    assert _mode(tmp_path) == 0o755
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs", "thesis.tex"]


def test_one_that_was_made_half_way_is_made_whole(tmp_path):
    (tmp_path / "postgres").mkdir()
    DataDir(tmp_path).create()
    assert (tmp_path / "workspace").is_dir()


def _snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(root)): (
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in (root, *root.rglob("*"))
    }


@pytest.mark.parametrize("used", ["lock", "keys/ca.pem", "postgres/PG_VERSION"])
def test_a_directory_of_the_first_format_is_refused_and_untouched(tmp_path, used):
    for folder in ("postgres", "valkey", "keys", "policy", "nodes", "logs", "workspace"):
        (tmp_path / folder).mkdir(mode=0o755)
    (tmp_path / used).write_text("4711\n")
    before = _snapshot(tmp_path)
    with pytest.raises(InvalidInput, match=r"has format 1, .* does not read; nothing was changed"):
        DataDir(tmp_path).create()
    assert _snapshot(tmp_path) == before


@pytest.mark.parametrize("mark", [b"%d\n" % (FORMAT + 1), b"", b"\xff"])
def test_a_directory_of_another_format_is_refused_and_untouched(data, mark):
    (data.root / "format").write_bytes(mark)
    before = _snapshot(data.root)
    with pytest.raises(InvalidInput, match="does not read; nothing was changed"):
        data.create()
    assert _snapshot(data.root) == before


def test_another_users_folder_is_refused_by_root_too(tmp_path):
    need(os.geteuid() == 0, "root, who may give a folder away")
    os.chown(tmp_path, 60_601, 60_601)
    with pytest.raises(InvalidInput, match="another user"):
        DataDir(tmp_path).create()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["~nobody-of-that-name", "~nobody-of-that-name/x"])
def test_the_home_of_nobody_is_bad_input(name):
    for find in (DataDir, lambda name: find_data_dir({"ANGELOS_DATA_DIR": name})):
        with pytest.raises(InvalidInput, match="Whose home"):
            find(name)
    with pytest.raises(InvalidInput, match="Whose home"):
        load({}, data_dir=name)


def test_a_place_that_cannot_be_used_is_bad_input(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be used"):
        DataDir(tmp_path / "file").create()


def test_the_second_is_refused_and_told_who_has_it(data):
    code = (
        "import sys\nfrom angelos.adapters.host.datadir import DataDir\n"
        f"with DataDir({str(data.root)!r}).locked():\n"
        "    print('locked', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(Conflict, match=f"pid {holder.pid}"), data.locked():
            pytest.fail("two have it")
        holder.kill()
    with data.locked():  # the kernel has taken it back
        pass


def test_a_file_is_replaced_whole_or_not_at_all(data, monkeypatch):
    path = data.root / "x.json"
    write_private(path, b"old")

    def fails(*_):
        raise OSError("disk")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="disk"):
        write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in data.root.glob("*x.json*")) == ["x.json"]


def test_a_system_is_found_only_while_it_runs(data, me):
    with pytest.raises(Unavailable, match="angelos up"):
        data.system()
    written = SystemFile(**me, started_at=1.5, postgres="p", valkey="v", url="u", token="t")
    data.write_system(written)
    assert data.system() == written
    data.write_system(msgspec.structs.replace(written, start_ticks=written.start_ticks + 1))
    with pytest.raises(Unavailable):
        data.system()
    data.clear_system()
    with pytest.raises(Unavailable):
        data.system()


def test_a_damaged_file_is_named(data):
    (data.root / "system.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"system\.json is damaged"):
        data.system()


def test_the_addresses_of_a_dead_server_are_only_a_wish(data, me):
    assert data.server() is None
    here = ServerFile(**me, hub_url="https://127.0.0.1:1", enrol_url="https://127.0.0.1:2")
    data.write_server(here)
    assert data.server() == here
    gone = msgspec.structs.replace(here, start_ticks=1)
    data.write_server(gone)
    assert data.server() is None
    assert data.last_server() == gone


def test_sockets_have_a_short_private_place(tmp_path, monkeypatch):
    import tempfile

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    path = DataDir(deep).runtime
    assert len(os.fsencode(path)) < 60
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    data = DataDir(tmp_path)
    made = data.create_runtime()
    try:
        assert _mode(made) == 0o700
        assert data.create_runtime() == made
        made.chmod(0o755)
        with pytest.raises(Conflict, match="not a private directory"):
            data.create_runtime()
        made.rmdir()
        made.symlink_to(tmp_path)
        with pytest.raises(Conflict):
            data.create_runtime()
        made.unlink()
    finally:
        if made.is_dir() and not made.is_symlink():
            made.rmdir()


def test_a_process_is_known_by_pid_and_start():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        ticks = start_ticks(child.pid)
        assert is_running(child.pid, ticks)
        assert not is_running(child.pid, ticks + 1)
        child.communicate(b"\n")
        assert not is_running(child.pid, ticks)


def test_settings_come_from_the_environment_and_arguments_go_first():
    env = {
        "ANGELOS_DATA_DIR": "/srv/a", "ANGELOS_POSTGRES_DSN": "dsn", "ANGELOS_VALKEY_URL": "url",
        "ANGELOS_ALLOW_UNSANDBOXED": "yes",
    }  # fmt: skip
    settings = load(env, data_dir="/srv/b", port=7)
    assert settings.data_dir == Path("/srv/b")
    assert (settings.stores.postgres_dsn, settings.stores.valkey_url) == ("dsn", "url")
    assert settings.nodes.allow_unsandboxed
    assert not settings.server.supervised
    assert settings.server.port == 7


def test_an_unclear_flag_is_refused():
    with pytest.raises(InvalidInput, match="ANGELOS_ALLOW_UNSANDBOXED"):
        load({"ANGELOS_ALLOW_UNSANDBOXED": "maybe"})


def test_a_place_that_is_no_data_directory_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="No system runs"):
        DataDir(tmp_path / "file").system()
    with pytest.raises(InvalidInput, match="cannot be read"):
        DataDir(tmp_path / ("x" * 300)).system()


def test_a_copy_has_another_id_and_none_of_the_originals_records(tmp_path):
    original = DataDir(tmp_path / "original")
    original.create()
    me = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid())}
    with original.locked() as owned:
        assert not owned.copied
        original.write_processes([Process("valkey", **me)])
        original.write_server(ServerFile(**me, hub_url="https://h:1", enrol_url="https://h:2"))
        shutil.copytree(original.root, tmp_path / "copy")
        copy = DataDir(tmp_path / "copy")
        assert copy.server() is None, "nor before it is started"
        assert copy.last_server() is None
        with copy.locked() as copied:
            assert copied.copied
            assert copied.id != owned.id
            assert copy.processes() == []
            copy.write_processes([])
        with copy.locked() as again:
            assert again == (copied.id, False)
    with original.locked() as again:
        assert again == (owned.id, False)
        assert original.processes() == [Process("valkey", **me)]
    (tmp_path / "original").rename(tmp_path / "moved")
    with DataDir(tmp_path / "moved").locked() as moved:
        assert moved == (owned.id, False), "to be moved is not to be copied"


def test_a_damaged_lock_is_a_new_one(tmp_path):
    data = DataDir(tmp_path / "data")
    data.create()
    (data.root / "lock").write_bytes(b"\x00garbage")
    with data.locked() as owned:
        assert owned.id
        assert not owned.copied


async def test_only_processes_of_the_directory_are_ended(tmp_path):
    child = spawn(
        ["/bin/sleep", "600"], log=tmp_path / "log", end_with=signal.SIGTERM, identity="mine"
    )
    try:

        async def execed() -> bool:
            return belongs_to(child.pid, "mine")

        await eventually(execed, "its environment")
        ticks = start_ticks(child.pid)
        assert not await end_recorded(child.pid, ticks, identity="another")
        assert child.poll() is None
        assert await end_recorded(child.pid, ticks, identity="mine")
    finally:
        child.kill()
        child.wait()
