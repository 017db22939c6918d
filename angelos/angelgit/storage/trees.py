"""Pure decisions about trees: which objects a change needs, and which paths exclude each other.

>>> file_below_file(["b", "a/b", "a"])
('a', 'a/b')
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from angelos.core.revision_v2 import (
    DirectoryEntry,
    DirectoryFan,
    DirectoryLeaf,
    DirectoryObject,
    EntryMode,
    TreeEntry,
    build_tree,
    children_of,
    decode_directory,
    find_entry,
    name_digit,
    read_tree,
)

_HASH = re.compile(r"[0-9a-f]{64}")
BESIDE = "A path is a file or a folder, not both."
_EMPTY_TREE = build_tree(())
EMPTY_ROOT = _EMPTY_TREE.root
EMPTY: Mapping[str, bytes] = _EMPTY_TREE.objects
"""The directory object of a tree without files."""


def is_hash(text: str) -> bool:
    """Return whether a text can be the hash of an object."""
    return bool(_HASH.fullmatch(text))


def missing_nodes(root: str, nodes: Mapping[str, bytes], paths: Collection[str] | None) -> set[str]:
    """Return the next directory objects to load on the way to some paths, or of the whole tree.

    Args:
        root: hash of the tree.
        nodes: what is loaded already.
        paths: None: all of them.
    """
    missing: set[str] = set()
    waiting: list[tuple[str, list[list[str]] | None, int]] = [
        (root, None if paths is None else [path.split("/") for path in paths], 0)
    ]
    while waiting:
        digest, names, depth = waiting.pop()
        if digest not in nodes:
            missing.add(digest)
            continue
        waiting += _children(decode_directory(nodes[digest]), names, depth)
    return missing


def _children(
    directory: DirectoryObject, names: list[list[str]] | None, depth: int
) -> list[tuple[str, list[list[str]] | None, int]]:
    """Return (hash, names to be found in it, depth of fans) of the objects below one."""
    if names is None:
        deeper = depth + 1 if isinstance(directory, DirectoryFan) else 0
        return [(digest, None, deeper) for digest in children_of(directory)]
    below: dict[str, list[list[str]]] = {}
    if isinstance(directory, DirectoryFan):
        for name in names:
            if (slot := directory.slots[name_digit(name[0], depth)]) is not None:
                below.setdefault(slot.hash, []).append(name)
        return [(digest, part, depth + 1) for digest, part in below.items()]
    folders = folders_of(directory)
    for first, *rest in names:
        if rest and first in folders:
            below.setdefault(folders[first], []).append(rest)
    return [(digest, rest, 0) for digest, rest in below.items()]


def folders_of(directory: DirectoryLeaf) -> dict[str, str]:
    """Return name -> hash of the directories in one."""
    return {e.name: e.hash for e in directory.entries if e.mode is EntryMode.directory}


def predecessors(before: str, after: str, nodes: Mapping[str, bytes]) -> dict[str, str]:
    """Return new directory object -> the one that it replaces, for storing the difference."""
    pairs: dict[str, str] = {}
    waiting = [(before, after)]
    while waiting:
        old, new = waiting.pop()
        if old == new or new in pairs or old not in nodes or new not in nodes:
            continue
        pairs[new] = old
        a, b = decode_directory(nodes[old]), decode_directory(nodes[new])
        if isinstance(a, DirectoryFan) and isinstance(b, DirectoryFan):
            slots = zip(a.slots, b.slots, strict=True)
            waiting += [(x.hash, y.hash) for x, y in slots if x is not None and y is not None]
        elif isinstance(a, DirectoryLeaf) and isinstance(b, DirectoryLeaf):
            folders, after_folders = folders_of(a), folders_of(b)
            common = folders.keys() & after_folders.keys()
            waiting += [(folders[name], after_folders[name]) for name in common]
    return pairs


def clash(root: str, nodes: Mapping[str, bytes], path: str) -> str | None:
    """Return what excludes a file at `path`: a file that is one of its folders, or the reverse."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        above = "/".join(parts[:end])
        if find_entry(root, nodes.__getitem__, above) is not None:
            return above
    return path if is_folder(root, nodes, path) else None


def is_folder(root: str, nodes: Mapping[str, bytes], path: str) -> bool:
    """Return whether a tree has files below `path`; the objects on the way are loaded."""
    digest = root
    for name in path.split("/"):
        directory, depth = decode_directory(nodes[digest]), 0
        while isinstance(directory, DirectoryFan):
            slot = directory.slots[name_digit(name, depth)]
            if slot is None:
                return False
            directory, depth = decode_directory(nodes[slot.hash]), depth + 1
        entry = next((e for e in directory.entries if e.name == name), None)
        if entry is None or entry.mode is not EntryMode.directory:
            return False
        digest = entry.hash
    return True


def first_below(root: str, nodes: Mapping[str, bytes], path: str) -> str | None:
    """Return the first file below a folder of a tree whose objects are loaded."""
    return next(
        (e.path for e in read_tree(root, nodes.__getitem__) if e.path.startswith(f"{path}/")), None
    )


Difference = tuple[str, TreeEntry | None, TreeEntry | None]
"""A path with its entries before and after."""


def differences(
    before: str, after: str, nodes: Mapping[str, bytes]
) -> tuple[list[Difference], set[str]]:
    """Return the files that differ between two trees, and the directory objects to load first.

    The rows are complete once nothing has to be loaded. Directories that are equal are not read.
    """
    rows: list[Difference] = []
    missing: set[str] = set()
    waiting: list[tuple[str, str, str]] = [("", before, after)]
    while waiting:
        folder, old, new = waiting.pop()
        if old == new:
            continue
        if absent := {old, new} - nodes.keys():
            missing |= absent
            continue
        a, b = decode_directory(nodes[old]), decode_directory(nodes[new])
        if isinstance(a, DirectoryFan) and isinstance(b, DirectoryFan):
            slots = zip(a.slots, b.slots, strict=True)
            waiting += [
                (folder, x.hash if x else EMPTY_ROOT, y.hash if y else EMPTY_ROOT) for x, y in slots
            ]
            continue
        names: list[dict[str, DirectoryEntry]] = []
        for digest in (old, new):
            present, absent = _entries(digest, nodes)
            names.append(present)
            missing |= absent
        for name in {**names[0], **names[1]}:
            pair = [side.get(name) for side in names]
            files = [_file(folder + name, entry) for entry in pair]
            if files[0] != files[1]:
                rows.append((folder + name, files[0], files[1]))
            waiting.append((f"{folder}{name}/", _folder(pair[0]), _folder(pair[1])))
    return rows, missing


def _entries(digest: str, nodes: Mapping[str, bytes]) -> tuple[dict[str, DirectoryEntry], set[str]]:
    """Return the names in one directory, through its fans, and the objects that are missing."""
    entries: dict[str, DirectoryEntry] = {}
    missing: set[str] = set()
    waiting = [digest]
    while waiting:
        current = waiting.pop()
        if current not in nodes:
            missing.add(current)
            continue
        directory = decode_directory(nodes[current])
        if isinstance(directory, DirectoryFan):
            waiting += [slot.hash for slot in directory.slots if slot is not None]
        else:
            entries |= {entry.name: entry for entry in directory.entries}
    return entries, missing


def _file(path: str, entry: DirectoryEntry | None) -> TreeEntry | None:
    if entry is None or entry.mode is EntryMode.directory:
        return None
    return TreeEntry(path, entry.mode, entry.hash, entry.size)


def _folder(entry: DirectoryEntry | None) -> str:
    return entry.hash if entry and entry.mode is EntryMode.directory else EMPTY_ROOT


def file_below_file(paths: Collection[str]) -> tuple[str, str] | None:
    """Return a file and a path below it, which cannot both be checked out; None if there is none.

    >>> file_below_file(["b", "a/b", "a"])
    ('a', 'a/b')
    """
    files = set(paths)
    return next(
        (
            (path[:i], path)
            for path in sorted(files)
            for i, c in enumerate(path)
            if c == "/" and path[:i] in files
        ),
        None,
    )
