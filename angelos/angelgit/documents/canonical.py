r"""Which contents can be a document, and the one text that each of them has.

A notebook has many JSON texts with the same meaning. AngelGit keeps one of them, its canonical
text, so that equal notebooks are equal files.

    >>> canonical("a.txt", check_text("a.txt", b"one\n"))
    'one\n'
"""

from __future__ import annotations

from angelos.angelgit.documents import notebook
from angelos.core.errors import InvalidInput, TooLarge
from angelos.core.revision import MAX_FILE_BYTES

_BINARY_HINT = "AngelGit keeps text and notebooks; keep binary data elsewhere."


def is_notebook(path: str) -> bool:
    """Return whether a path is kept as a notebook."""
    return path.endswith(".ipynb")


def is_text(content: bytes) -> bool:
    """Return whether a content can be a live document: UTF-8 without NUL, not too long.

    >>> is_text(b"one"), is_text(bytes([255])), is_text(bytes(1))
    (True, False, False)
    """
    if len(content) > MAX_FILE_BYTES or b"\0" in content:
        return False
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_text(path: str, content: bytes | str) -> str:
    """Return `content` as text.

    Raises:
        InvalidInput: it is not UTF-8, or holds a NUL byte.
        TooLarge: it has more than `MAX_FILE_BYTES` bytes.
    """
    try:
        raw = content.encode() if isinstance(content, str) else content
        text = raw.decode()
    except UnicodeError as error:
        raise InvalidInput(f"{path} is not UTF-8 text: {error}.", hint=_BINARY_HINT) from error
    if len(raw) > MAX_FILE_BYTES:
        raise TooLarge(f"{path} has {len(raw)} bytes; {MAX_FILE_BYTES} are allowed.")
    if "\0" in text:
        raise InvalidInput(f"{path} holds a NUL byte, so it is not text.", hint=_BINARY_HINT)
    return text


def canonical(path: str, text: str, like: str | None = None) -> str:
    """Return the canonical text of `text`.

    Args:
        path: decides whether the text is a notebook.
        text: any text that the document may be given as.
        like: an earlier text of the document; cells without an id get the ids of equal cells.
    """
    if not is_notebook(path):
        return text
    old = notebook.load(like, path) if like is not None else None
    return notebook.dump(notebook.parse(text, path, old))
