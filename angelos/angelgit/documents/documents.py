r"""CRDT documents: from text to a stored state, from new text to one update, and the way back.

A state and an update are the same kind of bytes (yjs update v1). A document is made from text
exactly once (`build`) and the state is stored: two documents built separately from one text
would merge to doubled text. A state is read by replaying it, never by `Doc.from_snapshot`, which
restores wrong text.

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

from angelos.angelgit.documents import notebook
from angelos.core.errors import AngelError, InvalidInput, Tampered, TooLarge
from angelos.core.revision import MAX_FILE_BYTES

EMPTY = b"\0\0"
"""The update that holds nothing."""


def is_notebook(path: str) -> bool:
    """Tell whether a path is kept as a notebook."""
    return path.endswith(".ipynb")


def check_text(path: str, content: bytes | str) -> str:
    """Return `content` as text; raise `InvalidInput` or `TooLarge` if it cannot be a document."""
    try:
        raw = content.encode() if isinstance(content, str) else content
        text = raw.decode()
    except UnicodeError as error:
        raise InvalidInput(
            f"{path} is not UTF-8 text: {error}.",
            hint="AngelGit keeps text and notebooks; keep binary data elsewhere.",
        ) from error
    if len(raw) > MAX_FILE_BYTES:
        raise TooLarge(f"{path} has {len(raw)} bytes; {MAX_FILE_BYTES} are allowed.")
    if "\0" in text:
        raise InvalidInput(
            f"{path} holds a NUL byte, so it is not text.",
            hint="AngelGit keeps text and notebooks; keep binary data elsewhere.",
        )
    return text


def canonical(path: str, text: str, like: str | None = None) -> str:
    """Return `text` as a document of this path keeps it: notebooks in their canonical JSON."""
    if not is_notebook(path):
        return text
    old = notebook.parse(like, path) if like is not None else None
    return notebook.dump(notebook.parse(text, path, old))


def build(path: str, text: str) -> bytes:
    """Return the first state of a new document that holds canonical `text`."""
    return change(path, EMPTY, text)


def change(path: str, state: bytes, text: str) -> bytes:
    """Return the update, by a fresh client, that turns `state` into canonical `text`.

    It is checked: replayed on the state it gives exactly `text`.
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
    """Return the update that takes `update` out again, around whatever else there is.

    `state` is what `update` was made against. Undone on a scratch document of its own by an
    UndoManager that follows only this origin; then checked.
    """
    with guarded(path):
        doc = _load(state)
        before = read(path, doc)
        undo = UndoManager(scopes=_scopes(path, doc), capture_timeout_millis=0)
        undo.include_origin("proposal")
        with doc.transaction(origin="proposal"):
            doc.apply_update(update)
        with recorded(doc) as updates:
            while undo.can_undo():
                undo.undo()
            if read(path, doc) != before:
                with doc.transaction():
                    _write(path, doc, before)
        return pycrdt.merge_updates(*updates) if updates else EMPTY


def holds(path: str, state: bytes, update: bytes) -> bool:
    """Tell whether everything in `update` is in `state` already.

    By applying it to a copy: a deletion leaves the state vector as it was.
    """
    with guarded(path):
        doc = _load(state)
        with recorded(doc) as events:
            doc.apply_update(update)
        return not events and not waits(update, doc.get_state())


def waits(update: bytes, vector: bytes) -> bool:
    """Tell whether part of `update` waits for something that a state vector does not have.

    pycrdt keeps such a part out of sight and out of `get_update()`, so whoever compacts then
    loses it. Read from yjs' encoding: blocks that remain beyond the vector, and deleted ranges
    (client, count, (clock, length)...) that reach beyond it.
    """
    try:
        rest = _varints(pycrdt.get_update(update, vector))
        if next(rest):
            return True
        state = _varints(vector)
        have = {next(state): next(state) for _ in range(next(state))}
        for _ in range(next(rest)):
            client = next(rest)
            for _ in range(next(rest)):
                clock, length = next(rest), next(rest)
                if clock + length > have.get(client, 0):
                    return True
    except StopIteration as error:
        msg = "an update ends too early"
        raise ValueError(msg) from error
    return False


@contextmanager
def recorded(doc: Doc[Any]) -> Iterator[list[bytes]]:
    """Collect the updates that a document emits meanwhile.

    An observer and its document keep each other alive where Python's collector cannot see it,
    so a document that stays observed is never freed.
    """
    updates: list[bytes] = []
    # The event's memory is gone after the callback: copy inside it.
    subscription = doc.observe(lambda event: updates.append(bytes(event.update)))
    try:
        yield updates
    finally:
        doc.unobserve(subscription)


@contextmanager
def guarded(path: str) -> Iterator[None]:
    """Turn what pycrdt raises over bad bytes into `InvalidInput`.

    Its panics are BaseExceptions named PanicException; nothing else of that kind is touched.
    The document that panicked must not be used again.
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


def verified(path: str, state: bytes, text: str) -> None:
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
        notebook.write(doc, notebook.parse(text, path))
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
