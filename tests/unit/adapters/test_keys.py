"""Keys in files."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from angelos.adapters.identity.keys import load_or_create
from angelos.core.errors import Tampered


def test_a_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "keys" / "log.key"
    key = load_or_create(path)
    assert load_or_create(path).seed == key.seed
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == ["log.key"]


def test_all_who_start_at_once_get_the_same_key(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(load_or_create, [tmp_path / "k" / "grant.key"] * 8))
    assert len({key.seed for key in keys}) == 1


def test_an_open_or_damaged_key_is_refused(tmp_path):
    path = tmp_path / "log.key"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(Tampered, match="Other users may read"):
        load_or_create(path)
    path.chmod(0o600)
    path.write_bytes(b"short")
    with pytest.raises(Tampered, match="5 bytes"):
        load_or_create(path)
