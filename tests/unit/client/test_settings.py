"""What the client reads of the environment: where the system is, and who asks."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from angelos.adapters.host.children import start_ticks
from angelos.adapters.host.datadir import DataDir, SystemFile
from angelos.client import Angelos
from angelos.client.settings import find_data_dir, find_token, load
from angelos.core import errors

SERVER = "http://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch):
    for name in ("ANGELOS_URL", "ANGELOS_TOKEN", "ANGELOS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def data(tmp_path):
    """A data directory on which a system runs: this process."""
    data = DataDir(tmp_path)
    pid = os.getpid()
    data.write_system(
        SystemFile(
            pid=pid,
            start_ticks=start_ticks(pid) or 0,
            started_at=0,
            postgres="",
            valkey="",
            url=SERVER,
            token="the-owners",
        )
    )
    return data


def token_of(angelos: Angelos) -> str:
    return angelos._transport.token


@pytest.mark.parametrize(
    ("env", "path"),
    [
        ({"ANGELOS_DATA_DIR": "/srv/a", "HOME": "/h"}, "/srv/a"),
        ({"XDG_DATA_HOME": "/x", "HOME": "/h"}, "/x/angelos"),
        ({"HOME": "/h"}, "/h/.local/share/angelos"),
    ],
)
def test_where_the_data_directory_is(env, path):
    assert find_data_dir(env) == Path(path)


def test_a_token_comes_from_its_variable_before_its_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("of-the-file\n")
    env = {"ANGELOS_TOKEN_FILE": str(file)}
    assert find_token({}) == ""
    assert find_token(env) == "of-the-file"
    assert find_token(env | {"ANGELOS_TOKEN": "of-the-variable"}) == "of-the-variable"
    assert load(env | {"HOME": "/h"}).token == "of-the-file"


@pytest.mark.parametrize("content", [None, b"", b" \n", "gehe\u00fc".encode()])
def test_a_token_file_without_a_token_is_bad_input(tmp_path, content):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(errors.InvalidInput, match=str(file)):
        find_token({"ANGELOS_TOKEN_FILE": str(file)})


def test_connect_follows_the_environment(data, monkeypatch):
    monkeypatch.setenv("ANGELOS_DATA_DIR", str(data.root))
    angelos = Angelos.connect()
    assert (angelos.url, token_of(angelos)) == (SERVER, "the-owners")

    monkeypatch.setenv("ANGELOS_TOKEN", "veras")
    assert token_of(Angelos.connect()) == "veras"
    assert token_of(Angelos.connect(token="adas")) == "adas"

    monkeypatch.setenv("ANGELOS_URL", "https://far.example")
    angelos = Angelos.connect()
    assert (angelos.url, token_of(angelos)) == ("https://far.example", "veras")


def test_a_place_that_is_named_is_not_mixed_with_the_environments_token(data, monkeypatch):
    monkeypatch.setenv("ANGELOS_TOKEN", "veras")
    monkeypatch.setenv("ANGELOS_URL", "https://far.example")
    angelos = Angelos.connect(data.root)
    assert (angelos.url, token_of(angelos)) == (SERVER, "the-owners")
    assert token_of(Angelos.connect(url=SERVER)) == ""
    assert token_of(Angelos.connect(data.root, "adas")) == "adas"


def test_connect_finds_the_running_system(tmp_path):
    data = DataDir(tmp_path)
    with pytest.raises(errors.Unavailable, match="No system runs"):
        Angelos.connect(tmp_path)
    running = {"pid": os.getpid(), "start_ticks": start_ticks(os.getpid()) or 0}
    base = SystemFile(**running, started_at=0, postgres="", valkey="")
    data.write_system(base)
    with pytest.raises(errors.Unavailable, match="still starting"):
        Angelos.connect(tmp_path)
    data.write_system(msgspec.structs.replace(base, url="http://127.0.0.1:1", token="t"))
    assert Angelos.connect(tmp_path).url == "http://127.0.0.1:1"
    data.write_system(msgspec.structs.replace(base, url="http://127.0.0.1:1", start_ticks=1))
    with pytest.raises(errors.Unavailable, match="No system runs"):
        Angelos.connect(tmp_path)
