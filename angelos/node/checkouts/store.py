"""Revisions on this node's disk: fetched, verified, read-only, one of them current.

    <dir>/checkouts/<repo>/<revision>/...        the files, 0444 or 0555
    <dir>/checkouts/<repo>/<revision>.manifest   the `lstat` of each file when it was verified,
                                                 and the directory objects of its tree
    <dir>/checkouts/<repo>/current               link to the revision in force

A revision appears whole or not at all (written beside, synced, renamed). Only what differs from
the current revision is fetched; the rest is copied from there, if nobody has touched it. Signature
and hashes are checked before a byte is written. On each later use the manifest shows whether a file
was changed since; if so, the revision is fetched again. The inode's change time is part of it,
because a program can set back the modification time but not that (inode(7)).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import InvalidInput, NotFound, Tampered
from angelos.core.ids import Revision, is_revision
from angelos.core.revision import Bundle, KnownObjects, VerifiedRevision, verify_bundle
from angelos.core.revision_v2 import EntryMode, TreeEntry
from angelos.core.signing import VerifyKey

log = logging.getLogger(__name__)
FetchBundle = Callable[[str, Revision, Revision | None], Awaitable[Bundle]]
"""(Repository, revision, a revision that the node has) -> what it lacks."""
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILE, _PROGRAM, _FOLDER = 0o444, 0o555, 0o555


class FileStat(msgspec.Struct, frozen=True, array_like=True):
    """The `lstat` of one file when its content was verified."""

    path: str
    size: int
    mode: int
    inode: int
    changed_ns: int


class Manifest(msgspec.Struct, frozen=True):
    """What was verified of a revision."""

    stats: tuple[FileStat, ...]
    entries: tuple[TreeEntry, ...]
    objects: dict[str, bytes]
    """Its directory objects by hash."""


class Checkouts:
    """The revisions of all repositories on one node."""

    def __init__(
        self, directory: Path, key: VerifyKey, fetch_bundle: FetchBundle, keep: int = 4
    ) -> None:
        """Keep revisions in `directory`.

        Args:
            directory: the node's own folder.
            key: AngelGit's public key, which every revision must be signed with.
            fetch_bundle: fetches a revision from the hub.
            keep: how many revisions stay beside the current one.
        """
        self._root = directory / "checkouts"
        self._key = key
        self._fetch = fetch_bundle
        self._keep = keep
        self._used: Counter[Path] = Counter()
        self._locks: dict[str, asyncio.Lock] = {}

    def sweep(self) -> None:
        """Remove the unfinished revisions of a node that was killed."""
        _remove_all(list(self._root.glob("*/.new-*")))

    @contextlib.asynccontextmanager
    async def use(self, repo: str, revision: Revision) -> AsyncIterator[Path]:
        """Yield the folder of a verified revision, which is not removed while it is in use.

        Raises:
            Tampered: a hash or the signature of the bundle does not match.
            InvalidInput: the name is not one of a repository or revision, or the bundle is bad.
            NotFound: the hub has no such revision.
            Unavailable: the hub cannot be reached.
        """
        path = self._path(repo, revision)
        self._used[path] += 1
        try:
            async with self._locks.setdefault(repo, asyncio.Lock()):
                if not await asyncio.to_thread(untouched, path):
                    await self._pull(repo, revision, path)
            yield path
        finally:
            self._used[path] -= 1
            if not self._used[path]:
                del self._used[path]

    async def _pull(self, repo: str, revision: Revision, path: Path) -> None:
        """Fetch, verify and write a revision: what the current one lacks, else all of it."""
        have, base = await asyncio.to_thread(self._base, repo, revision)
        if have is not None and base is not None:
            try:
                await self._pull_beside(repo, revision, path, have, base)
            except Tampered as error:
                log.warning("%s; all of %s is fetched", error, revision[:12])
            else:
                return
        await self._write(repo, revision, path, await self._fetch(repo, revision, None))

    async def _pull_beside(
        self, repo: str, revision: Revision, path: Path, have: Revision, base: Manifest
    ) -> None:
        bundle = await self._fetch(repo, revision, have)
        folder = self._path(repo, have)
        copies = {entry.sha256: folder / entry.path for entry in base.entries}
        if bundle.have != have:
            base, copies = Manifest((), (), {}), {}
        await self._write(repo, revision, path, bundle, base.objects, copies)

    async def _write(
        self,
        repo: str,
        revision: Revision,
        path: Path,
        bundle: Bundle,
        objects: Mapping[str, bytes] | None = None,
        copies: Mapping[str, Path] | None = None,
    ) -> None:
        copies = copies or {}
        known = KnownObjects(objects or {}, copies.keys())
        verified = await asyncio.to_thread(verify_bundle, self._key, bundle, revision, known)
        if verified.commit.repo != repo:
            raise InvalidInput(f"{revision[:12]} is a revision of another repository.")
        await asyncio.to_thread(write, path, verified, bundle.blobs, copies)

    def _base(self, repo: str, revision: Revision) -> tuple[Revision | None, Manifest | None]:
        """Return the current revision with its manifest, if nobody has touched it."""
        current = self.current(repo)
        if current is None or current == revision:
            return None, None
        path = self._path(repo, current)
        manifest = _read_manifest(path)
        return (current, manifest) if manifest and untouched(path) else (None, None)

    def current(self, repo: str) -> Revision | None:
        """Return the revision in force, or None."""
        try:
            name = (self._folder(repo) / "current").readlink().name
        except (OSError, InvalidInput):
            return None
        return Revision(name) if is_revision(name) else None

    async def switch(self, repo: str, revision: Revision) -> None:
        """Put a checked-out revision in force, and remove old ones that are not in use."""
        if not self._path(repo, revision).is_dir():
            raise NotFound(f"{revision[:12]} of {repo} is not checked out.")
        await asyncio.to_thread(_point, self._folder(repo), revision)
        async with self._locks.setdefault(repo, asyncio.Lock()):
            old = self._old(repo)
            await asyncio.to_thread(_remove_all, old)

    def _old(self, repo: str) -> list[Path]:
        """Return the revisions to remove: not current, not in use, not among the newest."""
        current = self.current(repo)
        folders = [path for path in self._folder(repo).iterdir() if is_revision(path.name)]
        folders.sort(key=lambda path: path.stat().st_ctime_ns, reverse=True)
        idle = [path for path in folders if path.name != current and path not in self._used]
        return idle[self._keep :]

    def _folder(self, repo: str) -> Path:
        if not _REPO.fullmatch(repo):
            raise InvalidInput(f"{repo!r} is not the name of a repository.")
        return self._root / repo

    def _path(self, repo: str, revision: Revision) -> Path:
        if not is_revision(revision):
            raise InvalidInput(f"{revision!r} is not a revision.")
        return self._folder(repo) / revision


def write(
    path: Path,
    verified: VerifiedRevision,
    blobs: Mapping[str, bytes],
    copies: Mapping[str, Path],
) -> None:
    """Write a tree to `path`, whole or not at all, in place of what was there.

    Args:
        path: the folder.
        verified: what is to be there.
        blobs: SHA-256 -> content, of those that were fetched.
        copies: SHA-256 -> file of another revision that holds the content.

    Raises:
        Tampered: a file of the other revision was changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=path.parent))
    try:
        for entry in verified.entries:
            target = fresh / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            content = blobs.get(entry.sha256)
            if content is None:
                content = _copied(copies[entry.sha256], entry)
            if entry.mode is EntryMode.symlink:
                target.symlink_to(content.decode())
            else:
                program = entry.mode is EntryMode.executable
                _write_file(target, content, _PROGRAM if program else _FILE)
        folders = [fresh, *(p for p in fresh.rglob("*") if p.is_dir() and not p.is_symlink())]
        for folder in folders:
            folder.chmod(_FOLDER)
            _sync(folder)
        manifest = Manifest(tuple(scan(fresh)), verified.entries, verified.objects)
        _remove_all([path])  # whatever it is, perhaps a broken link
        fresh.rename(path)
    except BaseException:
        _remove_all([fresh])
        raise
    # The manifest comes last: a revision without one counts as changed and is fetched again.
    target = _manifest(path)
    part = target.with_suffix(".part")
    part.write_bytes(msgspec.msgpack.encode(manifest))
    _sync(part)
    part.rename(target)
    _sync(path.parent)


def _copied(source: Path, entry: TreeEntry) -> bytes:
    """Return the content of a file of another revision, checked again as it is read."""
    try:
        link = source.is_symlink()
        content = str(source.readlink()).encode() if link else source.read_bytes()
    except OSError as error:
        raise Tampered(f"{entry.path} of the current revision cannot be read.") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise Tampered(f"{entry.path} of the current revision was changed.")
    return content


def scan(path: Path) -> list[FileStat]:
    """Return the `lstat` of every file below `path`, sorted."""
    stats = []
    for folder, names, files in os.walk(path):
        for name in (*files, *(n for n in names if Path(folder, n).is_symlink())):
            full = Path(folder, name)
            info = full.lstat()
            relative = full.relative_to(path).as_posix()
            stats.append(
                FileStat(relative, info.st_size, info.st_mode, info.st_ino, info.st_ctime_ns)
            )
    return sorted(stats, key=lambda stat: stat.path)


def untouched(path: Path) -> bool:
    """Return whether a revision is there and unchanged since it was verified."""
    manifest = _read_manifest(path)
    if manifest is None:
        return False
    same = path.is_dir() and not path.is_symlink() and scan(path) == list(manifest.stats)
    if not same:
        log.warning("%s was changed since it was verified; it is fetched again", path)
    return same


def _read_manifest(path: Path) -> Manifest | None:
    try:
        return msgspec.msgpack.decode(_manifest(path).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def _manifest(path: Path) -> Path:
    return path.with_name(f"{path.name}.manifest")


def _write_file(target: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(target, flags, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), mode)
        os.fsync(file.fileno())


def _point(folder: Path, revision: Revision) -> None:
    """Set `current` in one step; the name is unique, and swept if the node dies here."""
    fresh = folder / f".new-current-{secrets.token_hex(8)}"
    fresh.symlink_to(revision)
    fresh.rename(folder / "current")
    _sync(folder)


def _remove_all(paths: list[Path]) -> None:
    """Remove read-only trees with their manifests."""
    for path in paths:
        _manifest(path).unlink(missing_ok=True)
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
            continue
        remove_tree(path)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
