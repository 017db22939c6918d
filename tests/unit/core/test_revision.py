"""A revision is the hash of its commit; a bundle is used only if everything is as signed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core import revision
from angelos.core.errors import AngelError, InvalidInput, Tampered
from angelos.core.ids import PrincipalId, Revision
from angelos.core.signing import SigningKey

KEY = SigningKey.generate()
FILES = {"a.txt": b"one\n", "study/b.py": b"print(2)\n"}


def bundle(files: dict[str, bytes] = FILES) -> revision.Bundle:
    tree = tuple(revision.entry_for(path, content) for path, content in files.items())
    commit = revision.Commit(
        repo="study", parents=(), tree=revision.tree_hash(tree), author=PrincipalId("agent/ada"),
        message="m", at=1,
    )  # fmt: skip
    blobs = {e.sha256: files[e.path] for e in tree}
    return revision.Bundle(signed=revision.sign_commit(KEY, commit), tree=tree, blobs=blobs)


def test_a_good_bundle_gives_its_files() -> None:
    good = bundle()
    assert revision.verify_bundle(KEY.public, good, good.signed.revision) == FILES


@given(st.permutations(list(FILES.items())))
def test_the_tree_hash_does_not_depend_on_order(items: list[tuple[str, bytes]]) -> None:
    entries = [revision.entry_for(path, content) for path, content in items]
    assert revision.tree_hash(entries) == revision.tree_hash(bundle().tree)


def test_the_tree_hash_depends_on_content_mode_and_path() -> None:
    hashes = {
        revision.tree_hash([revision.entry_for("a", b"x")]),
        revision.tree_hash([revision.entry_for("a", b"y")]),
        revision.tree_hash([revision.entry_for("b", b"x")]),
        revision.tree_hash([revision.entry_for("a", b"x", 0o755)]),
        revision.tree_hash([]),
    }
    assert len(hashes) == 5


def test_a_path_twice_or_a_strange_mode_is_refused() -> None:
    entry = revision.entry_for("a", b"x")
    with pytest.raises(InvalidInput):
        revision.tree_hash([entry, entry])
    with pytest.raises(InvalidInput):
        revision.entry_for("a", b"x", 0o777)


def tampered() -> list[tuple[str, revision.Bundle]]:
    good = bundle()
    replace = msgspec.structs.replace
    commit = good.signed.commit
    sha = good.tree[0].sha256
    other = SigningKey.generate()
    return [
        ("content", replace(good, blobs={**good.blobs, sha: b"evil\n"})),
        ("missing", replace(good, blobs={})),
        ("extra entry", replace(good, tree=(*good.tree, revision.entry_for("c", b"")))),
        ("fewer entries", replace(good, tree=good.tree[:1])),
        ("path", replace(good, tree=(replace(good.tree[0], path="../a.txt"), good.tree[1]))),
        ("author", replace(good, signed=replace(
            good.signed, commit=replace(commit, author=PrincipalId("agent/eve"))))),
        ("signer", replace(good, signed=revision.sign_commit(other, commit))),
        ("signature", replace(good, signed=replace(good.signed, signature=b"\0" * 64))),
        ("another revision", bundle({"a.txt": b"old\n"})),
    ]  # fmt: skip


@pytest.mark.parametrize(("what", "bad"), tampered())
def test_nothing_of_a_bad_bundle_is_used(what: str, bad: revision.Bundle) -> None:
    with pytest.raises(AngelError) as caught:
        revision.verify_bundle(KEY.public, bad, bundle().signed.revision)
    assert isinstance(caught.value, Tampered | InvalidInput), what


def test_a_signed_path_that_climbs_out_is_refused_all_the_same() -> None:
    entry = revision.Entry("../../etc/cron.d/x", 0o644, revision.entry_for("x", b"x").sha256, 1)
    commit = msgspec.structs.replace(bundle().signed.commit, tree=revision.tree_hash([entry]))
    signed = revision.sign_commit(KEY, commit)
    bad = revision.Bundle(signed=signed, tree=(entry,), blobs={entry.sha256: b"x"})
    with pytest.raises(InvalidInput):
        revision.verify_bundle(KEY.public, bad, signed.revision)


def test_verify_commit_wants_the_hash_itself() -> None:
    signed = msgspec.structs.replace(bundle().signed, revision=Revision("0" * 64))
    with pytest.raises(Tampered):
        revision.verify_commit(KEY.public, signed)
