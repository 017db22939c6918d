r"""The bare git repository on disk in which a repository's git objects lie, ready to be served.

    cache = GitCache(Path("git/study.git"))
    cache.add([git_object("blob", b"hello\n")])
    cache.read(commit).body

All of it can be made again from PostgreSQL: revisions by deriving, what came from git from the
packs in which it came. Everything here blocks; callers use threads. What is in the store is there
with all that it names: objects are added in that order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from dulwich.object_store import MissingObjectFinder
from dulwich.objects import ObjectID, ShaFile, object_class
from dulwich.pack import write_pack_from_container
from dulwich.repo import Repo as GitRepository

from angelos.angelgit.git.objects import GitObject
from angelos.core.errors import Tampered

_LOOSE = 40
"""So many objects are written one by one; more become a pack."""
_PACKS = "angelos-packs"
_FORMAT = "1"


class RawObject(NamedTuple):
    """An object as git has it."""

    kind: str
    body: bytes


class GitCache:
    """One bare repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._repo: GitRepository | None = None

    @property
    def repo(self) -> GitRepository:
        """The repository, made on first use."""
        if self._repo is None:
            if not (self.path / "HEAD").exists():
                self._create()
            self._repo = GitRepository(str(self.path))
        return self._repo

    def close(self) -> None:
        """Close its files."""
        if self._repo is not None:
            self._repo.close()
            self._repo = None

    def remove(self) -> None:
        """Delete it; it is made again on the next use."""
        self.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def has(self, identifier: str) -> bool:
        """Return whether an object is there."""
        return ObjectID(identifier.encode()) in self.repo.object_store

    def read(self, identifier: str) -> RawObject:
        """Return an object.

        Raises:
            Tampered: it is not there, or is not what its id names.
        """
        try:
            file = self.repo.object_store[ObjectID(identifier.encode())]
        except (KeyError, ValueError, OSError) as error:
            raise Tampered(f"The git object {identifier[:12]} cannot be read.") from error
        return RawObject(file.type_name.decode(), file.as_raw_string())

    def add(self, objects: Sequence[GitObject]) -> None:
        """Add objects, whose ids their maker computed."""
        files: list[tuple[ShaFile, str | None]] = []
        for item in objects:
            kind = object_class(item.kind.encode())
            assert kind is not None  # noqa: S101 - one of the four
            files.append((ShaFile.from_raw_string(kind.type_num, item.body), None))
        if len(files) <= _LOOSE:
            for file, _ in files:
                self.repo.object_store.add_object(file)
        else:
            self.repo.object_store.add_objects(files)

    def add_pack(self, number: int, source: IO[bytes]) -> None:
        """Add a whole pack that came from git, and remember its number."""
        file, commit, abort = self.repo.object_store.add_pack()
        try:
            shutil.copyfileobj(source, file)
        except BaseException:
            abort()
            raise
        commit()
        numbers = {*self.packs(), number}
        text = "\n".join([_FORMAT, *map(str, sorted(numbers))])
        (self.path / _PACKS).write_text(text, encoding="ascii")

    def check_whole(self, wants: set[str]) -> None:
        """Raise `Tampered` unless objects are there with all that they need."""
        ids = [ObjectID(want.encode()) for want in sorted(wants)]
        store = self.repo.object_store
        try:
            needed = [sha for sha, _ in MissingObjectFinder(store, haves=[], wants=ids)]
            missing = next((sha for sha in needed if sha not in store), None)
        except Exception as error:  # dulwich raises whatever its parser met
            raise Tampered(f"{error!r:.200} is missing or broken.") from error
        if missing is not None:
            raise Tampered(f"The object {missing.decode()[:12]} is missing.")

    def packs(self) -> set[int]:
        """Return the numbers of the packs that were added."""
        with contextlib.suppress(OSError, ValueError):
            return set(map(int, (self.path / _PACKS).read_text(encoding="ascii").split()[1:]))
        return set()

    def write_bundle(self, target: IO[bytes], refs: Mapping[bytes, str]) -> None:
        """Write a git bundle (format 2) of references and all that they need."""
        target.write(b"# v2 git bundle\n")
        rows = {b"HEAD": refs[b"refs/heads/main"], **refs}
        for name, identifier in rows.items():
            target.write(b"%s %s\n" % (identifier.encode(), name))
        target.write(b"\n")
        self.write_pack(target, set(rows.values()))

    def write_pack(self, target: IO[bytes], wants: set[str]) -> None:
        """Write a pack of objects and all that they need."""
        store = self.repo.object_store
        ids = [ObjectID(want.encode()) for want in sorted(wants)]
        finder = MissingObjectFinder(store, haves=[], wants=ids)
        write_pack_from_container(
            target.write, store, list(finder), object_format=self.repo.object_format
        )

    def _create(self) -> None:
        """Make an empty repository; a kill leaves nothing half made under its name."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        GitRepository.init_bare(str(draft), default_branch=b"main").close()
        shutil.rmtree(self.path, ignore_errors=True)
        draft.rename(self.path)
