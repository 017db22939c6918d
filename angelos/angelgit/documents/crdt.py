r"""CRDT documents: from text to a stored state, from new text to one update, and back.

A state and an update have the same encoding (yjs update v1). `build` makes a document from text
exactly once, and its state is stored: two documents that were built separately from the same
text would merge to doubled text, since each character would be inserted by two clients. A state
is read by replaying it, never by `Doc.from_snapshot`, which restores wrong text.

Text documents have jupyter_ydoc's layout (`source`). If all lines end in CRLF, `source` holds
plain line feeds, as editors need them, and `angelos.newline` remembers the CRLF.

    >>> state = build("a.txt", "one\n")
    >>> text_of("a.txt", state, change("a.txt", state, "one\ntwo\n"))
    'one\ntwo\n'
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pycrdt
from pycrdt import Array, Doc, Map, Text, UndoManager

from angelos.angelgit.documents import notebook, yjs
from angelos.angelgit.documents.canonical import is_notebook
from angelos.core.errors import AngelError, InvalidInput, Tampered

EMPTY = b"\0\0"
"""The update that holds nothing."""
_ORIGIN = "proposal"


def build(path: str, text: str) -> bytes:
    """Return the first state of a new document that holds canonical `text`."""
    return change(path, EMPTY, text)


def change(path: str, state: bytes, text: str) -> bytes:
    """Return the update, by a fresh client, that turns `state` into canonical `text`.

    Raises:
        InvalidInput: replaying the update on the state does not give exactly `text`.
    """
    with guarded(path):
        doc = _load(state)
        with recorded(doc) as updates, doc.transaction():
            _write(path, doc, text)
        update = pycrdt.merge_updates(*updates) if updates else EMPTY
    if text_of(path, state, update) != text:
        raise InvalidInput(
            f"The new content of {path} cannot be kept exactly.",
            hint="Does a notebook hold numbers beyond 2^53, or keys that Jupyter does not keep?",
        )
    return update


def union(path: str, *updates: bytes) -> bytes:
    """Return the full state that holds all of `updates`."""
    with guarded(path):
        return _load(*updates).get_update()


def difference(path: str, old: bytes, new: bytes) -> bytes:
    """Return the update that a document with the state `old` needs to hold `new` too."""
    with guarded(path):
        return _load(new).get_update(_load(old).get_state())


def text_of(path: str, *updates: bytes) -> str:
    """Return the canonical text of the document that holds `updates`."""
    with guarded(path):
        return read(path, _load(*updates))


def read(path: str, doc: Doc[Any]) -> str:
    """Return the canonical text of a document."""
    if is_notebook(path):
        return notebook.dump(notebook.read(doc))
    body = str(doc.get("source", type=Text))
    if doc.get("angelos", type=Map).get("newline") == "\r\n":
        return body.replace("\r\n", "\n").replace("\n", "\r\n")
    return body


def inverse(path: str, state: bytes, update: bytes) -> bytes:
    """Return the update that takes `update` out of a document and leaves all other edits.

    Args:
        path: decides the document's layout.
        state: the state that `update` was made against.
        update: the update to take out.
    """
    with guarded(path):
        doc = _load(state)
        before = read(path, doc)
        undo = UndoManager(scopes=_scopes(path, doc), capture_timeout_millis=0)
        # The UndoManager follows one origin only, so it undoes this update and nothing else.
        undo.include_origin(_ORIGIN)
        with doc.transaction(origin=_ORIGIN):
            doc.apply_update(update)
        with recorded(doc) as updates:
            while undo.can_undo():
                undo.undo()
            # Undo need not give the old text back (in nested maps it may not): edit the rest.
            if read(path, doc) != before:
                with doc.transaction():
                    _write(path, doc, before)
        return pycrdt.merge_updates(*updates) if updates else EMPTY


def contains(path: str, state: bytes, update: bytes) -> bool:
    """Return whether everything in `update` is in `state` already."""
    with guarded(path):
        doc = _load(state)
        # Comparing state vectors is not enough: a deletion does not advance the vector.
        with recorded(doc) as events:
            doc.apply_update(update)
        return not events and not has_gap(update, doc.get_state())


def clients_of(update: bytes) -> dict[int, int]:
    """Return the client ids of an update's edits, each with the clock behind its last one.

    Deletions are not among them: they name what is deleted, and not who deletes.
    """
    return yjs.decode(update).clients()


def decode_vector(vector: bytes) -> dict[int, int]:
    """Return a state vector as client id -> clock."""
    numbers = _varints(vector)
    try:
        return {next(numbers): next(numbers) for _ in range(next(numbers))}
    except StopIteration as error:
        msg = "a state vector ends too early"
        raise ValueError(msg) from error


def has_gap(update: bytes, vector: bytes) -> bool:
    """Return whether part of `update` depends on something that a state vector does not have.

    pycrdt keeps such a part in its pending structs, which `get_update()` leaves out, so a
    snapshot that is taken in this state loses it. The yjs encoding shows it: blocks that remain
    beyond the vector, and a delete set (client, count, (clock, length)...) that reaches beyond it.

    Source: `encodeStateAsUpdate` and `writeDeleteSet` in yjs 13 (src/utils/encoding.js,
    src/utils/DeleteSet.js).
    """
    try:
        remainder = _varints(pycrdt.get_update(update, vector))
        if next(remainder):
            return True
        state = _varints(vector)
        clocks = {next(state): next(state) for _ in range(next(state))}
        for _ in range(next(remainder)):
            client = next(remainder)
            for _ in range(next(remainder)):
                clock, length = next(remainder), next(remainder)
                if clock + length > clocks.get(client, 0):
                    return True
    except StopIteration as error:
        msg = "an update ends too early"
        raise ValueError(msg) from error
    return False


@contextmanager
def recorded(doc: Doc[Any]) -> Iterator[list[bytes]]:
    """Collect the updates that a document emits inside the block.

    An observer and its document keep each other alive in Rust, where Python's collector cannot
    see it, so a document that stays observed is never freed.
    """
    updates: list[bytes] = []
    # The event's memory is freed after the callback, so the bytes are copied inside it.
    subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
    try:
        yield updates
    finally:
        doc.unobserve(subscription)


@contextmanager
def guarded(path: str) -> Iterator[None]:
    """Raise `InvalidInput` for what pycrdt raises over malformed bytes.

    A panic in Rust arrives as a `BaseException` of a class named PanicException, which no module
    exports; other BaseExceptions pass. A document that panicked must not be used again.
    """
    try:
        yield
    except AngelError:
        raise
    except (ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
        raise InvalidInput(f"The CRDT data of {path} cannot be used: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise InvalidInput(f"The CRDT data of {path} is broken: {error}") from error


def verify(path: str, state: bytes, text: str) -> None:
    """Raise `Tampered` unless a fresh replay of `state` gives `text`."""
    if text_of(path, state) != text:
        raise Tampered(f"The state of {path} does not replay to its content; nothing was kept.")


def _load(*updates: bytes) -> Doc[Any]:
    doc: Doc[Any] = Doc()
    for update in updates:
        doc.apply_update(update)
    return doc


def _scopes(path: str, doc: Doc[Any]) -> list[Any]:
    if is_notebook(path):
        return [doc.get("cells", type=Array), doc.get("meta", type=Map)]
    return [doc.get("source", type=Text), doc.get("angelos", type=Map)]


def _write(path: str, doc: Doc[Any], text: str) -> None:
    if is_notebook(path):
        notebook.write(doc, notebook.load(text, path))
        return
    newline, body = _newline(text)
    flags, source = doc.get("angelos", type=Map), doc.get("source", type=Text)
    if flags.get("newline", "") != newline:
        flags["newline"] = newline
    notebook.apply_edits(source, str(source), body)


def _newline(text: str) -> tuple[str, str]:
    """Return the line end of a text that has only CRLF, else "", and the text to keep."""
    body = text.replace("\r\n", "\n")
    if body != text and "\r" not in body and body.count("\n") == text.count("\r\n"):
        return "\r\n", body
    return "", text


def _varints(data: bytes) -> Iterator[int]:
    """Yield the unsigned LEB128 numbers in `data`."""
    value = shift = 0
    for byte in data:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            yield value
            value = shift = 0
