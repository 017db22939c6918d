"""A transaction that has begun and is not logged is checked again before it is carried out.

People go on typing between a failure and the recovery, so `dev` may no longer be what the
transaction was checked against (docs/explanation/decisions/0009-every-update-is-checked.md).

    transaction = await recheck(store, live, transaction)  # None: it no longer applies

The caller of a transaction that is removed asks again, and is then refused with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from angelos.angelgit.changes import prepare
from angelos.angelgit.documents import crdt
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import AdvanceCause, PathChange, PathOp, Transaction
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict

Texts = dict[str, tuple[str, str]]
"""Path -> its text before and after a transaction, as the line merge expects them."""


async def is_logged(live: LiveReplicas, transaction: Transaction) -> bool:
    """Return whether a transaction's updates are in the log; the caller holds the locks."""
    replicas = [
        (await live.replica(transaction.repo, p.document, p.path), p.update)
        for p in transaction.paths
        if p.update
    ]
    return bool(replicas) and all(replica.contains(update) for replica, update in replicas)


async def recheck(store: Store, live: LiveReplicas, transaction: Transaction) -> Transaction | None:
    """Return a transaction rebased onto the current `dev`; None if it conflicts with it.

    Live edits are committed already, and the caller holds the locks of the documents.
    """
    texts = await _texts(store, transaction)
    if transaction.cause is AdvanceCause.proposal and await _has_conflicts(
        store, live, transaction, texts
    ):
        return None
    paths: list[PathChange] = []
    for change in transaction.paths:
        rebased = await _recheck_path(live, transaction, change, texts)
        if rebased is None:
            return None
        paths.append(rebased)
    return msgspec.structs.replace(transaction, paths=tuple(paths))


async def _recheck_path(
    live: LiveReplicas, transaction: Transaction, change: PathChange, texts: Texts
) -> PathChange | None:
    replica = await live.replica(transaction.repo, change.document, change.path)
    state = replica.state()
    if change.op is PathOp.edit and change.path in texts:
        keep_lines = transaction.main is not None
        args = (change.path, state, change.update or crdt.EMPTY, *texts[change.path])
        onto_dev = partial(rebase.onto_dev, keep_lines=keep_lines)
        try:
            update = await in_thread(len(state), onto_dev, *args)
        except Conflict:
            return None
        return msgspec.structs.replace(change, update=b"" if update == crdt.EMPTY else update)
    if change.op is PathOp.delete and transaction.cause is AdvanceCause.revert:
        # The proposal created the file, and without its text the file was empty. Is it still?
        remaining = crdt.text_of(change.path, state, transaction.inverses[change.document])
        if remaining not in ("", crdt.text_of(change.path, crdt.EMPTY)):
            return None
    return change


async def _has_conflicts(
    store: Store, live: LiveReplicas, transaction: Transaction, texts: Texts
) -> bool:
    """Return whether the merge of a proposal would be refused now."""
    assert transaction.proposal is not None  # noqa: S101 - that is what the cause says
    record = (await store.proposal(transaction.proposal)).record
    dev = live.index.paths(transaction.repo)
    current = {
        p.path: (await live.replica(transaction.repo, p.document, p.path)).text()
        for p in record.paths
        if dev.get(p.path) == p.document
    }
    base = {path: before for path, (before, _) in texts.items() if path in record.before}
    proposed = {path: after for path, (_, after) in texts.items() if path in record.after}
    size = sum(map(len, current.values()))
    return bool(
        await in_thread(size, prepare.find_conflicts, record.paths, dev, base, current, proposed)
    )


async def _texts(store: Store, transaction: Transaction) -> Texts:
    before, after = await _sides(store, transaction)
    blobs = await store.blobs([*before.values(), *after.values()])

    def text(side: Mapping[str, str], path: str) -> str:
        if path in side:
            return blobs[side[path]].decode()
        return crdt.text_of(path, crdt.EMPTY)

    return {path: (text(before, path), text(after, path)) for path in {**before, **after}}


async def _sides(store: Store, transaction: Transaction) -> tuple[dict[str, str], dict[str, str]]:
    """Return path -> SHA-256 of its text, before and after a transaction."""
    if transaction.main is not None:
        sides: list[dict[str, str]] = []
        for revision in (transaction.main.expected, transaction.main.revision):
            _, manifest = await store.commit(transaction.repo, revision)
            files = {f.document: f.sha256 for f in manifest}
            paths = [p for p in transaction.paths if p.document in files]
            sides.append({p.path: files[p.document] for p in paths})
        on_both = sides[0].keys() & sides[1].keys()
        before, after = ({path: side[path] for path in on_both} for side in sides)
        return before, after
    if transaction.proposal is None:
        return {}, {}
    record = (await store.proposal(transaction.proposal)).record
    if transaction.cause is AdvanceCause.revert:
        return record.after, record.before
    return record.before, record.after
