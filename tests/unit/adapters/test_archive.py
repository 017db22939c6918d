"""The file of a backup: what is in it comes back, and nothing of one that is not whole."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile

import msgspec
import pytest

from angelos.adapters.host.archive import (
    ARCHIVE_FORMAT,
    HEADER,
    MANIFEST,
    SIGNATURE,
    ArchiveHeader,
    ArchiveSignature,
    BackupManifest,
    extract,
    new_archive,
)
from angelos.core.errors import InvalidInput
from angelos.core.signing import SigningKey

FORMATS = (ARCHIVE_FORMAT, 3)
KEY = SigningKey(bytes(32))


def made(path, root, *, data_format=3, without=frozenset()):
    header = ArchiveHeader(version="1.2.3", data_format=data_format, at=1.0)
    with new_archive(path, header) as archive:
        archive.add_tree("data", root, without)
        manifest = BackupManifest(
            files=tuple(archive.files), keys=0, entries=0, newest="0-0", checkpoint=""
        )
        archive.sign(manifest, KEY)
    return path


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "keys" / "signer").mkdir(parents=True)
    (root / "keys" / "ca.pem").write_bytes(os.urandom(20_000))
    (root / "keys" / "ca.pem").chmod(0o600)
    (root / "keys" / "signer" / "seeds").write_text("secret")
    (root / os.fsdecode(b"odd \xff\n.txt")).write_text("odd")
    (root / "empty").mkdir()
    (root / "run.sh").write_text("#!/bin/sh\n")
    (root / "run.sh").chmod(0o755)
    (root / "out").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe")
    return root


def test_a_tree_comes_back(tmp_path, root):
    backup = made(tmp_path / "b", root, without=frozenset(["keys/signer"]))
    assert backup.stat().st_mode & 0o777 == 0o600
    header, manifest, key, sha256 = extract(backup, tmp_path / "new", FORMATS)
    assert key == KEY.public.raw.hex()
    assert sha256 == hashlib.sha256(backup.read_bytes()).hexdigest()
    assert header.version == "1.2.3"
    assert len(manifest.files) == 3
    data = tmp_path / "new" / "data"
    assert (data / "keys" / "ca.pem").read_bytes() == (root / "keys" / "ca.pem").read_bytes()
    assert (data / "keys" / "ca.pem").stat().st_mode & 0o777 == 0o600
    assert (data / os.fsdecode(b"odd \xff\n.txt")).read_text() == "odd"
    assert (data / "run.sh").stat().st_mode & 0o100
    assert (data / "out").readlink().as_posix() == "/etc/passwd"
    names = {path.name for path in data.rglob("*")}
    assert "empty" in names
    assert not names & {"signer", "seeds", "pipe"}


def test_a_file_is_never_replaced_and_an_error_leaves_none(tmp_path, root):
    (tmp_path / "b").write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        made(tmp_path / "b", root)
    assert (tmp_path / "b").read_text() == "mine"
    with (
        pytest.raises(ZeroDivisionError),
        new_archive(tmp_path / "c", ArchiveHeader(version="1", data_format=3, at=1.0)),
    ):
        raise ZeroDivisionError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "root"]


def test_one_that_was_cut_off_anywhere_is_refused(tmp_path, root):
    whole = made(tmp_path / "b", root).read_bytes()
    sizes = [*range(0, len(whole), len(whole) // 20), *range(len(whole) - 9, len(whole))]
    for number, size in enumerate(sizes):
        (tmp_path / "cut").write_bytes(whole[:size])
        with pytest.raises(InvalidInput, match="cannot be restored"):
            extract(tmp_path / "cut", tmp_path / f"new{number}", FORMATS)


def test_one_that_was_changed_is_refused(tmp_path, root):
    whole = bytearray(made(tmp_path / "b", root).read_bytes())
    whole[len(whole) // 2] ^= 1
    (tmp_path / "b").write_bytes(whole)
    with pytest.raises(InvalidInput, match="cannot be restored"):
        extract(tmp_path / "b", tmp_path / "new", FORMATS)


def test_one_of_another_format_is_refused_by_its_version(tmp_path, root):
    backup = made(tmp_path / "b", root, data_format=9)
    with pytest.raises(InvalidInput, match=r"made by AngelOS 1\.2\.3"):
        extract(backup, tmp_path / "new", FORMATS)


def forged(path, *members, manifest=True, sign=ArchiveSignature.make):
    """Write an archive with these members as (TarInfo, content)."""
    head = {"version": "1", "data_format": 3, "at": 1.0, "format": ARCHIVE_FORMAT}
    body = {"files": [], "keys": 0, "entries": 0, "newest": "", "checkpoint": ""}
    with gzip.GzipFile(path, "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        texts = [(tarfile.TarInfo(HEADER), json.dumps(head).encode()), *members]
        if manifest:
            texts.append((tarfile.TarInfo(MANIFEST), json.dumps(body).encode()))
        if manifest and sign:
            signature = sign(KEY, json.dumps(head).encode(), json.dumps(body).encode())
            texts.append((tarfile.TarInfo(SIGNATURE), msgspec.json.encode(signature)))
        for info, content in texts:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _of_something_else(key, header, manifest):
    return ArchiveSignature.make(key, header, manifest + b" ")


def _with_a_key_that_is_none(key, header, manifest):
    signature = ArchiveSignature.make(key, header, manifest).signature
    return ArchiveSignature(key=b"short", signature=signature)


@pytest.mark.parametrize("sign", [None, _of_something_else, _with_a_key_that_is_none])
def test_one_that_is_not_signed_by_the_key_in_it_is_refused(tmp_path, sign):
    backup = forged(tmp_path / "b", sign=sign)
    with pytest.raises(InvalidInput, match="cannot be restored"):
        extract(backup, tmp_path / "new", FORMATS)
    assert extract(forged(tmp_path / "b"), tmp_path / "other", FORMATS).manifest.files == ()


@pytest.mark.parametrize(
    "members",
    [
        [(tarfile.TarInfo("../evil"), b"x")],
        [(tarfile.TarInfo("/tmp/evil"), b"x")],
        [(tarfile.TarInfo("unlisted"), b"x")],
        [(special("hard", tarfile.LNKTYPE, "/etc/passwd"), b"")],
        [(special("device", tarfile.CHRTYPE), b"")],
        [(tarfile.TarInfo(MANIFEST), b"{}")],
    ],
)
def test_what_no_backup_holds_is_refused(tmp_path, members):
    backup = forged(tmp_path / "b", *members)
    with pytest.raises(InvalidInput, match="cannot be restored"):
        extract(backup, tmp_path / "new", FORMATS)
    assert not (tmp_path / "evil").exists()


def test_nothing_is_written_through_a_link(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = special("data", tarfile.SYMTYPE, str(outside))
    backup = forged(tmp_path / "b", (link, b""), (tarfile.TarInfo("data/evil"), b"x"))
    with pytest.raises((InvalidInput, FileExistsError)):
        extract(backup, tmp_path / "new", FORMATS)
    assert not list(outside.iterdir())


def test_other_files_are_refused(tmp_path):
    for number, body in enumerate((b"", b"text", gzip.compress(b"text"), os.urandom(9000))):
        (tmp_path / "b").write_bytes(body)
        with pytest.raises(InvalidInput, match="cannot be restored"):
            extract(tmp_path / "b", tmp_path / f"new{number}", FORMATS)


def test_what_a_backup_leaves_out_is_refused_in_one(tmp_path, root):
    (root / "run").mkdir()
    (root / "run" / "hub.pem").write_text("a key that somebody else knows")
    made(tmp_path / "b", root)
    with pytest.raises(InvalidInput, match="does not belong in a backup"):
        extract(tmp_path / "b", tmp_path / "new", FORMATS, frozenset({"run/hub.pem"}))
    with pytest.raises(InvalidInput, match="does not belong in a backup"):
        extract(tmp_path / "b", tmp_path / "other", FORMATS, frozenset({"run"}))


def test_an_archive_that_is_larger_than_the_disk_is_refused(tmp_path, root, monkeypatch):
    made(tmp_path / "b", root)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(InvalidInput, match="more than the disk has room for"):
        extract(tmp_path / "b", tmp_path / "new", FORMATS)
