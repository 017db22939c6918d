"""Pure decisions about trees: what a commit holds, and what a rollback changes.

>>> path_clash(["a/b.txt"], "a")
'a/b.txt'
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from angelos.angelgit.documents.edits import is_cut
from angelos.angelgit.storage.models import (
    FileState,
    Manifest,
    PathChange,
    PathOp,
    PreparedProposal,
)
from angelos.core.errors import InvalidInput
from angelos.core.repository import Change, Proposed
from angelos.core.revision import MAX_FILES

BESIDE = "A path is a file or a folder, not both."


def with_files(
    manifest: Manifest, put: Iterable[FileState], removed: Collection[str] = ()
) -> Manifest:
    """Return a manifest, sorted by path, with files put in and documents (by id) removed."""
    files = {f.path: f for f in manifest if f.document not in removed}
    files.update((f.path, f) for f in put)
    if len(files) > MAX_FILES:
        raise InvalidInput(f"A repository holds at most {MAX_FILES} files.")
    return tuple(files[path] for path in sorted(files))


def by_path(manifest: Manifest) -> dict[str, FileState]:
    """Return a manifest's files by path."""
    return {f.path: f for f in manifest}


def differing(
    before: Manifest, after: Manifest
) -> list[tuple[str, FileState | None, FileState | None]]:
    """Return (path, before, after) of every file that differs in content or mode."""
    old, new = by_path(before), by_path(after)
    rows = [(path, old.get(path), new.get(path)) for path in sorted({*old, *new})]
    return [
        (path, a, b)
        for path, a, b in rows
        if a is None or b is None or (a.sha256, a.mode) != (b.sha256, b.mode)
    ]


def path_clash(paths: Iterable[str], new: str) -> str | None:
    """Return a path that excludes `new`: a file that is one of its folders, or the reverse."""
    folders = {new[:i] for i, c in enumerate(new) if c == "/"}
    return next((p for p in paths if p in folders or p.startswith(new + "/")), None)


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


def proposed(record: PreparedProposal) -> Proposed:
    """Return a proposal as the port presents it."""
    changes = tuple(
        Change(
            path=change.path,
            before=record.before.get(change.path),
            after=record.after.get(change.path),
            diff=record.diffs.get(change.path, ""),
            cut=is_cut(record.diffs.get(change.path, "")),
        )
        for change in record.paths
    )
    return Proposed(
        id=record.id,
        repo=record.repo,
        base=record.base,
        author=record.author,
        message=record.message,
        digest=record.digest,
        changes=changes,
    )


class RollbackStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollback does to one path of `main`."""

    target: FileState | None
    """The file after the rollback; None: it is deleted."""
    source: FileState | None
    """The document's newest state on `main`, which is edited; None: it is deleted."""
    document: str
    path: str
    revived: bool = False
    """`main` no longer has this document."""


def plan_rollback(
    main: Manifest, target: Manifest, newest: Mapping[str, FileState]
) -> list[RollbackStep]:
    """Return the steps from `main` back to `target`, deletions first.

    A deleted file may free the path of one that is revived. `newest` maps each document of
    `target` that `main` no longer has to its last state there.
    """
    present = {f.document: f for f in main}
    restored = {f.document: f for f in target}
    plan = [
        RollbackStep(target=None, source=None, document=f.document, path=f.path)
        for f in main
        if f.document not in restored
    ]
    for f in target:
        now = present.get(f.document)
        if now is None or (now.path, now.mode, now.sha256) != (f.path, f.mode, f.sha256):
            plan.append(
                RollbackStep(
                    target=f,
                    source=now or newest[f.document],
                    document=f.document,
                    path=f.path,
                    revived=now is None,
                )
            )
    return plan


class AdvanceStep(msgspec.Struct, frozen=True, kw_only=True):
    """What a new revision of `main` does to one document."""

    before: FileState | None
    """None: it is created."""
    after: FileState | None
    """None: it is deleted."""

    @property
    def file(self) -> FileState:
        """The document as it is after the step, or was before its deletion."""
        file = self.after or self.before
        assert file is not None  # noqa: S101 - a step has one of them
        return file


def plan_advance(main: Manifest, candidate: Manifest) -> list[AdvanceStep]:
    """Return the documents that differ between `main` and a candidate, deletions first."""
    old, new = ({file.document: file for file in side} for side in (main, candidate))
    steps = [
        AdvanceStep(before=old.get(document), after=new.get(document))
        for document in {**old, **new}
        if old.get(document) != new.get(document)
    ]
    return sorted(steps, key=lambda step: (step.after is not None, step.file.path))


def dev_changes(
    plan: Sequence[RollbackStep], updates: Mapping[str, bytes], alive: Collection[str]
) -> tuple[PathChange, ...]:
    """Return the same changes for `dev`, which has the `alive` documents."""
    changes: list[PathChange] = []
    for step in plan:
        update = updates.get(step.document, b"")
        if step.target is None:
            if step.document in alive:
                changes.append(PathChange(path=step.path, document=step.document, op=PathOp.delete))
            continue
        # A document that only dev has deleted stays deleted there. It takes the edit all the same,
        # so that dev contains main: a later revert of the deletion shows the right text.
        revive = step.revived and step.document not in alive
        if not revive and not update:
            continue
        changes.append(
            PathChange(
                path=step.path,
                document=step.document,
                op=PathOp.revive if revive else PathOp.edit,
                update=update,
                mode=step.target.mode,
            )
        )
    return tuple(changes)
