"""What the launcher decides before it starts bubblewrap."""

from __future__ import annotations

from pathlib import Path

from angelos.node.sandbox.launch import reachable


def test_reachable_looks_at_every_folder(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    uid, gid = 64_000, 64_000
    Path(tmp_path, "a").chmod(0o700)
    assert not reachable(str(inner), uid, gid)
