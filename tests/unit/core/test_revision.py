"""Bundles: what a node takes for a revision, and what it refuses."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from angelos.core.errors import AngelError, InvalidInput, Tampered
from angelos.core.revision import KnownObjects, verify_bundle
from angelos.core.revision_v2 import EntryMode
from angelos.core.signing import SigningKey
from angelos.testing import signed_bundle

KEY = SigningKey(bytes(range(32)))
FILES = {"a.txt": b"a", "b/c.sh": b"#!/bin/sh", "b/link": b"../a.txt"}
MODES = {"b/c.sh": EntryMode.executable, "b/link": EntryMode.symlink}
NOTHING = KnownObjects()


def test_a_bundle_that_is_whole_is_taken():
    bundle = signed_bundle(KEY, FILES, modes=MODES)
    verified = verify_bundle(KEY.public, bundle, bundle.signed.revision, NOTHING)
    assert {e.path: (e.mode, bundle.blobs[e.sha256]) for e in verified.entries} == {
        path: (MODES.get(path, EntryMode.file), content) for path, content in FILES.items()
    }
    assert verified.commit.repo == "study"
    assert verified.objects == bundle.objects


def test_what_is_known_need_not_come_again():
    old, new = signed_bundle(KEY, FILES), signed_bundle(KEY, {**FILES, "b/d": b"new"})
    known = KnownObjects(old.objects, old.blobs.keys())
    part = msgspec.structs.replace(
        new,
        objects={k: v for k, v in new.objects.items() if k not in old.objects},
        blobs={k: v for k, v in new.blobs.items() if k not in old.blobs},
    )
    assert len(part.objects) == 2
    verified = verify_bundle(KEY.public, part, new.signed.revision, known)
    assert len(verified.entries) == 4
    assert verified.objects == new.objects
    with pytest.raises(Tampered):
        verify_bundle(KEY.public, part, new.signed.revision, NOTHING)


def test_a_bundle_in_which_anything_is_wrong_is_refused():
    good = signed_bundle(KEY, FILES)
    digest = hashlib.sha256(b"a").hexdigest()
    root = next(iter(good.objects))
    other = signed_bundle(SigningKey(bytes(32)), FILES)
    for wrong in (
        msgspec.structs.replace(good, blobs={**good.blobs, digest: b"b"}),
        msgspec.structs.replace(good, blobs={k: v for k, v in good.blobs.items() if k != digest}),
        msgspec.structs.replace(good, objects={**good.objects, root: b"\x92\xa4leaf\x90"}),
        msgspec.structs.replace(good, objects={}),
        other,
        signed_bundle(KEY, {"a.txt": b"other"}),
    ):
        with pytest.raises(Tampered):
            verify_bundle(KEY.public, wrong, good.signed.revision, NOTHING)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "a/../../../x"])
def test_links_that_lead_out_are_refused(target):
    bundle = signed_bundle(KEY, {"b/l": target.encode()}, modes={"b/l": EntryMode.symlink})
    with pytest.raises(AngelError) as error:
        verify_bundle(KEY.public, bundle, bundle.signed.revision, NOTHING)
    assert isinstance(error.value, (InvalidInput, Tampered))
