"""Who wrote each line: through merges, moves and cherry-picks.

    blame = Blame(graph)
    lines = await blame.of(revision, "a.txt")

A line belongs to the newest commit that has it and none of whose parents has. What a cherry-pick
brought belongs to the commit that was picked, so that it keeps its author and proposal.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from angelos.angelgit.changes.graph import CommitGraph
from angelos.angelgit.documents.canonical import is_text
from angelos.angelgit.documents.edits import lines
from angelos.angelgit.merge.attribution import Place, Sections, inherited, places, sections
from angelos.angelgit.threads import in_thread
from angelos.core.errors import InvalidInput, NotFound, TooLarge
from angelos.core.history import BlamedLines, CommitSummary
from angelos.core.ids import Revision
from angelos.core.revision_v2 import EntryMode, TrailerKey

MAX_BLAMED_BYTES = 4_000_000
MAX_STEPS = 20_000
"""Versions of the file that are compared at most."""


class BlamedFile(NamedTuple):
    """The lines of a file, with the commits that they name."""

    groups: list[BlamedLines]
    commits: dict[str, CommitSummary]


class _Origin(NamedTuple):
    """A file in a commit, for which some lines still look for their writer."""

    commit: str
    path: str


class _Version(NamedTuple):
    digest: str
    file: Sections
    size: int


Waiting = dict[Place, Place]
"""Place in this version -> place in the file that is asked about."""


class Blame:
    """Answers for the files of one repository."""

    def __init__(self, graph: CommitGraph) -> None:
        self._graph = graph
        self._versions: dict[_Origin, _Version | None] = {}
        self._waiting: dict[_Origin, Waiting] = {}
        self._queue: list[tuple[int, int, _Origin]] = []
        self._answers: dict[Place, tuple[_Origin, Place]] = {}

    async def of(self, revision: Revision, path: str) -> BlamedFile:
        """Return who wrote the lines of a file of a revision.

        Raises:
            InvalidInput: it is no text.
            NotFound: there is no such file.
            TooLarge: it is too long, or its history is.
        """
        origin = _Origin(revision, path)
        version = await self._version(origin)
        if version is None:
            raise NotFound(f"There is no text {path!r} in revision {revision[:12]}.")
        await self._wait(origin, {place: place for place in places(version.file)})
        steps = 0
        while self._queue:
            _, _, origin = heapq.heappop(self._queue)
            if waiting := self._waiting.pop(origin, None):
                await self._step(origin, waiting)
            steps += 1
            if steps > MAX_STEPS:
                raise TooLarge(f"The history of {path} has over {MAX_STEPS} versions.")
        return await self._grouped(version.file)

    async def _wait(self, origin: _Origin, waiting: Mapping[Place, Place]) -> None:
        if not waiting:
            return
        if origin not in self._waiting:
            self._waiting[origin] = {}
            at = (await self._graph.commit(origin.commit)).at
            heapq.heappush(self._queue, (-at, len(self._answers), origin))
        self._waiting[origin] |= waiting

    async def _step(self, origin: _Origin, waiting: Waiting) -> None:
        """Hand the lines that a parent has to it, and keep the others."""
        version = await self._version(origin)
        assert version is not None  # noqa: S101 - only files that are there wait
        commit = await self._graph.commit(origin.commit)
        earlier = [e for p in commit.parents if (e := await self._in_parent(p, origin))]
        for parent in earlier:
            before = await self._version(parent)
            if before is not None and before.digest == version.digest:
                await self._wait(parent, waiting)
                return
        if picked := commit.trailer(TrailerKey.picked_from):
            earlier += [_Origin(picked, origin.path)]
        for parent in earlier:
            waiting = await self._pass_on(parent, version, waiting)
        self._answers |= {final: (origin, place) for place, final in waiting.items()}

    async def _pass_on(self, parent: _Origin, version: _Version, waiting: Waiting) -> Waiting:
        """Let lines wait in an earlier version that has them; return the rest."""
        before = await self._version(parent)
        if before is None or not waiting:
            return waiting
        pairs = await in_thread(before.size + version.size, inherited, before.file, version.file)
        passed = {pairs[place]: final for place, final in waiting.items() if place in pairs}
        await self._wait(parent, passed)
        return {place: final for place, final in waiting.items() if place not in pairs}

    async def _in_parent(self, parent: str, origin: _Origin) -> _Origin | None:
        if await self._graph.entry(parent, origin.path) is not None:
            return _Origin(parent, origin.path)
        path = await self._graph.moved_from(parent, origin.commit, origin.path)
        return _Origin(parent, path) if path else None

    async def _version(self, origin: _Origin) -> _Version | None:
        """Return a text in a commit, None if there is none or it is none."""
        if origin not in self._versions:
            self._versions[origin] = await self._read(origin)
        return self._versions[origin]

    async def _read(self, origin: _Origin) -> _Version | None:
        try:
            entry = await self._graph.entry(*origin)
        except NotFound:  # what was picked is collected since
            return None
        if entry is None or entry.mode is EntryMode.symlink:
            return None
        if entry.size > MAX_BLAMED_BYTES:
            raise TooLarge(f"{origin.path} has {entry.size} bytes; blame takes less.")
        body = await self._graph.content(entry)
        if not is_text(body):
            if self._answers or self._waiting:
                return None
            raise InvalidInput(f"{origin.path} is no text.")
        text = await in_thread(len(body), sections, origin.path, body.decode())
        return _Version(entry.sha256, text, len(body))

    async def _grouped(self, file: Sections) -> BlamedFile:
        """Return neighbouring lines of one commit together."""
        groups: list[BlamedLines] = []
        rows = {cell: lines(source) for cell, source in file.items()}

        def key(item: tuple[int, Place]) -> tuple[str, str, str, int]:
            index, place = item
            origin, (_, line) = self._answers[place]
            return (place[0], origin.commit, origin.path, line - index)

        for (cell, commit, path, _), run in groupby(enumerate(places(file)), key):
            own = [place for _, place in run]
            groups.append(
                BlamedLines(
                    commit=commit,
                    cell=cell,
                    start=own[0][1] + 1,
                    path=path,
                    first=self._answers[own[0]][1][1] + 1,
                    lines=tuple(rows[cell][line] for _, line in own),
                )
            )
        commits = {g.commit: await self._graph.commit(g.commit) for g in groups}
        return BlamedFile(groups, commits)
