"""What `main` may become: candidates (main + one proposal) and rollbacks.

A candidate is the union of main's document, the base's and the proposal's update, so it holds
exactly `main` and the proposal when the base is an ancestor of `main`. Where the base holds
edits of a proposal that was since taken out of `dev`, the update that took it out is added.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from angelos.angelgit import documents
from angelos.angelgit.models import FileState, Manifest, PathMove, sha256
from angelos.angelgit.state import Rewind, by_path, clash
from angelos.angelgit.store import Store, StoredProposal
from angelos.core.errors import Stale

T = TypeVar("T")
_THREAD_ABOVE = 16_000


class Built(NamedTuple):
    """A file of a new `main` and the blobs that it needs."""

    file: FileState
    blobs: tuple[bytes, ...]
    update: bytes = b""


async def merge_onto(
    store: Store, stored: StoredProposal, main: Manifest
) -> tuple[list[Built], set[str]]:
    """Return the files that a proposal puts onto `main`, and the documents it takes away."""
    record = stored.record
    _, base = await store.commit(record.repo, record.base)
    put: list[Built] = []
    gone: set[str] = set()
    have, old = by_path(main), by_path(base)
    for move in record.paths:
        now = have.get(move.path)
        if now is not None and now.document != move.document:
            raise _stale(move.path, "was made anew on main")
        if move.op == "delete":
            gone |= {now.document} if now else set()
            continue
        if now is None:
            if await store.was_on_main(move.document):
                raise _stale(move.path, "was deleted on main")
            if other := clash(have, move.path):
                raise _stale(move.path, f"cannot be made on main beside {other}")
        parts = [f.state for f in (now, old.get(move.path)) if f and f.document == move.document]
        states = list((await store.blobs(parts)).values())
        undone = await store.reverted_on(record.repo, move.document)
        put.append(await in_thread(sum(map(len, states)), _build, move, now, states, undone))
    return put, gone


def _build(
    move: PathMove,
    now: FileState | None,
    states: Sequence[bytes],
    undone: Sequence[tuple[bytes, bytes]],
) -> Built:
    path = move.path
    state = documents.union(path, *states) if states else documents.EMPTY
    for update, inverse in undone:
        if update != move.update and documents.holds(path, state, update):
            state = documents.union(path, state, inverse)
    return built(
        documents.union(path, state, move.update),
        path=path, mode=now.mode if now else move.mode, document=move.document,
    )  # fmt: skip


def built(state: bytes, *, path: str, mode: int, document: str, update: bytes = b"") -> Built:
    """Return a file from its state; what is kept is what a fresh replay gave."""
    content = documents.text_of(path, state).encode()
    file = FileState(
        path=path, mode=mode, sha256=sha256(content), size=len(content), document=document,
        state=sha256(state),
    )  # fmt: skip
    return Built(file, (content, state), update)


async def rewind(store: Store, step: Rewind) -> Built | None:
    """Return the file that a rollback puts onto `main`, with the update that leads to it."""
    if step.target is None or step.source is None:
        return None
    shas = [step.source.state, step.target.sha256]
    blobs = await store.blobs(shas)
    state, wanted = blobs[shas[0]], blobs[shas[1]]
    return await in_thread(len(state) + len(wanted), _rewind, step.target, state, wanted)


def _rewind(target: FileState, state: bytes, wanted: bytes) -> Built:
    text = wanted.decode()
    update = b""
    if documents.text_of(target.path, state) != text:
        update = documents.change(target.path, state, text)
        state = documents.union(target.path, state, update)
    return built(state, path=target.path, mode=target.mode, document=target.document, update=update)


async def in_thread(size: int, work: Callable[..., T], *args: Any) -> T:
    """Run pure work, in a thread where it is large enough to hold up the loop."""
    if size > _THREAD_ABOVE:
        return await asyncio.to_thread(work, *args)
    return work(*args)


def _stale(path: str, what: str) -> Stale:
    return Stale(
        f"{path} {what} since the base; nothing was merged.",
        hint="Make the change again on the present main.",
        conflicts=[{"path": path, "what": what}],
    )
