"""A repository with its history from git: raw objects stay as they are, the head becomes documents.

    imported = await importer.read(bundle)      # checked, nothing is stored yet
    async with stores.begin() as store:
        await store_import(store, "study", imported)

The first revision is the git commit at the head, with exactly its files. Where the notebooks in it
are not in the form in which ours are kept, a second one writes them so.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from angelos.angelgit.changes.importing import CONFIG, CheckConfig
from angelos.angelgit.documents import crdt
from angelos.angelgit.documents.canonical import canonical, check_text, is_notebook, is_text
from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.convert import GitFile, read_files
from angelos.angelgit.git.packs import ReceivedBundle, check_pack, read_bundle
from angelos.angelgit.git.parse import RawCommit, parse_commit
from angelos.angelgit.storage.git_table import PIECE_BYTES
from angelos.angelgit.storage.models import DocumentRow
from angelos.angelgit.storage.store import Store
from angelos.core.errors import InvalidInput, Refused, Tampered, TooLarge
from angelos.core.ids import uuid7
from angelos.core.revision import MAX_FILES
from angelos.core.revision_v2 import EntryMode, TreeEntry

MAX_HEAD_BYTES = 500_000_000
"""Of the files of one commit together."""
_HEADS = b"refs/heads/"
_PREFERRED = (b"main", b"master", b"trunk")
_TAKEN = (b"dev", b"main", b"proposals")
"""Branches that mean something of their own here."""
_CACHE_PACK = 0


class HeadTree(NamedTuple):
    """The files of a commit, ready to be stored."""

    entries: tuple[TreeEntry, ...]
    """Exactly as in git."""
    changed: dict[str, TreeEntry]
    """Notebooks in the form in which they are kept."""
    contents: dict[str, bytes]
    blobs: dict[str, bytes]
    """Contents that are no text."""
    rows: tuple[tuple[DocumentRow, bytes], ...] = ()
    """Documents with their first states."""


class ImportedHistory(NamedTuple):
    """A repository that came from git, checked."""

    pack: memoryview
    head: str
    commit: RawCommit
    refs: dict[bytes, str]
    """References that stay git's."""
    renamed: dict[bytes, bytes]
    tree: HeadTree


async def read_history(
    repo: str, bundle: bytes, folder: Path, check_config: CheckConfig
) -> ImportedHistory:
    """Return what a bundle holds.

    Args:
        repo: the name of the new repository.
        bundle: a whole git bundle, format 2.
        folder: where a draft may lie meanwhile.
        check_config: checks the content of `angelos.toml`.

    Raises:
        InvalidInput: it is no bundle, or broken.
        Refused: something at its head cannot be kept; the message names it.
        TooLarge: it is over a bound.
    """
    return await asyncio.to_thread(_read, repo, bundle, folder, check_config)


def _read(repo: str, bundle: bytes, folder: Path, check_config: CheckConfig) -> ImportedHistory:
    received = read_bundle(bundle)
    check_pack(received.pack)
    head, refs, renamed = sort_refs(received)
    with draft_cache(folder) as cache:
        add_pack(cache, received.pack)
        try:
            cache.check_whole(set(received.refs.values()))
            raw = cache.read(head)
            if raw.kind != "commit":
                raise InvalidInput("The head of the bundle is no commit.")
            commit = parse_commit(raw.body)
            tree = head_tree(cache, read_files(cache, commit.tree))
        except Tampered as error:
            raise InvalidInput(f"The git history is broken: {error.detail}") from error
    tree = tree._replace(rows=tuple(documents(repo, tree, check_config)))
    return ImportedHistory(received.pack, head, commit, refs, renamed, tree)


def sort_refs(received: ReceivedBundle) -> tuple[str, dict[bytes, str], dict[bytes, bytes]]:
    """Return the head, the references that stay git's, and which of them got another name."""
    branches = {n.removeprefix(_HEADS): i for n, i in received.refs.items() if n.startswith(_HEADS)}
    head = _head(received.refs, branches)
    at_head = [name for name, identifier in branches.items() if identifier == head]
    chosen = next((_HEADS + name for name in (*_PREFERRED, *at_head) if name in at_head), None)
    refs: dict[bytes, str] = {}
    renamed: dict[bytes, bytes] = {}
    for name, identifier in received.refs.items():
        if name in (b"HEAD", chosen):
            continue
        branch = name.removeprefix(_HEADS)
        if branch != name and branch.partition(b"/")[0] in _TAKEN:
            renamed[name] = _HEADS + b"imported/" + branch
        refs[renamed.get(name, name)] = identifier
    return head, refs, renamed


def _head(refs: Mapping[bytes, str], branches: Mapping[bytes, str]) -> str:
    """Return the commit with which a repository begins: what is checked out, or a likely branch."""
    likely = (name for name in (*_PREFERRED, *branches) if name in branches)
    head = refs.get(b"HEAD") or branches.get(next(likely, b""))
    if head is None:
        raise Refused("There is no branch to begin with.", hint="Check a branch out first.")
    return head


def head_tree(cache: GitCache, files: Sequence[GitFile]) -> HeadTree:
    """Return files of a commit with their contents, and how notebooks are kept."""
    tree = exact_tree(cache, files)
    for entry in tree.entries:
        body = tree.contents.get(entry.sha256)
        if body is None or entry.mode is EntryMode.symlink or not is_notebook(entry.path):
            continue
        text = _notebook(entry.path, body).encode()
        if text != body:
            kept = TreeEntry.of(entry.path, text, entry.mode)
            tree.changed[entry.path] = kept
            tree.contents[kept.sha256] = text
    return tree


def exact_tree(cache: GitCache, files: Sequence[GitFile]) -> HeadTree:
    """Return files of a commit with their contents, as they are in git."""
    tree = HeadTree((), {}, {}, {})
    entries: list[TreeEntry] = []
    size = 0
    for file in files:
        body = cache.read(file.id).body
        size += len(body)
        if size > MAX_HEAD_BYTES:
            raise TooLarge(f"The files of one commit have at most {MAX_HEAD_BYTES} bytes.")
        entry = TreeEntry.of(file.path, body, file.mode)
        entries.append(entry)
        is_link = file.mode is EntryMode.symlink
        (tree.contents if is_link or is_text(body) else tree.blobs)[entry.sha256] = body
    return tree._replace(entries=tuple(entries))


def _notebook(path: str, body: bytes) -> str:
    try:
        return check_text(path, canonical(path, body.decode()))
    except InvalidInput as error:
        raise Refused(
            f"Nothing was taken, because {path} cannot be kept: {error.detail}",
            hint="Mend the notebook, or give the file another name.",
            names=[path],
        ) from error


def documents(
    repo: str, tree: HeadTree, check_config: CheckConfig
) -> list[tuple[DocumentRow, bytes]]:
    """Return a live document for each text."""
    rows: list[tuple[DocumentRow, bytes]] = []
    for original in tree.entries:
        entry = tree.changed.get(original.path, original)
        if entry.mode is EntryMode.symlink or entry.sha256 in tree.blobs:
            continue
        body = tree.contents[entry.sha256]
        if entry.path == CONFIG:
            check_config(body)
        row = DocumentRow(
            id=uuid7(),
            repo=repo,
            path=entry.path,
            mode=entry.mode & 0o777,
            alive=True,
            sha256=entry.sha256,
        )
        rows.append((row, crdt.build(entry.path, body.decode())))
    if len(rows) > MAX_FILES:
        raise TooLarge(f"A repository holds at most {MAX_FILES} texts and notebooks.")
    return rows


async def store_files(store: Store, tree: HeadTree) -> str:
    """Store the files of a commit, and return the hash of their tree as it is in git."""
    await store.add_contents(tree.contents.values())
    await store_blobs(store, tree.blobs)
    return await store.build_tree(tree.entries)


async def store_blobs(store: Store, blobs: Mapping[str, bytes]) -> None:
    """Store contents that are no text."""
    stored = await store.blob_sizes(blobs)
    for digest, body in blobs.items():
        if digest not in stored:
            await store.add_blob(digest, len(body))
            for number, start in enumerate(range(0, len(body), PIECE_BYTES)):
                await store.add_blob_piece(digest, number, body[start : start + PIECE_BYTES])


@contextmanager
def draft_cache(folder: Path) -> Iterator[GitCache]:
    """Yield an empty cache that is deleted afterwards."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".draft-", dir=folder) as place:
        cache = GitCache(Path(place) / "draft.git")
        try:
            yield cache
        finally:
            cache.close()


def add_pack(cache: GitCache, pack: memoryview) -> None:
    """Add a pack from memory; raise `InvalidInput` if it is broken."""
    with tempfile.TemporaryFile() as file:
        _write(file, pack)
        try:
            cache.add_pack(_CACHE_PACK, file)
        except Exception as error:
            raise InvalidInput(f"The git pack is broken: {error!r:.200}") from error


def _write(file: IO[bytes], pack: memoryview) -> None:
    file.write(pack)
    file.seek(0)
