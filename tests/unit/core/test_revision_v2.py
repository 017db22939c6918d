"""Format 2 of revisions: one form for each value, small objects, and nothing bad is used."""

import hashlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.core import revision_v2
from angelos.core.errors import InvalidInput, Tampered, TooLarge
from angelos.core.ids import PrincipalId, Revision
from angelos.core.revision_v2 import (
    LEAF_ENTRIES,
    CommitObject,
    DirectoryFan,
    DirectoryLeaf,
    EntryMode,
    SignedCommitObject,
    Trailer,
    TrailerKey,
    TreeEntry,
    build_tree,
    children_of,
    decode_commit,
    decode_directory,
    directory_hash,
    encode_commit,
    find_entry,
    read_tree,
    revision_of,
    sign_commit_object,
    update_tree,
    verify_commit_object,
)
from angelos.core.signing import SigningKey

KEY = SigningKey(bytes(range(32)))
ADA, EVE = PrincipalId("agent/ada"), PrincipalId("person/eve")
replace = msgspec.structs.replace
COMMIT = CommitObject(
    repo="study",
    parents=(Revision("11" * 32), Revision("22" * 32)),
    tree="33" * 32,
    authors=(ADA, EVE),
    message="Add midrange\n\nFor the tables.",
    at=1_700_000_000_123,
    git="44" * 20,
    trailers=(Trailer("Dev-Base", "55" * 32), Trailer("Proposal", "prop-1")),
)
PLAIN = CommitObject(repo="s", parents=(), tree="00" * 32, authors=(EVE,), message="", at=0)


def entries(count, folder=""):
    return [TreeEntry.of(f"{folder}file{i}.py", str(i).encode()) for i in range(count)]


# -- golden vectors: a change of one of these is another format --------------------------------


def test_golden_commit():
    body = encode_commit(COMMIT)
    assert body.hex() == (
        "9aa6636f6d6d697402a5737475647992c420" + "11" * 32 + "c420" + "22" * 32 + "c420"
        + "33" * 32 + "92a96167656e742f616461aa706572736f6e2f657665"
        "bd416464206d696472616e67650a0a466f7220746865207461626c65732e" "cf0000018bcfe5687b"
        "c414" + "44" * 20 + "92" "92a84465762d42617365d940" + (b"55" * 32).hex()
        + "92a850726f706f73616ca670726f702d31"
    )  # fmt: skip
    assert revision_of(body) == hashlib.sha256(b"angelos.commit.v2\0" + body).hexdigest()
    assert revision_of(body) == GOLDEN_REVISION
    assert sign_commit_object(KEY, COMMIT).signature.hex() == GOLDEN_SIGNATURE


def test_golden_plain_commit():
    body = encode_commit(PLAIN)
    assert body.hex() == (
        "9aa6636f6d6d697402a17390c420" + "00" * 32 + "91aa706572736f6e2f657665a000c40090"
    )


def test_golden_trees():
    assert build_tree([]).root == GOLDEN_EMPTY
    small = build_tree(
        [
            TreeEntry.of("a.txt", b"hello\n"),
            TreeEntry.of("bin/run", b"#!/bin/sh\n", EntryMode.executable),
            TreeEntry.of("bin/latest", b"run", EntryMode.symlink),
        ]
    )
    assert small.root == GOLDEN_SMALL
    assert small.objects[small.root].hex() == GOLDEN_SMALL_BODY
    assert build_tree(entries(200)).root == GOLDEN_FAN


GOLDEN_REVISION = "3a1098c0282954f843dfb37bd795121f4a763ab8658229a0abe477c8f4b43133"
GOLDEN_SIGNATURE = (
    "a5a57d5ec1caf1934c70fa3d079e8cf36e772c87d5b593ff8c2b990991ec6dd361b467cd"
    "be3d6e1a47adac19465d901f668b4ed19e177452f700be197b962a08"
)
GOLDEN_EMPTY = "d82ffe5e437f9c7c17cdcee1d4fb6585cdbad8583aab253e7c192e760265b588"
GOLDEN_SMALL = "00b88b04e6d43b31fec1d43edc6a3c5ca83f33bbe4f294752922e44bcd270523"
GOLDEN_SMALL_BODY = (
    "92a46c6561669294a5612e747874cd81a4c4205891b5b522d5df086d0ff0b110fbd9d21b"
    "b4fc7163af34d08286a2e846f6be030694a362696ecd4000c420d52f4e5b98edd2445f30"
    "4325f7e47ca4c4671d1737a740cc889f8485cd1c20c400"
)
GOLDEN_FAN = "8584fcc763ce2efdb6249f1aaa9f39cf84554dac310f8c6d33174e2b72cd1589"


# -- commits -----------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
principals = st.from_regex(r"(person|agent)/[a-z]{1,8}", fullmatch=True).map(PrincipalId)
trailers = st.builds(
    Trailer,
    st.sampled_from([*TrailerKey, "X-Of-Later"]),
    texts.map(lambda text: text.replace("\n", "").replace("\r", "")),
)
commits = st.builds(
    CommitObject,
    repo=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True),
    parents=st.lists(hashes, max_size=3, unique=True).map(tuple),
    tree=hashes,
    authors=st.lists(principals, min_size=1, max_size=3, unique=True).map(tuple),
    message=texts,
    at=st.integers(0, 2**53 - 1),
    git=st.one_of(st.just(""), hashes, hashes.map(lambda text: text[:40])),
    trailers=st.lists(trailers, max_size=3).map(tuple),
)


@given(commits)
def test_a_commit_comes_back_as_it_was(commit):
    body = encode_commit(commit)
    assert decode_commit(body) == commit
    signed = sign_commit_object(KEY, commit)
    assert verify_commit_object(KEY.public, signed, signed.revision) == commit


@given(commits, commits)
def test_two_commits_have_two_revisions(one, two):
    same = revision_of(encode_commit(one)) == revision_of(encode_commit(two))
    assert same == (one == two)


@given(commits, st.data())
def test_a_changed_byte_is_seen(commit, data):
    signed = sign_commit_object(KEY, commit)
    at = data.draw(st.integers(0, len(signed.body) - 1))
    flip = data.draw(st.integers(1, 255))
    body = bytearray(signed.body)
    body[at] ^= flip
    forged = SignedCommitObject(body=bytes(body), signature=signed.signature)
    with pytest.raises(Tampered):
        verify_commit_object(KEY.public, forged, signed.revision)
    with pytest.raises(Tampered):
        verify_commit_object(KEY.public, forged, forged.revision)


BOUNDS = [
    {"repo": ""},
    {"repo": "a/b"},
    {"repo": "a" * 65},
    {"parents": (Revision("11" * 32),) * 2},
    {"parents": tuple(Revision(f"{i:064x}") for i in range(17))},
    {"parents": (Revision("11" * 31),)},
    {"parents": (Revision("AA" * 32),)},
    {"tree": ""},
    {"authors": ()},
    {"authors": (ADA, ADA)},
    {"authors": (PrincipalId("ada"),)},
    {"authors": tuple(PrincipalId(f"person/p{i}") for i in range(65))},
    {"message": "a\0b"},
    {"message": "é" * 32 * 1024 + "x"},
    {"message": "\ud800"},
    {"at": -1},
    {"at": 2**53},
    {"git": "44" * 16},
    {"git": "AA" * 20},
    {"trailers": (Trailer("A", "1"),) * 65},
    {"trailers": (Trailer("a b", "1"),)},
    {"trailers": (Trailer("A", "1\n2"),)},
    {"trailers": (Trailer("A", "1\r2"),)},
    {"trailers": (Trailer("A", "é" * 501),)},
]


@pytest.mark.parametrize("changed", BOUNDS, ids=lambda c: f"{next(iter(c))}")
def test_a_field_out_of_its_bounds_is_refused_by_name(changed):
    with pytest.raises(InvalidInput) as error:
        encode_commit(replace(PLAIN, **changed))
    assert error.value.extra["field"] == next(iter(changed))


def test_what_fills_its_bounds_is_taken():
    full = replace(
        PLAIN,
        parents=tuple(Revision(f"{i:064x}") for i in range(16)),
        authors=tuple(PrincipalId(f"person/p{i}") for i in range(64)),
        message="é" * 32 * 1024,
        at=2**53 - 1,
        trailers=tuple(Trailer("A", "é" * 500) for _ in range(64)),
    )
    assert decode_commit(encode_commit(full)) == full


NOT_COMMITS = {
    "nothing": b"",
    "a number": b"\x07",
    "more behind it": encode_commit(PLAIN) + b"\0",
    "cut": encode_commit(PLAIN)[:-1],
    "another kind": encode_commit(PLAIN).replace(b"commit", b"commix"),
    "another version": encode_commit(PLAIN).replace(b"commit\x02", b"commit\x03"),
    "an item more": b"\x9b" + encode_commit(PLAIN)[1:] + b"\xc0",
    "a longer form of a number": encode_commit(PLAIN).replace(b"\xa0\x00", b"\xa0\xcc\x00"),
    "a map": msgspec.msgpack.encode({"commit": 2}),
    "a short hash": encode_commit(PLAIN).replace(b"\xc4\x20" + bytes(32), b"\xc4\x1f" + bytes(31)),
    "deep": b"\x91" * 10_000,
}


@pytest.mark.parametrize("body", NOT_COMMITS.values(), ids=NOT_COMMITS.keys())
def test_what_is_not_a_commit_in_its_one_form_is_refused(body):
    with pytest.raises(Tampered):
        decode_commit(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_tampered(body):
    for decode, encode in (
        (decode_commit, encode_commit),
        (decode_directory, revision_v2.encode_directory),
    ):
        try:
            value = decode(body)
        except Tampered:
            continue
        assert encode(value) == body


def test_an_object_has_a_largest_size():
    with pytest.raises(TooLarge):
        decode_commit(b"\x9a" * (revision_v2.MAX_OBJECT_BYTES + 1))
    with pytest.raises(TooLarge):
        decode_directory(b"\x9a" * (revision_v2.MAX_OBJECT_BYTES + 1))


def test_another_key_or_revision_is_refused():
    signed = sign_commit_object(KEY, COMMIT)
    with pytest.raises(Tampered, match="signature"):
        verify_commit_object(SigningKey.generate().public, signed, signed.revision)
    with pytest.raises(Tampered, match="Asked for"):
        verify_commit_object(KEY.public, signed, Revision("00" * 32))


def test_a_signature_of_format_1_is_none_of_format_2():
    signed = sign_commit_object(KEY, COMMIT)
    old = KEY.sign(b"angelos.commit.v1", signed.revision.encode())
    with pytest.raises(Tampered):
        verify_commit_object(
            KEY.public, SignedCommitObject(body=signed.body, signature=old), signed.revision
        )


def test_trailers_are_read_by_key():
    assert COMMIT.trailer(TrailerKey.dev_base) == "55" * 32
    assert COMMIT.trailer(TrailerKey.reverts) == ""


# -- trees -------------------------------------------------------------------------------------

names = st.sampled_from([*"abcdef", "ö", "a.py", "a b", "A"])
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
modes = st.sampled_from([EntryMode.file, EntryMode.executable, EntryMode.symlink])
made_entries = st.builds(TreeEntry.of, paths, st.binary(max_size=3), modes)


def consistent(found):
    """Return the entries of which none is below another, one for each path."""
    chosen = {}
    for entry in found:
        above = {"/".join(entry.path.split("/")[:i]) for i in range(1, entry.path.count("/") + 1)}
        below = any(path.startswith(f"{entry.path}/") for path in chosen)
        if not (above & chosen.keys()) and not below:
            chosen[entry.path] = entry
    return list(chosen.values())


@given(st.lists(made_entries, max_size=12).map(consistent), st.randoms(use_true_random=False))
def test_a_tree_comes_back_and_does_not_depend_on_order(found, random):
    tree = build_tree(found)
    assert read_tree(tree.root, tree.objects.__getitem__) == tuple(sorted(found))
    for entry in found:
        assert find_entry(tree.root, tree.objects.__getitem__, entry.path) == entry
    shuffled = list(found)
    random.shuffle(shuffled)
    assert build_tree(shuffled) == tree


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sets(st.integers(0, 150), max_size=80), min_size=1, max_size=5),
    st.sampled_from(["", "deep/er/"]),
)
def test_a_tree_is_the_same_whichever_way_it_came_about(steps, folder):
    """Grow and shrink across the border between leaf and fan; compare with a fresh build."""
    objects = dict(build_tree([]).objects)
    root, present = build_tree([]).root, {}
    for number, step in enumerate(steps):
        changes = {}
        for index in step:
            path = f"{folder}f{index}"
            changes[path] = None if path in present else TreeEntry.of(path, f"{number}".encode())
        changes[f"{folder}absent"] = None
        built = update_tree(root, objects.__getitem__, changes)
        objects |= built.objects
        root = built.root
        present |= changes
        present = {path: entry for path, entry in present.items() if entry is not None}
        assert root == build_tree(present.values()).root
        assert read_tree(root, objects.__getitem__) == tuple(sorted(present.values()))


def test_storage_grows_with_the_change():
    many = [e for folder in range(20) for e in entries(500, f"folder{folder}/")]
    tree = build_tree(many)
    loads = []

    def load(digest):
        loads.append(digest)
        return tree.objects[digest]

    path = "folder7/file123.py"
    built = update_tree(tree.root, load, {path: TreeEntry.of(path, b"changed")})
    assert len(built.objects) == 3  # the root, the folder's fan, one leaf
    assert sum(map(len, built.objects.values())) < 4_096
    assert len(set(loads)) == 3
    back = update_tree(
        built.root,
        {**tree.objects, **built.objects}.__getitem__,
        {path: TreeEntry.of(path, b"123")},
    )
    assert back.root == tree.root


def test_a_removed_folder_is_gone_and_a_change_of_nothing_is_none():
    tree = build_tree([TreeEntry.of("a/b/c", b"1"), TreeEntry.of("d", b"2")])
    load = tree.objects.__getitem__
    assert update_tree(tree.root, load, {}).root == tree.root
    assert update_tree(tree.root, load, {"x/y": None, "a": None, "d/e": None}).root == tree.root
    alone = update_tree(tree.root, load, {"a/b/c": None})
    assert alone == build_tree([TreeEntry.of("d", b"2")])


def test_a_file_and_a_folder_change_places_in_one_call():
    tree = build_tree([TreeEntry.of("a/b", b"1"), TreeEntry.of("c", b"2")])
    changes = {
        "a/b": None, "a": TreeEntry.of("a", b"3"), "c": None, "c/d": TreeEntry.of("c/d", b"4"),
    }  # fmt: skip
    built = update_tree(tree.root, tree.objects.__getitem__, changes)
    assert built.root == build_tree([TreeEntry.of("a", b"3"), TreeEntry.of("c/d", b"4")]).root


BAD_CHANGES = [
    {"a": TreeEntry.of("a", b"x")},  # a folder is there
    {"c/d": TreeEntry.of("c/d", b"x")},  # a file is there
    {"c": TreeEntry.of("c", b"x"), "c/d": TreeEntry.of("c/d", b"x")},
    {"x": TreeEntry.of("y", b"x")},
    {"x": TreeEntry("x", EntryMode.directory, "00" * 32, 0)},
    {"../x": TreeEntry.of("../x", b"x")},
    {".git/config": TreeEntry.of(".git/config", b"x")},
]


@pytest.mark.parametrize("changes", BAD_CHANGES)
def test_a_tree_that_cannot_be_is_refused(changes):
    tree = build_tree([TreeEntry.of("a/b", b"1"), TreeEntry.of("c", b"2")])
    with pytest.raises(InvalidInput):
        update_tree(tree.root, tree.objects.__getitem__, changes)


def test_a_path_twice_or_below_a_file_is_refused():
    for bad in (["a", "a"], ["a", "a/b"]):
        with pytest.raises(InvalidInput):
            build_tree([TreeEntry.of(path, b"x") for path in bad])


def test_a_tree_has_a_largest_number_of_files(monkeypatch):
    monkeypatch.setattr(revision_v2, "MAX_TREE_FILES", 10)
    with pytest.raises(TooLarge):
        build_tree(entries(11))
    monkeypatch.undo()
    tree = build_tree(entries(11))
    monkeypatch.setattr(revision_v2, "MAX_TREE_FILES", 10)
    with pytest.raises(TooLarge):
        read_tree(tree.root, tree.objects.__getitem__)


def leaf(*rows):
    return msgspec.msgpack.encode(["leaf", rows])


ROW = ("a", 0o100644, bytes(32), 1)
NOT_DIRECTORIES = {
    "nothing": b"",
    "another kind": msgspec.msgpack.encode(["tree", []]),
    "a name twice": leaf(ROW, ROW),
    "out of order": leaf(("b", *ROW[1:]), ROW),
    "an unknown mode": leaf(("a", 0o160000, bytes(32), 1)),
    "a short hash": leaf(("a", 0o100644, bytes(31), 1)),
    "a size below zero": leaf(("a", 0o100644, bytes(32), -1)),
    "a directory with a size": leaf(("a", 0o040000, bytes(32), 1)),
    "a slash": leaf(("a/b", 0o100644, bytes(32), 1)),
    "more than a leaf holds": leaf(*((f"{i:03}", *ROW[1:]) for i in range(LEAF_ENTRIES + 1))),
    "a fan of fifteen": msgspec.msgpack.encode(["fan", [[bytes(32), 70]] + [None] * 14]),
    "a fan that should be a leaf": msgspec.msgpack.encode(
        ["fan", [[bytes(32), LEAF_ENTRIES]] + [None] * 15]
    ),
    "an empty slot": msgspec.msgpack.encode(
        ["fan", [[bytes(32), 70], [bytes(32), 0]] + [None] * 14]
    ),
}


@pytest.mark.parametrize("body", NOT_DIRECTORIES.values(), ids=NOT_DIRECTORIES.keys())
def test_what_is_not_a_directory_in_its_one_form_is_refused(body):
    with pytest.raises(Tampered):
        decode_directory(body)


def put(objects, body):
    objects[directory_hash(body)] = body
    return directory_hash(body)


def test_a_name_in_the_wrong_slot_is_refused():
    objects = {}
    tree = build_tree(entries(200))
    fan = decode_directory(tree.objects[tree.root])
    assert isinstance(fan, DirectoryFan)
    turned = DirectoryFan((*fan.slots[1:], fan.slots[0]))
    root = put(objects, revision_v2.encode_directory(turned))
    with pytest.raises(Tampered, match="slot"):
        read_tree(root, {**tree.objects, **objects}.__getitem__)


def test_a_slot_that_miscounts_is_refused():
    tree = build_tree(entries(200))
    fan = decode_directory(tree.objects[tree.root])
    assert isinstance(fan, DirectoryFan)
    first = next(slot for slot in fan.slots if slot is not None)
    wrong = DirectoryFan((replace(first, count=first.count + 1), *fan.slots[1:]))
    objects = dict(tree.objects)
    root = put(objects, revision_v2.encode_directory(wrong))
    with pytest.raises(Tampered, match="as many names"):
        read_tree(root, objects.__getitem__)


def test_an_empty_folder_or_an_unsafe_name_is_refused():
    for name, below in (("a", leaf()), ("..", leaf(ROW)), (".git", leaf(ROW)), ("", leaf(ROW))):
        objects = {}
        digest = put(objects, below)
        root = put(objects, leaf((name, 0o040000, bytes.fromhex(digest), 0)))
        with pytest.raises(Tampered):
            read_tree(root, objects.__getitem__)


def test_an_object_that_is_not_what_its_hash_names_is_refused():
    tree = build_tree([TreeEntry.of("a/b", b"1")])
    swapped = {digest: leaf() for digest in tree.objects}
    with pytest.raises(Tampered):
        read_tree(tree.root, swapped.__getitem__)
    with pytest.raises(Tampered):
        find_entry(tree.root, swapped.__getitem__, "a/b")
    with pytest.raises(Tampered):
        update_tree(tree.root, swapped.__getitem__, {"a/b": None})


def test_a_node_pulls_only_what_it_lacks():
    old = build_tree([*entries(100, "big/"), TreeEntry.of("small/a", b"1")])
    changed = {"small/a": TreeEntry.of("small/a", b"2")}
    new = update_tree(old.root, old.objects.__getitem__, changed)
    server, node, pulled = {**old.objects, **new.objects}, dict(old.objects), []
    waiting = [new.root]
    while waiting:
        digest = waiting.pop()
        if digest not in node:
            pulled.append(digest)
            node[digest] = server[digest]
            waiting += children_of(decode_directory(node[digest]))
    assert sorted(pulled) == sorted(new.objects)
    assert read_tree(new.root, node.__getitem__) == read_tree(new.root, server.__getitem__)
    assert isinstance(decode_directory(server[new.root]), DirectoryLeaf)
