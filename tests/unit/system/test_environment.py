"""What children inherit: everything but what would mislead them or give them too much."""

from __future__ import annotations

from pathlib import Path

import pytest

from angelos.adapters.host.datadir import DataDir
from angelos.system.environment import node_environment, server_environment


@pytest.fixture(autouse=True)
def environ(monkeypatch):
    values = {
        "ANGELOS_POSTGRES_DSN": "postgresql://secret@db",
        "ANGELOS_TOKEN": "a person's",
        "ANGELOS_TOKEN_FILE": "/home/ada/token",
        "ANGELOS_URL": "https://elsewhere",
        "ANGELOS_VALKEY_URL": "redis://:secret@db",
        "IPYTHONDIR": "/home/ada/.ipython",
        "JPY_PARENT_PID": "1",
        "JUPYTER_PATH": "/home/ada/jupyter",
        "JUPYTER_TOKEN": "the owner's",
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/home/ada/src",
    }
    for key, value in values.items():
        monkeypatch.setenv(key, value)


def test_the_server_has_its_stores_and_a_jupyter_of_its_own(tmp_path):
    env = server_environment(DataDir(tmp_path), "t0ken", Path("/config"))
    assert env["ANGELOS_POSTGRES_DSN"] == "postgresql://secret@db"
    assert env["JUPYTER_TOKEN"] == "t0ken"
    assert env["IPYTHONDIR"] == str(tmp_path / "jupyter" / "ipython")
    assert env["LANG"] == "C.UTF-8"
    assert not {"ANGELOS_TOKEN", "ANGELOS_TOKEN_FILE", "ANGELOS_URL"} & env.keys()
    assert not {"JPY_PARENT_PID", "JUPYTER_PATH"} & env.keys()


def test_a_node_has_no_address_of_a_store_and_nobodys_token():
    env = node_environment()
    assert env["LANG"] == "C.UTF-8"
    assert not [key for key in env if key.startswith("ANGELOS_") and "secret" in env[key]]
    assert not {"ANGELOS_TOKEN", "ANGELOS_TOKEN_FILE", "JUPYTER_TOKEN", "PYTHONPATH"} & env.keys()
