r"""Updates checked against the merge of the texts before they are written anywhere.

`onto_main` replaces a proposal's update where it would give a different text on `main`.
`onto_dev` lets an update stand and adds an edit of `dev` alone where its text is wrong there. So
`dev` always contains all of `main`, and both have the expected text.

Pure and sometimes expensive: callers use `in_thread`.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pycrdt

from angelos.angelgit.documents import crdt, notebook
from angelos.angelgit.documents.canonical import is_notebook
from angelos.angelgit.merge import conflicts
from angelos.angelgit.merge.conflicts import ConflictKind
from angelos.angelgit.merge.three_way import merge
from angelos.core.errors import Conflict, Stale


class RevertedEdit(msgspec.Struct, frozen=True):
    """The edit of one document by a proposal that was taken out of `dev`."""

    update: bytes
    inverse: bytes
    before: str
    after: str


def new_base(
    path: str,
    main: bytes | None,
    base: bytes | None,
    history: Sequence[bytes],
    reverted: Sequence[RevertedEdit],
) -> bytes | None:
    """Return the state that a proposal is rebased onto: `main`, and what its base has beyond it.

    A base may be a commit of `dev`, which holds edits that `main` has not (yet). An update of the
    proposal refers to them by id, so it would have a gap on `main` alone.

    Args:
        path: the document's path.
        main: its state on `main`, None if it is not there.
        base: its state in the base revision, None if it is not there.
        history: earlier states on `main`, the newest first.
        reverted: edits that were taken out of `dev`; they are taken out of the base too.

    Returns:
        The state; None if there is no document yet.

    Raises:
        Stale: the union of the states does not have the merged text.
    """
    if base is None or (main is not None and crdt.contains(path, main, base)):
        return main
    for edit in reverted:
        on_main = main is not None and crdt.contains(path, main, edit.update)
        if on_main or not crdt.contains(path, base, edit.update):
            continue
        if not crdt.contains(path, base, edit.inverse):
            text = crdt.text_of(path, base)
            base = crdt.union(path, base, edit.inverse)
            _check_text(path, base, (edit.after, text, edit.before))
    if main is None or crdt.contains(path, base, main):
        return base
    # The newest state of `main` that the base contains is their merge base. Where the history
    # is too short to hold it, the empty document is, and the check below refuses more.
    common = next((state for state in history if crdt.contains(path, base, state)), None)
    old = crdt.text_of(path, crdt.EMPTY if common is None else common)
    state = crdt.union(path, main, base)
    texts = (old, crdt.text_of(path, main), crdt.text_of(path, base))
    _check_text(path, state, texts, merge_alike=True)
    return state


def onto_main(
    path: str, state: bytes, update: bytes, before: str, after: str, *, in_dev: bool = False
) -> bytes:
    """Return an update that makes the change `before` -> `after` on `state`.

    Args:
        path: the document's path.
        state: what the change is made on.
        update: the proposal's update; it is returned as it is if its text is right.
        before: the text that the change was made against.
        after: the proposed text.
        in_dev: the proposal was accepted into `dev`. Then `state` may contain its update already,
            inside another proposal that was made there, and it changes nothing more. (A deletion
            may be contained for another reason: a rollback restored its text as another item.)

    Raises:
        Stale: `state` and the change differ in the same lines.
    """
    text = crdt.text_of(path, state)
    # What waits beside `dev` may be written anew, so that a change which `main` has too is one.
    merged = merge(path, before, text, after, merge_alike=not in_dev)
    if merged.has_conflicts:
        if in_dev and crdt.contains(path, state, update):
            return update
        raise _stale(path, (before, text, after))
    if merged.accepts(crdt.text_of(path, state, update)):
        return update
    return crdt.change(path, state, merged.text)


def onto_dev(
    path: str,
    state: bytes,
    update: bytes,
    before: str,
    after: str,
    *,
    keep_lines: bool = False,
    merge_alike: bool = False,
) -> bytes:
    """Return `update` and whatever else makes the change `before` -> `after` on `dev`.

    The update itself is always part of the result, so that `dev` contains `main`.

    Args:
        path: the document's path.
        state: its state in `dev`.
        update: the update that `main` got or gets.
        before: the text that the change was made against.
        after: the text after the change.
        keep_lines: where people have changed the same lines in `dev`, leave these as they are. A
            rollback does so. Text that it left is there when the rollback is undone, and is then
            not inserted a second time.
        merge_alike: a change that `dev` has too is one and not a conflict.

    Raises:
        Conflict: people have changed the same lines, the update does not keep what they wrote,
            and `keep_lines` is false.
    """
    text = crdt.text_of(path, state)
    merged = merge(path, before, text, after, merge_alike=keep_lines or merge_alike)
    result = crdt.union(path, state, update)
    if merged.accepts(crdt.text_of(path, result)):
        return update
    if merged.has_conflicts and not keep_lines:
        raise Conflict(
            f"{path} was changed in the same lines since, so the change cannot be taken out "
            "without losing what others wrote; dev is unchanged.",
            hint="Edit these lines by hand, then try again.",
            conflicts=_line_conflicts(path, before, text, after),
        )
    return pycrdt.merge_updates(update, crdt.change(path, result, merged.text))


def _check_text(
    path: str, state: bytes, texts: tuple[str, str, str], *, merge_alike: bool = False
) -> None:
    """Raise `Stale` unless a state has the merge of (base, current, proposed) as its text."""
    merged = merge(path, *texts, merge_alike=merge_alike)
    if (merge_alike and merged.has_conflicts) or not merged.accepts(crdt.text_of(path, state)):
        raise _stale(path, texts)


def _stale(path: str, texts: tuple[str, str, str]) -> Stale:
    return Stale(
        f"{path} changed on main in the same lines since the base; nothing was merged.",
        hint="Make the change again on the present main.",
        conflicts=_line_conflicts(path, *texts),
    )


def _line_conflicts(
    path: str, base: str, current: str, proposed: str
) -> list[dict[str, str | int]]:
    if is_notebook(path):
        books = [notebook.parse(text, path) for text in (base, current, proposed)]
        rows = conflicts.notebook_conflicts(path, *books)
    else:
        rows = conflicts.text_conflicts(path, base, current, proposed)
    return conflicts.evidence(
        rows or [conflicts.file_conflict(path, base, current, proposed, ConflictKind.lines)]
    )
