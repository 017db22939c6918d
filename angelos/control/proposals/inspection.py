"""Has the rules of the gate look at a candidate: reads both sides of what it changes."""

from __future__ import annotations

from collections.abc import Mapping

from angelos.control.gate.checker import check_patch
from angelos.control.gate.inspect import Patch, PatchedFile
from angelos.control.proposals.repo_config import RepoConfig
from angelos.core.findings import GateFinding
from angelos.core.ids import PrincipalId, Revision
from angelos.core.ports import Repository
from angelos.core.repository import Candidate
from angelos.core.revision_v2 import EntryMode, TreeEntry


async def findings_of(
    repository: Repository, repo: str, author: PrincipalId, config: RepoConfig, candidate: Candidate
) -> tuple[GateFinding, ...]:
    """Return what a person has to look at before a candidate may become `main`.

    Args:
        repository: Where both revisions are.
        repo: The repository.
        author: Whose proposal it is.
        config: Of the `main` that the candidate was made from.
        candidate: What `main` would become.
    """
    old = {entry.path: entry for entry in await repository.tree(repo, candidate.main)}
    new = {entry.path: entry for entry in await repository.tree(repo, candidate.revision)}
    paths = sorted(path for path in old.keys() | new.keys() if old.get(path) != new.get(path))

    async def content(tree: Mapping[str, TreeEntry], revision: Revision, path: str) -> bytes | None:
        return await repository.read(repo, revision, path) if path in tree else None

    files = [
        PatchedFile(
            path=path,
            before=await content(old, candidate.main, path),
            after=await content(new, candidate.revision, path),
            plain=_plain(old.get(path), new.get(path)),
        )
        for path in paths
    ]
    return await check_patch(
        Patch(
            files=tuple(files),
            present=tuple(old),
            agent=author.startswith("agent/"),
            programs=config.programs,
            notebooks=config.notebooks,
            judges=config.judging_notebooks,
            doctested=config.doctested,
        )
    )


_REGULAR = (EntryMode.file, EntryMode.executable)


def _plain(before: TreeEntry | None, after: TreeEntry | None) -> bool:
    """Return whether a path is a plain file that did not become executable."""
    if after is None:
        return True
    was_executable = before is not None and before.mode is EntryMode.executable
    return after.mode in _REGULAR and (was_executable or after.mode is not EntryMode.executable)
