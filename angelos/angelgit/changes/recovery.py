"""A move that was begun and not logged is checked again before it is carried out.

People go on typing between the failure and the recovery, so what the move was held against when
it was begun may not be there any more (docs/explanation/decisions/0009-every-update-is-checked.md).

    move = await checked(store, live, move)   # None: it does not fit any more; forget it

Whoever wanted a move that was forgotten asks again, and is then refused with the reason.
"""

from __future__ import annotations

from functools import partial

import msgspec

from angelos.angelgit.changes import prepare
from angelos.angelgit.documents import documents
from angelos.angelgit.merge import rebase
from angelos.angelgit.storage.live import LiveReplicas
from angelos.angelgit.storage.models import PathChange, Transaction
from angelos.angelgit.storage.store import Store
from angelos.angelgit.threads import in_thread
from angelos.core.errors import Conflict

Texts = dict[str, tuple[str, str]]
"""Path -> its text before and after a move, as the line merge is to have it."""


async def logged(live: LiveReplicas, transaction: Transaction) -> bool:
    """Tell whether a move's updates are in the log; its documents' locks are held."""
    replicas = [
        (await live.replica(transaction.repo, p.document, p.path), p.update)
        for p in transaction.paths
        if p.update
    ]
    return bool(replicas) and all(replica.holds(update) for replica, update in replicas)


async def checked(store: Store, live: LiveReplicas, transaction: Transaction) -> Transaction | None:
    """Return a move with all that `dev` needs now to hold the expected text, None if it clashes.

    What people typed is committed already; the locks of the move's documents are held.
    """
    wanted = await _texts(store, transaction)
    if transaction.cause == "proposal" and await _stale(store, live, transaction, wanted):
        return None
    paths: list[PathChange] = []
    for path in transaction.paths:
        replica = await live.replica(transaction.repo, path.document, path.path)
        if path.op == "edit" and path.path in wanted:
            try:
                update = await in_thread(
                    len(replica.state()),
                    partial(rebase.onto_dev, keep=transaction.cause == "rollback"),
                    *(path.path, replica.state(), path.update or documents.EMPTY),
                    *wanted[path.path],
                )
            except Conflict:
                return None
            update = b"" if update == documents.EMPTY else update
            paths.append(msgspec.structs.replace(path, update=update))
            continue
        if path.op == "delete" and transaction.cause == "revert":
            # It was empty without the proposal's text; is it still?
            left = documents.text_of(
                path.path, replica.state(), transaction.inverses[path.document]
            )
            if left not in ("", documents.text_of(path.path, documents.EMPTY)):
                return None
        paths.append(path)
    return msgspec.structs.replace(transaction, paths=tuple(paths))


async def _stale(store: Store, live: LiveReplicas, transaction: Transaction, wanted: Texts) -> bool:
    """Tell whether a proposal would be refused as stale now."""
    assert transaction.proposal is not None  # noqa: S101 - that is what the cause says
    record = (await store.proposal(transaction.proposal)).record
    dev = live.paths(transaction.repo)
    theirs = {
        p.path: (await live.replica(transaction.repo, p.document, p.path)).text()
        for p in record.paths
        if dev.get(p.path) == p.document
    }
    base = {path: before for path, (before, _) in wanted.items() if path in record.before}
    yours = {path: after for path, (_, after) in wanted.items() if path in record.after}
    size = sum(map(len, theirs.values()))
    return bool(
        await in_thread(size, prepare.find_conflicts, record.paths, dev, base, theirs, yours)
    )


async def _texts(store: Store, transaction: Transaction) -> Texts:
    if transaction.main is not None:
        sides = []
        for revision in (transaction.main.expected, transaction.main.revision):
            _, manifest = await store.commit(transaction.repo, revision)
            files = {f.document: f.sha256 for f in manifest}
            sides.append(
                {p.path: files[p.document] for p in transaction.paths if p.document in files}
            )
        sides = [
            {path: sha for path, sha in s.items() if all(path in o for o in sides)} for s in sides
        ]
    elif transaction.proposal is not None:
        record = (await store.proposal(transaction.proposal)).record
        sides = [record.before, record.after]
        if transaction.cause == "revert":
            sides.reverse()
    else:
        return {}
    blobs = await store.blobs([sha for side in sides for sha in side.values()])

    def text(side: dict[str, str], path: str) -> str:
        if path in side:
            return blobs[side[path]].decode()
        return documents.text_of(path, documents.EMPTY)

    before, after = sides
    return {path: (text(before, path), text(after, path)) for path in {**before, **after}}
