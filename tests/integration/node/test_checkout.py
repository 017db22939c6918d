"""Checkouts on a real disk: verified, whole or not at all, read-only, noticed when touched."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path

import msgspec
import pytest

from angelos.core.errors import InvalidInput, NotFound, Tampered
from angelos.core.ids import Revision
from angelos.core.revision import Bundle
from angelos.core.signing import SigningKey
from angelos.node.checkouts.store import Checkouts, untouched
from angelos.testing import signed_bundle

KEY = SigningKey(bytes(range(32)))


def bundle(files: dict[str, bytes], message: str = "m", key: SigningKey = KEY) -> Bundle:
    return signed_bundle(key, files, message=message)


def names(path: Path) -> list[str]:
    return sorted(child.name for child in path.iterdir())


def files_below(path: Path) -> list[Path]:
    return [file for file in path.rglob("*") if file.is_file()]


def is_link(path: Path) -> bool:
    return path.is_symlink()


class Source:
    """Hands out bundles and counts how often."""

    def __init__(self) -> None:
        self.bundles: dict[Revision, Bundle] = {}
        self.fetched: list[Revision] = []

    def add(self, bundle: Bundle) -> Revision:
        self.bundles[bundle.signed.revision] = bundle
        return bundle.signed.revision

    async def __call__(self, repo: str, revision: Revision, have: Revision | None) -> Bundle:
        self.have = have
        self.fetched.append(revision)
        if revision not in self.bundles:
            raise NotFound(f"no {revision}")
        return self.bundles[revision]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def checkouts(tmp_path: Path, source: Source) -> Checkouts:
    return Checkouts(tmp_path, KEY.public, source, keep=1)


async def test_a_revision_is_written_once_and_read_only(
    checkouts: Checkouts, source: Source
) -> None:
    revision = source.add(bundle({"a/b.py": b"1", "c": b"2"}))
    for _ in range(2):
        async with checkouts.use("study", revision) as path:
            assert (path / "a" / "b.py").read_bytes() == b"1"
            modes = [stat.S_IMODE(p.stat().st_mode) for p in (path, path / "a", path / "c")]
            assert modes == [0o555, 0o555, 0o444]
    assert source.fetched == [revision]


async def test_a_changed_revision_is_fetched_again(checkouts: Checkouts, source: Source) -> None:
    revision = source.add(bundle({"a": b"good", "b": b"x"}))
    async with checkouts.use("study", revision) as path:
        pass

    def change() -> None:
        (path / "a").chmod(0o644)
        (path / "a").write_bytes(b"evil")
        os.utime(path / "a", ns=(0, 0))

    def add() -> None:
        path.chmod(0o755)
        (path / "new").write_bytes(b"")

    def link() -> None:
        path.chmod(0o755)
        (path / "b").unlink()
        (path / "b").symlink_to("/etc/passwd")

    def nowhere() -> None:
        path.rename(path.with_name("moved"))
        path.symlink_to("/nowhere")

    for number, attack in enumerate((change, add, link, nowhere), start=2):
        attack()
        assert not untouched(path)
        async with checkouts.use("study", revision):
            assert names(path) == ["a", "b"]
            assert (path / "a").read_bytes() == b"good"
            assert not is_link(path / "b")
        assert len(source.fetched) == number


async def test_a_bad_bundle_leaves_nothing(
    checkouts: Checkouts, source: Source, tmp_path: Path
) -> None:
    good = bundle({"a": b"1"})
    revision = source.add(good)
    (digest,) = good.blobs
    for bad, error in (
        (msgspec.structs.replace(good, blobs={digest: b"2"}), Tampered),
        (msgspec.structs.replace(good, blobs={}), Tampered),
        (bundle({"a": b"1"}, key=SigningKey(bytes(32))), Tampered),
        (bundle({"a": b"other"}), Tampered),
    ):
        source.bundles[revision] = bad
        with pytest.raises(error):
            async with checkouts.use("study", revision):
                pass
    assert not files_below(tmp_path)
    with pytest.raises(NotFound):
        await checkouts.switch("study", revision)


@pytest.mark.parametrize("repo", ["..", "a/b", "/etc", "", "-x", "a\n"])
async def test_invalid_names_are_refused(checkouts: Checkouts, repo: str) -> None:
    with pytest.raises(InvalidInput):
        async with checkouts.use(repo, Revision("0" * 64)):
            pass
    with pytest.raises(InvalidInput):
        async with checkouts.use("study", Revision("../../x")):
            pass


async def test_switching_removes_old_revisions_unless_they_are_in_use(
    checkouts: Checkouts, source: Source, tmp_path: Path
) -> None:
    revisions = [source.add(bundle({"a": bytes([n])})) for n in range(5)]
    assert checkouts.current("study") is None
    async with checkouts.use("study", revisions[0]) as held:
        for revision in revisions:
            async with checkouts.use("study", revision):
                await checkouts.switch("study", revision)
            assert checkouts.current("study") == revision
        assert held.is_dir(), "in use"
    folder = tmp_path / "checkouts" / "study"
    remaining = {path.name for path in folder.iterdir() if path.is_dir() and not path.is_symlink()}
    assert remaining == {revisions[0], revisions[3], revisions[4]}
    assert (folder / "current" / "a").read_bytes() == bytes([4])
    await checkouts.switch("study", revisions[4])
    assert not held.is_dir()


async def test_unfinished_revisions_of_a_killed_node_are_swept(
    checkouts: Checkouts, source: Source, tmp_path: Path
) -> None:
    unfinished = tmp_path / "checkouts" / "study" / ".new-abc"
    (unfinished / "a").mkdir(parents=True)
    unfinished.chmod(0o555)
    checkouts.sweep()
    assert not unfinished.exists()


async def test_current_can_be_set_by_several_at_once(
    checkouts: Checkouts, source: Source, tmp_path: Path
) -> None:
    revisions = [source.add(bundle({"a": bytes([n])})) for n in range(8)]
    async with contextlib.AsyncExitStack() as stack:
        for revision in revisions:
            await stack.enter_async_context(checkouts.use("study", revision))
        await asyncio.gather(*(checkouts.switch("study", revision) for revision in revisions))
    assert checkouts.current("study") in revisions
    assert not [*(tmp_path / "checkouts" / "study").glob(".*")]
