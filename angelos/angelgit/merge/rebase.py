r"""Updates held against the merge of the texts before they are written anywhere.

`onto_main` is for `main`: an update that gives another text there is made anew. `onto_dev` is for
`dev`: what an update does not get right there is put right by an edit of `dev` alone, so that
`dev` always holds all of `main` and both have the expected text.

Pure and sometimes heavy: callers run it by `promote.in_thread`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pycrdt

from angelos.angelgit.documents import documents, notebook
from angelos.angelgit.merge import conflicts
from angelos.angelgit.merge.three_way import merge
from angelos.angelgit.storage.models import RevertedEdit
from angelos.core.errors import Conflict, Stale


def new_base(
    path: str,
    main: bytes | None,
    base: bytes | None,
    older: Sequence[bytes],
    undone: Sequence[RevertedEdit],
) -> bytes | None:
    """Return the state that a proposal is put onto: `main`, and what its base holds beyond it.

    `older` are earlier states on `main`, newest first. What was taken out of `dev` since is
    taken out of the base too. None if there is no document yet. Raises `Stale` where this is
    not what the lines say.
    """
    if base is None or (main is not None and documents.holds(path, main, base)):
        return main
    for one in undone:
        on_main = main is not None and documents.holds(path, main, one.update)
        if on_main or not documents.holds(path, base, one.update):
            continue
        if not documents.holds(path, base, one.inverse):
            text = documents.text_of(path, base)
            base = documents.union(path, base, one.inverse)
            _check(path, base, (one.after, text, one.before))
    if main is None or documents.holds(path, base, main):
        return base
    common = next((state for state in older if documents.holds(path, base, state)), None)
    old = documents.text_of(path, documents.EMPTY if common is None else common)
    state = documents.union(path, main, base)
    texts = (old, documents.text_of(path, main), documents.text_of(path, base))
    _check(path, state, texts, same=True)
    return state


def onto_main(
    path: str, state: bytes, update: bytes, before: str, after: str, *, known: bool = False
) -> bytes:
    """Return the update that puts `before` -> `after` onto `state`: this one if it does.

    Else one made against `state`. Raises `Stale` if both changed the same lines. `known`: the
    update is in `dev`, so `state` may have got it with another's that was made there; then it
    changes nothing. (A deletion may be "there" for other reasons: a rollback brought back its
    text as another item.)
    """
    text = documents.text_of(path, state)
    merged = merge(path, before, text, after)
    if merged.clashes:
        if known and documents.holds(path, state, update):
            return update
        raise refusal(path, (before, text, after), "main")
    if merged.accepts(documents.text_of(path, state, update)):
        return update
    return documents.change(path, state, merged.text)


def onto_dev(
    path: str, state: bytes, update: bytes, before: str, after: str, *, keep: bool = False
) -> bytes:
    """Return `update` and what else `dev` needs to hold `before` -> `after` in its lines.

    Where people changed the same lines, what they wrote must be left: `keep` leaves these lines
    as they are, otherwise `Conflict` is raised, unless the update itself is gentle enough. What
    `keep` left through a rollback is there already when that is undone, and stands there once.
    """
    text = documents.text_of(path, state)
    merged = merge(path, before, text, after, same=keep)
    result = documents.union(path, state, update)
    if merged.accepts(documents.text_of(path, result)):
        return update
    if merged.clashes and not keep:
        raise Conflict(
            f"{path} was changed in the same lines since, so the change cannot be taken out "
            "around what others wrote; dev is as it was.",
            hint="Edit these lines by hand, then try again.",
            conflicts=_evidence(path, before, text, after),
        )
    return pycrdt.merge_updates(update, documents.change(path, result, merged.text))


def refusal(path: str, texts: tuple[str, str, str], where: str) -> Stale:
    """Return the refusal of a change, with base, present and proposed text."""
    return Stale(
        f"{path} changed on {where} in the same lines since the base; nothing was merged.",
        hint=f"Make the change again on the present {where}.",
        conflicts=_evidence(path, *texts),
    )


def _check(path: str, state: bytes, texts: tuple[str, str, str], *, same: bool = False) -> None:
    merged = merge(path, *texts, same=same)
    if (same and merged.clashes) or not merged.accepts(documents.text_of(path, state)):
        raise refusal(path, texts, "main")


def _evidence(path: str, base: str, theirs: str, yours: str) -> list[dict[str, Any]]:
    if documents.is_notebook(path):
        books = [notebook.parse(text, path) for text in (base, theirs, yours)]
        found = conflicts.notebook_conflicts(path, *books)
    else:
        found = conflicts.text_conflicts(path, base, theirs, yours)
    return conflicts.evidence(found or [conflicts.file_conflict(path, base, theirs, yours, "text")])
