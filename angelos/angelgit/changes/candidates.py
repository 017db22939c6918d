"""What `main` may become: candidates (main and one proposal) and rollbacks.

A candidate is the union of main's document, the base's, and the proposal's update. So it holds
exactly `main` and the proposal if the base is an ancestor of `main`. If the base holds edits of a
proposal that was since taken out of `dev`, the inverse update is added. Each step is checked
against the merge of the texts (`merge/rebase.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import msgspec

from angelos.angelgit.documents import crdt
from angelos.angelgit.merge import rebase
from angelos.angelgit.merge.conflicts import ConflictKind, evidence, file_conflict
from angelos.angelgit.storage.models import (
    FileState,
    Manifest,
    PathChange,
    PathOp,
    PreparedProposal,
    ProposalStatus,
    StoredProposal,
    sha256,
)
from angelos.angelgit.storage.store import Store
from angelos.angelgit.storage.trees import RollbackStep, by_path, path_clash
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Stale

_HISTORY = 200
"""How many commits of `main` are searched for a merge base of `main` and a base on `dev`."""
_REFUSALS = {
    ConflictKind.file_recreated: "was recreated on main",
    ConflictKind.file_deleted: "was deleted on main",
    ConflictKind.path_blocked: "cannot be created on main beside {detail}",
    ConflictKind.path_taken: "is on main already",
    ConflictKind.deleted_file_changed: "changed on main",
    ConflictKind.file_rewritten: "was rewritten on main",
}


class MergedFile(NamedTuple):
    """A file of a new `main`, with the blobs that it needs."""

    file: FileState
    blobs: tuple[bytes, ...]
    update: bytes = b""


async def merge_into_main(
    store: Store, stored: StoredProposal, main: Manifest
) -> tuple[list[MergedFile], set[str]]:
    """Return the files that a proposal writes on `main`, and the documents that it deletes.

    Raises:
        Stale: the result would not be the line merge of the texts.
    """
    files: list[MergedFile] = []
    deleted: set[str] = set()
    present = by_path(main)
    for rebased in await rebase_paths(store, stored, main):
        change = rebased.change
        file = present.get(change.path)
        if change.op is PathOp.delete:
            deleted |= {file.document} if file else set()
            continue
        if rebased.rewritten and stored.status is ProposalStatus.merged:
            # `dev` has the proposal's own update already, and would not contain another one.
            raise _stale(change.path, ConflictKind.file_rewritten, texts=rebased.texts)
        state = rebased.state or crdt.EMPTY
        mode = file.mode if file else change.mode
        args = (change.path, state, change.update, mode, change.document)
        files.append(await in_thread(len(state), _merge_file, *args))
    return files, deleted


class RebasedPath(NamedTuple):
    """A change of a proposal whose update gives the expected text on `main`."""

    change: PathChange
    state: bytes | None
    """What it is rebased onto: `main`, and what the base has beyond it."""
    rewritten: bool = False
    """The update is not the prepared one."""
    texts: tuple[str, str, str] = ("", "", "")
    """Of a rewritten one: base, main's and proposed text."""


async def rebase_paths(store: Store, stored: StoredProposal, main: Manifest) -> list[RebasedPath]:
    """Return a proposal's changes rebased onto `main`; raise `Stale` if one conflicts."""
    _, base = await store.commit(stored.record.repo, stored.record.base)
    present, old = by_path(main), by_path(base)
    return [
        await _rebase_path(store, stored, change, present, old.get(change.path))
        for change in stored.record.paths
    ]


async def _rebase_path(
    store: Store,
    stored: StoredProposal,
    change: PathChange,
    main: Mapping[str, FileState],
    base: FileState | None,
) -> RebasedPath:
    path = change.path
    file = main.get(path)
    await _check_path(store, change, main)
    if base is None or base.document != change.document:  # the proposal creates the file
        state = await store.blob(file.state) if file else None
        if state is not None and not crdt.contains(path, state, change.update):
            raise _stale(path, ConflictKind.path_taken)
        return RebasedPath(change, state)
    if file is None and change.op is PathOp.delete:
        return RebasedPath(change, None)
    state = await _new_base(store, stored.record.repo, change, file, base)
    before, after = await _texts(store, stored.record, path)
    if change.op is PathOp.delete:
        text = crdt.text_of(path, state or crdt.EMPTY)
        if text != before:
            raise _stale(path, ConflictKind.deleted_file_changed, texts=(before, text, ""))
        return RebasedPath(change, state)
    in_dev = stored.status is not ProposalStatus.proposed
    return await _rebase_edit(change, state, before, after, in_dev=in_dev)


async def _rebase_edit(
    change: PathChange, state: bytes | None, before: str, after: str, *, in_dev: bool
) -> RebasedPath:
    """Return an edit on `state` with an update that gives the expected text; see `onto_main`."""
    path, new_base = change.path, state or crdt.EMPTY
    onto_main = partial(rebase.onto_main, in_dev=in_dev)
    size = len(new_base) + len(before) + len(after)
    update = await in_thread(size, onto_main, path, new_base, change.update, before, after)
    if update == change.update:
        return RebasedPath(change, state)
    texts = (before, crdt.text_of(path, new_base), after)
    rewritten = msgspec.structs.replace(change, update=update, update_base=sha256(new_base))
    return RebasedPath(rewritten, state, rewritten=True, texts=texts)


async def _texts(store: Store, record: PreparedProposal, path: str) -> tuple[str, str]:
    """Return a file's text before and after a proposal, "" after its deletion."""
    shas = [side[path] for side in (record.before, record.after) if path in side]
    blobs = await store.blobs(shas)
    after = blobs[record.after[path]].decode() if path in record.after else ""
    return blobs[record.before[path]].decode(), after


async def _check_path(store: Store, change: PathChange, main: Mapping[str, FileState]) -> None:
    """Raise `Stale` if the path of a change is not free, or has another document, on `main`."""
    file = main.get(change.path)
    if file is not None:
        if file.document != change.document:
            raise _stale(change.path, ConflictKind.file_recreated)
        return
    if change.op is PathOp.delete:
        return
    if await store.was_on_main(change.document):
        raise _stale(change.path, ConflictKind.file_deleted)
    if blocker := path_clash(main, change.path):
        raise _stale(change.path, ConflictKind.path_blocked, blocker)


async def _new_base(
    store: Store, repo: str, change: PathChange, file: FileState | None, base: FileState
) -> bytes | None:
    """Return the state that a change is rebased onto; see `rebase.new_base`."""
    path = change.path
    states = await store.blobs([f.state for f in (file, base) if f])
    main_state, base_state = states[file.state] if file else None, states[base.state]
    reverted = await store.reverted_on(repo, change.document)
    # The edit that is being rebased must not be taken out of its own base.
    reverted = [edit for edit in reverted if edit.update != change.update]
    size = sum(map(len, states.values()))
    history: list[bytes] = []
    if main_state is not None and not await in_thread(
        size, crdt.contains, path, main_state, base_state
    ):
        history = await _states_on_main(store, repo, change.document)
    return await in_thread(size, rebase.new_base, path, main_state, base_state, history, reverted)


async def _states_on_main(store: Store, repo: str, document: str) -> list[bytes]:
    """Return the states that a document had on `main`, the newest first."""
    shas: list[str] = []
    for revision in await store.history(repo, await store.head(repo, "main"), _HISTORY):
        _, manifest = await store.commit(repo, revision)
        shas += [f.state for f in manifest if f.document == document and f.state not in shas]
    blobs = await store.blobs(shas)
    return [blobs[sha] for sha in shas]


def _merge_file(path: str, state: bytes, update: bytes, mode: int, document: str) -> MergedFile:
    return merged_file(crdt.union(path, state, update), path=path, mode=mode, document=document)


def merged_file(
    state: bytes, *, path: str, mode: int, document: str, update: bytes = b""
) -> MergedFile:
    """Return a file from its state; its content is what a fresh replay of the state gives."""
    content = crdt.text_of(path, state).encode()
    file = FileState(
        path=path,
        mode=mode,
        sha256=sha256(content),
        size=len(content),
        document=document,
        state=sha256(state),
    )
    return MergedFile(file, (content, state), update)


async def restored_file(store: Store, step: RollbackStep) -> MergedFile | None:
    """Return the file that a rollback writes on `main`; None if it deletes one."""
    if step.target is None or step.source is None:
        return None
    blobs = await store.blobs([step.source.state, step.target.sha256])
    state, content = blobs[step.source.state], blobs[step.target.sha256]
    return await in_thread(len(state) + len(content), _restore, step.target, state, content)


def _restore(target: FileState, state: bytes, content: bytes) -> MergedFile:
    text = content.decode()
    update = b""
    if crdt.text_of(target.path, state) != text:
        update = crdt.change(target.path, state, text)
        state = crdt.union(target.path, state, update)
    return merged_file(
        state, path=target.path, mode=target.mode, document=target.document, update=update
    )


def _stale(
    path: str, kind: ConflictKind, detail: str = "", texts: tuple[str, str, str] = ("", "", "")
) -> Stale:
    return Stale(
        f"{path} {_REFUSALS[kind].format(detail=detail)} since the base; nothing was merged.",
        hint="Make the change again on the present main.",
        conflicts=evidence([file_conflict(path, *texts, kind, detail)]),
    )
