"""What `main` may become: candidates (main + one proposal) and rollbacks.

A candidate is the union of main's document, the base's and the proposal's update, so it holds
exactly `main` and the proposal when the base is an ancestor of `main`. Where the base holds
edits of a proposal that was since taken out of `dev`, the update that took it out is added.
Each step is held against the merge of the texts (`fit.py`).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec

from angelos.angelgit.documents import documents
from angelos.angelgit.merge import rebase
from angelos.angelgit.merge.conflicts import evidence, file_conflict
from angelos.angelgit.storage.models import FileState, Manifest, PathChange, sha256
from angelos.angelgit.storage.store import Store, StoredProposal
from angelos.angelgit.storage.trees import RollbackStep, by_path, clash
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Stale

_HISTORY = 200
"""So far back is looked for what a base on `dev` and `main` have in common."""


class MergedFile(NamedTuple):
    """A file of a new `main` and the blobs that it needs."""

    file: FileState
    blobs: tuple[bytes, ...]
    update: bytes = b""


async def merge_into_main(
    store: Store, stored: StoredProposal, main: Manifest
) -> tuple[list[MergedFile], set[str]]:
    """Return the files that a proposal puts onto `main`, and the documents it takes away.

    Raises `Stale` where the result would not be the line merge of the texts.
    """
    put: list[MergedFile] = []
    gone: set[str] = set()
    have = by_path(main)
    for fitted in await rebase_paths(store, stored, main):
        change, now = fitted.change, have.get(fitted.change.path)
        if change.op == "delete":
            gone |= {now.document} if now else set()
            continue
        if fitted.anew:
            # Its own update is in `dev` by now, so it cannot be another one here.
            raise _stale(change.path, "is laid out in another way on main", fitted.texts)
        mode = now.mode if now else change.mode
        state = fitted.state or documents.EMPTY
        put.append(
            await in_thread(
                len(state), _merge_file, change.path, state, change.update, mode, change.document
            )
        )
    return put, gone


class RebasedPath(NamedTuple):
    """A path of a proposal with the update that gives the expected text on `main`."""

    change: PathChange
    state: bytes | None
    """What it is put onto: `main`, with what the base holds beyond it."""
    anew: bool = False
    texts: tuple[str, str, str] = ("", "", "")
    """Base, main and proposed text, where the update was made anew."""


async def rebase_paths(store: Store, stored: StoredProposal, main: Manifest) -> list[RebasedPath]:
    """Return a proposal's paths as they go onto `main`; raise `Stale` if one cannot."""
    _, base = await store.commit(stored.record.repo, stored.record.base)
    have, old = by_path(main), by_path(base)
    return [
        await _rebase_path(store, stored, change, have, old.get(change.path))
        for change in stored.record.paths
    ]


async def _rebase_path(  # noqa: C901 - one path's cases, in their order
    store: Store,
    stored: StoredProposal,
    change: PathChange,
    have: dict[str, FileState],
    base: FileState | None,
) -> RebasedPath:
    record, path, now = stored.record, change.path, have.get(change.path)
    if now is not None and now.document != change.document:
        raise _stale(path, "was made anew on main")
    if now is None and change.op != "delete":
        if await store.was_on_main(change.document):
            raise _stale(path, "was deleted on main")
        if other := clash(have, path):
            raise _stale(path, f"cannot be made on main beside {other}")
    if base is None or base.document != change.document:  # the proposal makes the file
        state = await store.blob(now.state) if now else None
        if state is not None and not documents.holds(path, state, change.update):
            raise _stale(path, "is there on main already")
        return RebasedPath(change, state)
    if now is None and change.op == "delete":
        return RebasedPath(change, None)
    states = await store.blobs([f.state for f in (now, base) if f])
    mine, ours = states[base.state], states[now.state] if now else None
    undone = await store.reverted_on(record.repo, change.document)
    undone = [one for one in undone if one.update != change.update]
    size = sum(map(len, states.values()))
    older: list[bytes] = []
    if now is not None and not await in_thread(size, documents.holds, path, ours, mine):
        older = await _older(store, record.repo, change.document)
    state = await in_thread(size, rebase.new_base, path, ours, mine, older, undone)
    shas = [side[path] for side in (record.before, record.after) if path in side]
    blobs = await store.blobs(shas)
    before = blobs[record.before[path]].decode()
    if change.op == "delete":
        text = documents.text_of(path, state or documents.EMPTY)
        if text != before:
            raise _stale(path, "changed on main", (before, text, ""))
        return RebasedPath(change, state)
    after = blobs[record.after[path]].decode()
    args = (path, state or documents.EMPTY, change.update, before, after)
    known = stored.state != "proposed"
    update = await in_thread(size, partial(rebase.onto_main, known=known), *args)
    if update == change.update:
        return RebasedPath(change, state)
    text = documents.text_of(path, state or documents.EMPTY)
    anew = msgspec.structs.replace(change, update=update, made_on=sha256(state or documents.EMPTY))
    return RebasedPath(anew, state, anew=True, texts=(before, text, after))


async def _older(store: Store, repo: str, document: str) -> list[bytes]:
    """Return the states that a document had on `main`, newest first."""
    shas: list[str] = []
    for revision in await store.history(repo, await store.head(repo, "main"), _HISTORY):
        _, manifest = await store.commit(repo, revision)
        shas += [f.state for f in manifest if f.document == document and f.state not in shas]
    blobs = await store.blobs(shas)
    return [blobs[sha] for sha in shas]


def _merge_file(path: str, state: bytes, update: bytes, mode: int, document: str) -> MergedFile:
    state = documents.union(path, state, update)
    return file_from_state(state, path=path, mode=mode, document=document)


def file_from_state(
    state: bytes, *, path: str, mode: int, document: str, update: bytes = b""
) -> MergedFile:
    """Return a file from its state; what is kept is what a fresh replay gave."""
    content = documents.text_of(path, state).encode()
    file = FileState(
        path=path,
        mode=mode,
        sha256=sha256(content),
        size=len(content),
        document=document,
        state=sha256(state),
    )
    return MergedFile(file, (content, state), update)


async def rewind(store: Store, step: RollbackStep) -> MergedFile | None:
    """Return the file that a rollback puts onto `main`, with the update that leads to it."""
    if step.target is None or step.source is None:
        return None
    shas = [step.source.state, step.target.sha256]
    blobs = await store.blobs(shas)
    state, wanted = blobs[shas[0]], blobs[shas[1]]
    return await in_thread(len(state) + len(wanted), _rewind, step.target, state, wanted)


def _rewind(target: FileState, state: bytes, wanted: bytes) -> MergedFile:
    text = wanted.decode()
    update = b""
    if documents.text_of(target.path, state) != text:
        update = documents.change(target.path, state, text)
        state = documents.union(target.path, state, update)
    return file_from_state(
        state, path=target.path, mode=target.mode, document=target.document, update=update
    )


def _stale(path: str, what: str, texts: tuple[str, str, str] = ("", "", "")) -> Stale:
    return Stale(
        f"{path} {what} since the base; nothing was merged.",
        hint="Make the change again on the present main.",
        conflicts=evidence([file_conflict(path, *texts, what)]),
    )
