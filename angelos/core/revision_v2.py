r"""Revisions, format 2: storage grows with the change, and history means what it means in git.

Directories are objects of their own, so that one changed file makes a few
small objects and a node pulls only what it lacks; modes, symbolic links; a list of authors;
trailers; the id of the git commit that a commit came from.

    commit    ["commit", 2, repo, [parent], tree, [author], message, at, git, [[key, value]]]
    leaf      ["leaf", [[name, mode, hash, size]]]     at most 64 entries, sorted by name
    fan       ["fan", [[hash, count] or nil] * 16]     more than 64 entries
    revision  SHA-256 of "angelos.commit.v2" NUL commit
    tree      SHA-256 of "angelos.directory.v2" NUL the root directory's leaf or fan

Objects are MessagePack in its shortest form; hashes are 32 raw bytes inside, hex digits outside.
`mode` is git's. An entry's `hash` is the SHA-256 of a file's content, of a link's target, or of
the directory below (whose `size` is 0; there are no empty ones except the root). A directory of
more than 64 entries is a fan: entry `name` lies in the slot that the hex digit of SHA-256(name)
at the fan's depth names (0 in the directory's own object). So a directory has exactly one form,
whatever order it was built in: equal files give equal trees, which is how an undo is proven, and
what is not in its one form is `Tampered`.

    >>> tree = build_tree([TreeEntry.of("a.txt", b"hello\n")])
    >>> tree.root[:8], [entry.path for entry in read_tree(tree.root, tree.objects.__getitem__)]
    ('a643385c', ['a.txt'])
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum, StrEnum
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from angelos.core.errors import InvalidInput, Tampered, TooLarge
from angelos.core.ids import PrincipalId, Revision, is_principal, is_revision
from angelos.core.paths import safe_path
from angelos.core.signing import SigningKey, VerifyKey

T = TypeVar("T")

FORMAT = 2
LEAF_ENTRIES = 64
"""A directory with more entries becomes a fan."""
FAN_SLOTS = 16
MAX_TREE_FILES = 100_000
MAX_OBJECT_BYTES = 256 * 1024
"""Of a commit or a directory object. A leaf of 64 entries with the longest names has 16 KiB."""
MAX_PARENTS = 16
MAX_AUTHORS = 64
MAX_MESSAGE_BYTES = 64 * 1024
MAX_TRAILERS = 64
MAX_TRAILER_BYTES = 1_000

_COMMIT = b"angelos.commit.v2"
_DIRECTORY = b"angelos.directory.v2"
_MAX_FAN_DEPTH = 64
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,39}")

Load = Callable[[str], bytes]
"""Returns an object by its hash; raises `KeyError` or an `AngelError` where there is none."""


class EntryMode(IntEnum):
    """What an entry of a directory is; the numbers are git's."""

    file = 0o100644
    executable = 0o100755
    symlink = 0o120000
    directory = 0o040000


class TreeEntry(msgspec.Struct, frozen=True, order=True):
    """One file or link of a tree, by its whole path."""

    path: str
    mode: EntryMode
    sha256: str
    """Of the content; of a link, of its target in UTF-8."""
    size: int

    @classmethod
    def of(cls, path: str, content: bytes, mode: EntryMode = EntryMode.file) -> TreeEntry:
        """Return the entry of `content` at `path`."""
        return cls(path, mode, hashlib.sha256(content).hexdigest(), len(content))


class DirectoryEntry(msgspec.Struct, frozen=True):
    """One name in a directory."""

    name: str
    mode: EntryMode
    hash: str
    size: int


class DirectoryLeaf(msgspec.Struct, frozen=True):
    """At most `LEAF_ENTRIES` names, sorted by their UTF-8 bytes."""

    entries: tuple[DirectoryEntry, ...] = ()


class FanSlot(msgspec.Struct, frozen=True):
    """The part of a large directory whose names hash to one digit."""

    hash: str
    count: int
    """How many names lie below."""


class DirectoryFan(msgspec.Struct, frozen=True):
    """More than `LEAF_ENTRIES` names, in sixteen slots."""

    slots: tuple[FanSlot | None, ...]

    @property
    def count(self) -> int:
        """How many names lie below."""
        return sum(slot.count for slot in self.slots if slot is not None)


DirectoryObject = DirectoryLeaf | DirectoryFan


class BuiltTree(NamedTuple):
    """A tree's hash and the directory objects that were made for it."""

    root: str
    objects: dict[str, bytes]


class TrailerKey(StrEnum):
    """Keys that mean something here; others pass through."""

    dev_base = "Dev-Base"
    """The revision of `dev` that the author read; never a parent."""
    proposal = "Proposal"
    part = "Part"
    """Digest of the part that was accepted or tested, where it was not the whole."""
    task = "Task"
    on_behalf_of = "On-Behalf-Of"
    depends_on = "Depends-On"
    reverts = "Reverts"
    """Proposal whose edits this commit takes back."""
    picked_from = "Picked-From"
    rollback_to = "Rollback-To"


class Trailer(msgspec.Struct, frozen=True, array_like=True):
    """One line at the end of a commit's message, as git reads it."""

    key: str
    value: str


class CommitObject(msgspec.Struct, frozen=True, kw_only=True):
    """A point in a repository's history."""

    repo: str
    parents: tuple[Revision, ...]
    tree: str
    authors: tuple[PrincipalId, ...]
    """Who wrote it: in git the first is the author, the others are Co-authored-by."""
    message: str
    at: int
    """Unix milliseconds."""
    git: str = ""
    """Id of the git commit that this one was imported from (40 or 64 hex digits); else empty."""
    trailers: tuple[Trailer, ...] = ()

    def trailer(self, key: str) -> str:
        """Return the value of the first trailer with this key, empty if there is none."""
        return next((t.value for t in self.trailers if t.key == key), "")


class SignedCommitObject(msgspec.Struct, frozen=True, kw_only=True):
    """A commit's exact bytes and the repository's signature of their hash."""

    body: bytes
    signature: bytes

    @property
    def revision(self) -> Revision:
        """The hash of the bytes, whoever signed them."""
        return revision_of(self.body)


# -- commits ---------------------------------------------------------------------------------

_CommitRow = tuple[
    Literal["commit"], int, str, tuple[bytes, ...], bytes, tuple[str, ...], str, int, bytes,
    tuple[Trailer, ...],
]  # fmt: skip
_commit_decoder = msgspec.msgpack.Decoder(_CommitRow)


def encode_commit(commit: CommitObject) -> bytes:
    """Return the one form of a commit.

    Raises:
        InvalidInput: A field is out of its bounds; see `check_commit`.
    """
    check_commit(commit)
    parents = [bytes.fromhex(parent) for parent in commit.parents]
    return msgspec.msgpack.encode(
        [
            "commit", FORMAT, commit.repo, parents, bytes.fromhex(commit.tree), commit.authors,
            commit.message, commit.at, bytes.fromhex(commit.git), commit.trailers,
        ]
    )  # fmt: skip


def decode_commit(body: bytes) -> CommitObject:
    """Return the commit in `body`.

    Raises:
        Tampered: The bytes are not a commit in its one form.
        TooLarge: There are more than `MAX_OBJECT_BYTES`.
    """
    _, version, repo, parents, tree, authors, message, at, git, trailers = _decoded(
        _commit_decoder, body, "commit"
    )
    commit = CommitObject(
        repo=repo,
        parents=tuple(Revision(parent.hex()) for parent in parents),
        tree=tree.hex(),
        authors=tuple(PrincipalId(author) for author in authors),
        message=message,
        at=at,
        git=git.hex(),
        trailers=trailers,
    )
    if version != FORMAT or not _in_one_form(encode_commit, commit, body):
        raise _not_in_form("commit")
    return commit


def check_commit(commit: CommitObject) -> None:
    """Raise `InvalidInput` unless every field of a commit is within its bounds.

    At most 16 parents, each once; 1 to 64 authors, each once; a message of at most 64 KiB; at
    most 64 trailers, one line of at most 1,000 bytes each; no NUL anywhere.
    """
    parents, authors = commit.parents, commit.authors
    rules = {
        "repo": bool(_REPO.fullmatch(commit.repo)),
        "parents": len(parents) == len(set(parents)) <= MAX_PARENTS
        and all(map(is_revision, parents)),
        "tree": bool(_SHA256.fullmatch(commit.tree)),
        "authors": 0 < len(authors) == len(set(authors)) <= MAX_AUTHORS
        and all(map(is_principal, authors)),
        "message": _is_text(commit.message, MAX_MESSAGE_BYTES),
        "at": 0 <= commit.at < 2**53,
        "git": not commit.git or bool(_GIT.fullmatch(commit.git)),
        "trailers": len(commit.trailers) <= MAX_TRAILERS and all(map(_is_trailer, commit.trailers)),
    }
    if broken := [name for name, holds in rules.items() if not holds]:
        raise InvalidInput(f"A commit's {broken[0]} is out of its bounds.", field=broken[0])


def revision_of(body: bytes) -> Revision:
    """Return the revision of a commit's bytes."""
    return Revision(hashlib.sha256(_COMMIT + b"\0" + body).hexdigest())


def sign_commit_object(key: SigningKey, commit: CommitObject) -> SignedCommitObject:
    """Return `commit` encoded and signed with the repository's key.

    Raises:
        InvalidInput: A field is out of its bounds.
    """
    body = encode_commit(commit)
    return SignedCommitObject(body=body, signature=key.sign(_COMMIT, revision_of(body).encode()))


def verify_commit_object(
    key: VerifyKey, signed: SignedCommitObject, expected: Revision
) -> CommitObject:
    """Return the commit if it is the revision asked for, signed, and in its one form.

    Raises:
        Tampered: Hash, signature or form is wrong; nothing of it may be used.
        TooLarge: There are more than `MAX_OBJECT_BYTES`.
    """
    if signed.revision != expected:
        raise Tampered(f"Asked for {expected[:12]}, got {signed.revision[:12]}.")
    if not key.verify(_COMMIT, expected.encode(), signed.signature):
        raise Tampered(f"The signature of revision {expected[:12]} is not the repository's.")
    return decode_commit(signed.body)


def _is_trailer(trailer: Trailer) -> bool:
    one_line = "\n" not in trailer.value and "\r" not in trailer.value
    return bool(
        _KEY.fullmatch(trailer.key) and one_line and _is_text(trailer.value, MAX_TRAILER_BYTES)
    )


def _is_text(text: str, limit: int) -> bool:
    try:
        return len(text.encode()) <= limit and "\0" not in text
    except UnicodeEncodeError:
        return False


# -- directories -----------------------------------------------------------------------------

_LeafRow = tuple[Literal["leaf"], tuple[tuple[str, int, bytes, int], ...]]
_FanRow = tuple[Literal["fan"], tuple[tuple[bytes, int] | None, ...]]
_leaf_decoder = msgspec.msgpack.Decoder(_LeafRow)
_fan_decoder = msgspec.msgpack.Decoder(_FanRow)
_FAN_PREFIX = msgspec.msgpack.encode(["fan", []])[:-1]


def encode_directory(directory: DirectoryObject) -> bytes:
    """Return the one form of a directory object."""
    row: Any
    if isinstance(directory, DirectoryLeaf):
        row = [
            "leaf",
            [[e.name, e.mode, bytes.fromhex(e.hash), e.size] for e in directory.entries],
        ]
    else:
        slots = [s and [bytes.fromhex(s.hash), s.count] for s in directory.slots]
        row = ["fan", slots]
    return msgspec.msgpack.encode(row)


def decode_directory(body: bytes) -> DirectoryObject:
    """Return the leaf or fan in `body`.

    Raises:
        Tampered: The bytes are not a directory object in its one form.
        TooLarge: There are more than `MAX_OBJECT_BYTES`.
    """
    return _decode_directory(body)


@lru_cache(maxsize=4096)
def _decode_directory(body: bytes) -> DirectoryObject:
    directory: DirectoryObject
    if body.startswith(_FAN_PREFIX):
        _, slots = _decoded(_fan_decoder, body, "directory")
        directory = DirectoryFan(tuple(s and FanSlot(s[0].hex(), s[1]) for s in slots))
        sound = len(slots) == FAN_SLOTS and all(
            s is None or (_is_hash(s.hash) and s.count > 0) for s in directory.slots
        )
        sound = sound and directory.count > LEAF_ENTRIES
    else:
        _, rows = _decoded(_leaf_decoder, body, "directory")
        sound = all(mode in set(EntryMode) for _, mode, _, _ in rows)
        entries = tuple(
            DirectoryEntry(name, EntryMode(mode), digest.hex(), size)
            for name, mode, digest, size in (rows if sound else ())
        )
        directory = DirectoryLeaf(entries)
        sound = sound and _is_leaf(entries)
    if not sound or not _in_one_form(encode_directory, directory, body):
        raise _not_in_form("directory")
    return directory


def directory_hash(body: bytes) -> str:
    """Return the hash by which a directory's bytes are known."""
    return hashlib.sha256(_DIRECTORY + b"\0" + body).hexdigest()


def _is_leaf(entries: tuple[DirectoryEntry, ...]) -> bool:
    names = [entry.name.encode() for entry in entries]
    return (
        len(entries) <= LEAF_ENTRIES
        and names == sorted(set(names))
        and all(_is_entry(entry) for entry in entries)
    )


def _is_entry(entry: DirectoryEntry) -> bool:
    sized = entry.size == 0 if entry.mode is EntryMode.directory else entry.size >= 0
    return sized and _is_hash(entry.hash) and "/" not in entry.name


def _is_hash(text: str) -> bool:
    return bool(_SHA256.fullmatch(text))


def _decoded(decoder: msgspec.msgpack.Decoder[Any], body: bytes, kind: str) -> Any:
    if len(body) > MAX_OBJECT_BYTES:
        raise TooLarge(f"A {kind} object has at most {MAX_OBJECT_BYTES} bytes, not {len(body)}.")
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Tampered(f"Not a {kind} object of format {FORMAT}: {error}") from error


def _in_one_form(encode: Callable[[Any], bytes], value: Any, body: bytes) -> bool:
    """Return whether a value is written as it must be: one value has one form and one hash."""
    try:
        return encode(value) == body
    except (InvalidInput, ValueError):
        return False


def _not_in_form(kind: str) -> Tampered:
    return Tampered(f"A {kind} object is not in its one form.")


# -- trees -----------------------------------------------------------------------------------


def build_tree(entries: Iterable[TreeEntry]) -> BuiltTree:
    """Return the tree of all these files, in any order.

    Raises:
        InvalidInput: A path stands twice, is below a file, or is not a safe path; a mode is that
            of a directory.
        TooLarge: There are more than `MAX_TREE_FILES`.
    """
    changes: dict[str, TreeEntry | None] = {}
    for entry in entries:
        if entry.path in changes:
            raise InvalidInput(f"{entry.path} stands twice in one tree.")
        changes[entry.path] = entry
    if len(changes) > MAX_TREE_FILES:
        raise TooLarge(f"A tree has at most {MAX_TREE_FILES} files.")
    return update_tree(_EMPTY, _NOTHING.__getitem__, changes)


def update_tree(root: str, load: Load, changes: Mapping[str, TreeEntry | None]) -> BuiltTree:
    """Return the tree after some files were put or, with None, removed.

    Only the directories on the way to the changed paths are loaded and made anew; the result is
    the same as that of `build_tree` over all files.

    Args:
        root: Hash of the tree as it is.
        load: Returns its directory objects.
        changes: Path -> the entry that is to be there, None to remove; removing what is not there
            changes nothing. A path may become a directory if it is removed in the same call.

    Returns:
        The new tree's hash and the objects that were made; those that it shares are not in it.

    Raises:
        InvalidInput: As `build_tree`.
        Tampered: An object is not the one that its hash names.
    """
    for path, entry in changes.items():
        safe_path(path)
        if entry is not None and (entry.path != path or entry.mode is EntryMode.directory):
            raise InvalidInput(f"The entry for {path} is no file or link of that path.")

    def load_or_empty(digest: str) -> bytes:
        return _NOTHING[digest] if digest in _NOTHING else load(digest)

    change = _TreeChange(load_or_empty)
    changed = change.update(root, changes, "")
    return BuiltTree(changed.hash, _reachable(changed.hash, change.objects))


def read_tree(root: str, load: Load) -> tuple[TreeEntry, ...]:
    """Return all files and links of a tree, sorted by path, with every object verified.

    Raises:
        Tampered: An object is not the one its hash names, is not in its one form, lies in the
            wrong slot, or holds a path that is not safe.
        TooLarge: There are more than `MAX_TREE_FILES`.
    """
    entries: list[TreeEntry] = []
    for entry in _walk(root, load, ""):
        entries.append(entry)
        if len(entries) > MAX_TREE_FILES:
            raise TooLarge(f"A tree has at most {MAX_TREE_FILES} files.")
    return tuple(sorted(entries))


def find_entry(root: str, load: Load, path: str) -> TreeEntry | None:
    """Return the file or link at `path`, None if there is none, loading only its way.

    Raises:
        Tampered: An object on the way is not the one its hash names.
    """
    folder, names = root, safe_path(path).split("/")
    for name in names[:-1]:
        entry = _find(folder, load, name)
        if entry is None or entry.mode is not EntryMode.directory:
            return None
        folder = entry.hash
    last = _find(folder, load, names[-1])
    if last is None or last.mode is EntryMode.directory:
        return None
    return TreeEntry(path, last.mode, last.hash, last.size)


def children_of(directory: DirectoryObject) -> tuple[str, ...]:
    """Return the hashes of the directory objects that this one names, for a node that pulls.

    A node asks for the root, then for the children that it lacks, and so on; the contents that
    it lacks follow from the leaves.
    """
    if isinstance(directory, DirectoryFan):
        return tuple(slot.hash for slot in directory.slots if slot is not None)
    return tuple(e.hash for e in directory.entries if e.mode is EntryMode.directory)


_NOTHING = {directory_hash(_body): _body for _body in [encode_directory(DirectoryLeaf())]}
_EMPTY = next(iter(_NOTHING))


def _loaded(digest: str, load: Load) -> DirectoryObject:
    body = load(digest)
    if directory_hash(body) != digest:
        raise Tampered(f"Directory {digest[:12]} is not what its hash names.")
    return decode_directory(body)


def name_digit(name: str, depth: int) -> int:
    """Return the slot of a fan at this depth in which a name lies."""
    return int(hashlib.sha256(name.encode()).hexdigest()[depth], 16)


class _TreeChange:
    """The directory objects that one change of a tree makes."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.objects: dict[str, bytes] = {}

    def update(self, digest: str, changes: Mapping[str, TreeEntry | None], folder: str) -> FanSlot:
        """Change one directory and those below it; `changes` are by path below it."""
        here: dict[str, DirectoryEntry | None] = {}
        below: dict[str, dict[str, TreeEntry | None]] = {}
        for path, entry in changes.items():
            name, slash, rest = path.partition("/")
            if slash:
                below.setdefault(name, {})[rest] = entry
            else:
                here[name] = entry and DirectoryEntry(name, entry.mode, entry.sha256, entry.size)
        previous = {name: _find(digest, self.load, name) for name in {*here, *below}}
        for name, old in previous.items():
            if name in below:
                self._below(here, name, old, below[name], folder)
            elif old is not None and old.mode is EntryMode.directory:
                if here[name] is not None:
                    raise InvalidInput(
                        f"{folder}{name} is a directory; remove what is in it first."
                    )
                del here[name]  # there is no file of that name
        return self._put(digest, here, 0)

    def _below(
        self,
        here: dict[str, DirectoryEntry | None],
        name: str,
        old: DirectoryEntry | None,
        changes: Mapping[str, TreeEntry | None],
        folder: str,
    ) -> None:
        """Change the directory `name` and put what it became into `here`."""
        base = _EMPTY
        if old is not None and old.mode is EntryMode.directory:
            base = old.hash
        elif old is not None and name not in here:
            if any(entry is not None for entry in changes.values()):
                raise InvalidInput(f"{folder}{name} is a file; nothing can be below it.")
            return  # nothing is below it to remove
        child = self.update(base, changes, f"{folder}{name}/")
        if not child.count:
            here.setdefault(name, None)
        elif here.get(name) is not None:
            raise InvalidInput(f"{folder}{name} cannot be a file and a directory.")
        else:
            here[name] = DirectoryEntry(name, EntryMode.directory, child.hash, 0)

    def _put(
        self, digest: str, changes: Mapping[str, DirectoryEntry | None], depth: int
    ) -> FanSlot:
        """Change names of one directory, loading only the slots that they fall into."""
        directory = _loaded(digest, self.load)
        if isinstance(directory, DirectoryLeaf):
            return self._emit(_merged({e.name: e for e in directory.entries}, changes), depth)
        slots = list(directory.slots)
        for index, part in enumerate(_by_digit(changes, depth)):
            slot = slots[index]
            if not part:
                continue
            if slot is None:
                added = _merged({}, part)
                slots[index] = self._emit(added, depth + 1) if added else None
            else:
                changed = self._put(slot.hash, part, depth + 1)
                slots[index] = changed if changed.count else None
        fan = DirectoryFan(tuple(slots))
        if fan.count > LEAF_ENTRIES:
            return self._stored(fan)
        entries: dict[str, DirectoryEntry] = {}
        for slot in (slot for slot in slots if slot is not None):
            entries |= {entry.name: entry for entry in _names(slot.hash, self._loaded_or_made)}
        return self._emit(entries, depth)

    def _emit(self, entries: Mapping[str, DirectoryEntry], depth: int) -> FanSlot:
        """Store these names at this depth of fans (0: as a directory of their own)."""
        if len(entries) <= LEAF_ENTRIES:
            ordered = sorted(entries.values(), key=lambda entry: entry.name.encode())
            return self._stored(DirectoryLeaf(tuple(ordered)))
        slots = _by_digit(entries, depth)
        return self._stored(
            DirectoryFan(tuple(self._emit(slot, depth + 1) if slot else None for slot in slots))
        )

    def _stored(self, directory: DirectoryObject) -> FanSlot:
        """Keep an object and return how its parent names it."""
        body = encode_directory(directory)
        digest = directory_hash(body)
        self.objects[digest] = body
        fan = isinstance(directory, DirectoryFan)
        return FanSlot(digest, directory.count if fan else len(directory.entries))

    def _loaded_or_made(self, digest: str) -> bytes:
        return self.objects[digest] if digest in self.objects else self.load(digest)


def _by_digit(names: Mapping[str, T], depth: int) -> list[dict[str, T]]:
    """Return names with what belongs to each, in the slots of a fan at this depth."""
    if depth >= _MAX_FAN_DEPTH:
        raise InvalidInput("Too many names with one hash in a directory.")
    slots: list[dict[str, T]] = [{} for _ in range(FAN_SLOTS)]
    for name, value in names.items():
        slots[name_digit(name, depth)][name] = value
    return slots


def _merged(
    entries: Mapping[str, DirectoryEntry], changes: Mapping[str, DirectoryEntry | None]
) -> dict[str, DirectoryEntry]:
    changed = {**entries, **changes}
    return {name: entry for name, entry in changed.items() if entry is not None}


def _names(digest: str, load: Load, prefix: str = "") -> Iterator[DirectoryEntry]:
    """Yield the entries of one directory; `prefix` is what its fans have promised so far."""
    directory = _loaded(digest, load)
    if isinstance(directory, DirectoryLeaf):
        for entry in directory.entries:
            if not hashlib.sha256(entry.name.encode()).hexdigest().startswith(prefix):
                raise Tampered(f"{entry.name!r} lies in the wrong slot of its directory.")
            yield entry
        return
    for index, slot in enumerate(directory.slots):
        if slot is None:
            continue
        entries = list(_names(slot.hash, load, f"{prefix}{index:x}"))
        if len(entries) != slot.count:
            raise Tampered(f"Directory {slot.hash[:12]} does not hold as many names as it says.")
        yield from entries


def _find(digest: str, load: Load, name: str) -> DirectoryEntry | None:
    directory, depth = _loaded(digest, load), 0
    while isinstance(directory, DirectoryFan):
        slot = directory.slots[name_digit(name, depth)]
        if slot is None:
            return None
        directory, depth = _loaded(slot.hash, load), depth + 1
    return next((entry for entry in directory.entries if entry.name == name), None)


def _walk(digest: str, load: Load, folder: str) -> Iterator[TreeEntry]:
    empty = True
    for entry in _names(digest, load):
        empty = False
        path = f"{folder}{entry.name}"
        try:
            safe_path(path)
        except InvalidInput as error:
            raise Tampered(f"A tree holds a path that is not safe: {error.detail}") from error
        if entry.mode is EntryMode.directory:
            yield from _walk(entry.hash, load, f"{path}/")
        else:
            yield TreeEntry(path, entry.mode, entry.hash, entry.size)
    if empty and folder:
        raise Tampered(f"{folder} is an empty directory.")


def _reachable(root: str, objects: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the objects of a tree among those that were made on the way to it."""
    held: dict[str, bytes] = {}
    waiting = [root]
    while waiting:
        digest = waiting.pop()
        if digest in objects and digest not in held:
            held[digest] = objects[digest]
            waiting += children_of(decode_directory(objects[digest]))
    return held
