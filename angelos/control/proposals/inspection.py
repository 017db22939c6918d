"""Looks at a candidate before its tests: the rules of the gate, what is risky, what is re-run.

Each member of a batch is looked at by itself, against `main` and the members before it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from angelos.control.gate.checker import check_patch
from angelos.control.gate.coverage import CoverageReader
from angelos.control.gate.inspect import Patch, PatchedFile
from angelos.control.gate.judges import is_test
from angelos.control.gate.notebooks import dropped_outputs, stale_cells
from angelos.control.proposals.repo_config import RepoConfig
from angelos.control.proposals.risk import (
    added_texts,
    change_factors,
    dropped_factor,
    sentinel_factor,
    uncovered_factor,
    unscored_factor,
)
from angelos.core.errors import AngelError, NotFound
from angelos.core.findings import GateFinding, RiskFactor
from angelos.core.ids import Revision
from angelos.core.ports import PatchScorer, Repository
from angelos.core.repository import Candidate, CandidateMember, Change
from angelos.core.revision_v2 import EntryMode, TreeEntry

_REGULAR = (EntryMode.file, EntryMode.executable)


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen in one member of a candidate."""

    findings: tuple[GateFinding, ...]
    """What a person has to look at before it may become `main`."""
    factors: tuple[RiskFactor, ...]
    fresh: dict[str, tuple[str, ...]]
    """Cells of the notebooks that steps re-run, from the first that is another than `main`'s."""


class CandidateReader:
    """Reads the members of a candidate, the first one first."""

    def __init__(
        self,
        repository: Repository,
        repo: str,
        config: RepoConfig,
        coverage: CoverageReader,
        scorer: PatchScorer | None = None,
    ) -> None:
        self._repository = repository
        self._repo = repo
        self._config = config
        self._coverage = coverage
        self._scorer = scorer
        self._entries: dict[str, TreeEntry] = {}
        self._before = Revision("")

    async def begin(self, candidate: Candidate) -> None:
        """Read the `main` that the candidate was made from."""
        rows = await self._repository.tree(self._repo, candidate.main)
        self._entries = {entry.path: entry for entry in rows}
        self._before = candidate.main

    async def inspect(self, member: CandidateMember, *, program: bool) -> Inspection:
        """Return what is to be seen in the next member.

        Args:
            member: It.
            program: Whether an agent or code in a kernel proposed it.
        """
        before, old = self._before, self._entries
        new = await self._after(member)
        files = tuple(
            [
                PatchedFile(
                    path=change.path,
                    before=await self._content(before, old, change.path),
                    after=await self._content(member.commit, new, change.path),
                    plain=_plain(old.get(change.path), new.get(change.path)),
                )
                for change in member.changes
            ]
        )
        config = self._config
        findings = await check_patch(
            Patch(
                files=files,
                present=tuple(old),
                agent=program,
                programs=config.programs,
                notebooks=config.notebooks,
                judges=config.judging_notebooks,
                doctested=config.doctested,
            )
        )
        rerun = {f.path: f for f in files if f.path in config.notebooks and f.after is not None}
        fresh = {path: stale_cells(f.before, f.after or b"") for path, f in rerun.items()}
        lost = sum(
            dropped_outputs(f.before, f.after)
            for f in files
            if f.path.endswith(".ipynb") and f.before and f.after and f.path not in rerun
        )
        factors = [*change_factors(member.changes), *dropped_factor(lost)]
        factors += await self._uncovered(member.commit, new, member.changes)
        factors += await self._unlike(member.changes)
        self._before, self._entries = member.commit, new
        return Inspection(
            findings=findings,
            factors=tuple(factors),
            fresh={path: cells for path, cells in fresh.items() if cells},
        )

    async def _after(self, member: CandidateMember) -> dict[str, TreeEntry]:
        """Return the entries with a member; only what it changes is read."""
        entries = dict(self._entries)
        rows = await self._repository.entries(
            self._repo, member.commit, [change.path for change in member.changes]
        )
        for change in member.changes:
            entries.pop(change.path, None)
        return entries | rows

    async def _content(
        self, revision: Revision, tree: Mapping[str, TreeEntry], path: str
    ) -> bytes | None:
        return await self._repository.read(self._repo, revision, path) if path in tree else None

    async def _uncovered(
        self, revision: Revision, tree: Mapping[str, TreeEntry], changes: tuple[Change, ...]
    ) -> list[RiskFactor]:
        """Return that code was changed which no test imports, if so."""
        code = [
            change.path
            for change in changes
            if change.after is not None and change.path.endswith(".py")
            if not is_test(change.path) and change.path not in self._config.doctested
        ]
        tests = [e for e in tree.values() if is_test(e.path) and e.path.endswith(".py")]
        if not code:
            return []

        async def read(entry: TreeEntry) -> bytes:
            try:
                return await self._repository.read(self._repo, revision, entry.path)
            except NotFound:
                return b""

        uncovered = await self._coverage.uncovered(code, tests, read)
        return [] if uncovered is None else uncovered_factor(uncovered)

    async def _unlike(self, changes: tuple[Change, ...]) -> list[RiskFactor]:
        """Return how unlike approved history the added lines are, if there is a model that says."""
        texts = added_texts(changes)
        if self._scorer is None or not texts:
            return []
        try:
            score = await self._scorer.score(tuple(texts.values()))
        except AngelError as error:
            return [unscored_factor(error.detail)]
        return [] if score is None else [sentinel_factor(tuple(texts), score)]


def _plain(before: TreeEntry | None, after: TreeEntry | None) -> bool:
    """Return whether a path is a plain file that did not become executable."""
    if after is None:
        return True
    was_executable = before is not None and before.mode is EntryMode.executable
    return after.mode in _REGULAR and (was_executable or after.mode is not EntryMode.executable)
