"""A push: read, bounded, checked to be whole, and then each of its references on its own.

    refs/heads/<own branch>     moves to the pushed commit, also backwards; deleting it is allowed
    refs/for/main[/<topic>]     proposes for main what the pushed commit changed
    main, dev, proposals/...    refused, with what to do

The pushed commits stay as they are in git; the last of them gets a revision, whose tree is that of
the nearest commit with a revision and what git says that has changed since.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from dulwich.object_store import MissingObjectFinder
from dulwich.objects import ObjectID
from dulwich.pack import PackHint, write_pack_from_container

from angelos.angelgit.git.cache import GitCache
from angelos.angelgit.git.convert import GitFile, read_files
from angelos.angelgit.git.importing import draft_cache
from angelos.angelgit.git.objects import is_git_id
from angelos.angelgit.git.packs import check_pack
from angelos.angelgit.git.parse import RawCommit, parse_commit
from angelos.core.errors import InvalidInput, TooLarge

ZERO = "0" * 40
MAX_COMMANDS = 50
_MAX_STEPS = 20_000


class PushCommand(NamedTuple):
    """What a push wants of one reference."""

    before: str
    after: str
    """All zeros: it is deleted."""
    ref: bytes


class PushRequest(NamedTuple):
    """A push, its pack not looked at yet."""

    commands: tuple[PushCommand, ...]
    pack: bytes


class CheckedPush(NamedTuple):
    """What a push brings: whole, and nothing that it does not need."""

    pack: bytes
    """Empty where all of it is there already."""


def read_push(body: bytes) -> PushRequest:
    """Return the commands of a push, and its pack.

    Raises:
        InvalidInput: it is not in the protocol.
    """
    commands: list[PushCommand] = []
    place = 0
    while True:
        try:
            size = int(body[place : place + 4], 16)
        except ValueError as error:
            raise InvalidInput("This is no git push.") from error
        if size == 0:
            break
        line = body[place + 4 : place + size]
        if size <= 4 or len(line) != size - 4 or len(commands) >= MAX_COMMANDS:  # noqa: PLR2004
            raise InvalidInput(f"A push has at most {MAX_COMMANDS} references, each in one packet.")
        before, _, rest = line.partition(b"\0")[0].rstrip(b"\n").partition(b" ")
        after, _, ref = rest.partition(b" ")
        ids = [before.decode("ascii", "replace"), after.decode("ascii", "replace")]
        if not all(map(is_git_id, ids)) or not ref.startswith(b"refs/"):
            raise InvalidInput("A reference of the push cannot be read.")
        commands.append(PushCommand(ids[0], ids[1], ref))
        place += size
    return PushRequest(tuple(commands), body[place + 4 :])


def check_push(cache: GitCache, request: PushRequest, have: set[str], folder: Path) -> CheckedPush:
    """Return what a push brings that is not there; blocks.

    Args:
        cache: of the repository; nothing is written into it.
        request: the push.
        have: ids of commits that are there for good with all below them.
        folder: where a draft may lie meanwhile.

    Raises:
        InvalidInput: objects are missing or broken.
        TooLarge: they are over a bound.
    """
    wants = {c.after for c in request.commands if c.after != ZERO}
    if request.pack:
        check_pack(memoryview(request.pack))
    with draft_cache(folder) as draft:
        store = draft.repo.object_store
        store.add_alternate_path(str(cache.path / "objects"))
        if request.pack:
            with tempfile.TemporaryFile() as file:
                file.write(request.pack)
                file.seek(0)
                _take_in(draft, file)
        new = _needed(draft, wants, have)
        if not new:
            return CheckedPush(b"")
        with tempfile.TemporaryFile() as file:
            container, kind = draft.repo.object_store, draft.repo.object_format
            write_pack_from_container(
                file.write, container, new, object_format=kind, reuse_deltas=False
            )
            file.seek(0)
            return CheckedPush(file.read())


def _needed(
    draft: GitCache, wants: set[str], have: set[str]
) -> list[tuple[ObjectID, PackHint | None]]:
    """Return the objects below `wants` that are new; raise `InvalidInput` if one is missing.

    What only the cache has is new too: it is from what was collected since, or never stored.
    """
    store = draft.repo.object_store
    ids = [ObjectID(want.encode()) for want in sorted(wants)]
    known = [ObjectID(i.encode()) for i in sorted(have)]
    try:
        needed = list(MissingObjectFinder(store, haves=known, wants=ids))
    except Exception as error:  # dulwich raises whatever its parser met
        raise InvalidInput(f"The push is not whole: {error!r:.200}.") from error
    if absent := [sha for sha, _ in needed if sha not in store]:
        raise InvalidInput(f"The pushed object {absent[0].decode()[:12]} is missing.")
    return needed


def _take_in(draft: GitCache, file: IO[bytes]) -> None:
    try:
        draft.repo.object_store.add_thin_pack(file.read, None)
    except Exception as error:  # dulwich raises whatever its parser met
        raise InvalidInput(f"The git pack is broken: {error!r:.200}.") from error


class Ancestry(NamedTuple):
    """A pushed commit, and its nearest ancestor that has a revision."""

    commit: RawCommit
    base: str
    """Git id; empty: there is none."""


def ancestry(cache: GitCache, tip: str, is_base: Callable[[str], bool]) -> Ancestry:
    """Return a commit with the nearest of its ancestors, first parents first; blocks.

    Raises:
        InvalidInput: it is no commit.
        TooLarge: none is near.
    """
    raw = cache.read(tip)
    if raw.kind != "commit":
        raise InvalidInput("Only commits are pushed to branches.")
    commit = parse_commit(raw.body)
    waiting, reached = list(commit.parents), set(commit.parents)
    for parent in waiting:
        if is_base(parent):
            return Ancestry(commit, parent)
        for above in parse_commit(cache.read(parent).body).parents:
            if above not in reached:
                reached.add(above)
                waiting.append(above)
        if len(reached) > _MAX_STEPS:
            raise TooLarge(f"Over {_MAX_STEPS} commits lie between the push and what is here.")
    return Ancestry(commit, "")


def changed_files(cache: GitCache, before: str, after: str) -> dict[str, GitFile | None]:
    """Return path -> file of a tree where it differs from another, None: it is gone; blocks.

    Raises:
        Refused: something that is new cannot be kept; the message names it.
    """
    old = {} if not before else {file.path: file for file in read_files(cache, before)}
    new = {file.path: file for file in read_files(cache, after)}
    paths = old.keys() | new.keys()
    return {path: new.get(path) for path in sorted(paths) if old.get(path) != new.get(path)}
