r"""What to do with a working file: is it ours to write, or did somebody else write it?

Pure. Three texts decide: what the file holds (`Disk`), what we last wrote into it (`Known`), and
the live document. Whatever is on disk and not from us is an edit: it is taken in by the three-way
line merge, or kept beside the file. Nothing is ever written over.

    on disk                                     what is done
    ------------------------------------------  ---------------------------------------------
    the live text                               nothing
    what we wrote                               write
    other text, lines of its own                take it in, then write the merge
    other text, the same lines as live          write; their text is kept beside the file
    nothing (deleted)                           write
    no text, no file, too large, never ours     write; what was there is kept beside the file
    somebody is writing it now                  wait

    >>> known, disk = Known("1\n2\n3\n".encode()), Disk("file", "1\n2\nthree\n".encode())
    >>> decide("a.txt", disk, known, "one\n2\n3\n")
    Verdict(do='take', text='one\n2\nthree\n', why='')
    >>> decide("a.txt", disk, known, "1\n2\ndrei\n").do
    'aside'
"""

from __future__ import annotations

from typing import Literal

import msgspec

from angelos.angelgit.documents import documents
from angelos.angelgit.merge.three_way import merge
from angelos.angelgit.storage.models import Known
from angelos.core.errors import InvalidInput, TooLarge


class Disk(msgspec.Struct, frozen=True):
    """What stands at a working file's path."""

    kind: Literal["absent", "file", "odd"]
    content: bytes = b""
    what: str = ""
    """Of something odd: why it is not read."""
    fresh: bool = False
    """It was changed a moment ago; whoever did may not be finished."""
    written: bool = False
    """Somebody has it open for writing."""


class Verdict(msgspec.Struct, frozen=True):
    """What to do."""

    do: Literal["nothing", "write", "take", "aside", "wait"]
    """`aside`: write the live text, and keep what is there beside it."""
    text: str = ""
    """Of `take`: what the live document becomes."""
    why: str = ""


def decide(path: str, disk: Disk, known: Known, live: str) -> Verdict:
    """Return what to do with the working file of a document that holds `live`."""
    if disk.kind == "odd":
        return Verdict("aside", why=disk.what)
    if disk.kind == "absent":
        # Many editors take a file away for a moment and put another in its place.
        gone = known.body is not None
        return Verdict(
            "wait" if gone and disk.fresh else "write", why="it was deleted on disk" if gone else ""
        )
    if disk.content == live.encode():
        return Verdict("nothing")
    ours = disk.content in (known.body, known.next)
    if disk.written or (disk.fresh and not ours):
        return Verdict("wait", why="somebody is writing it")
    return Verdict("write") if ours else _foreign(path, disk.content, known, live)


def _foreign(path: str, content: bytes, known: Known, live: str) -> Verdict:
    if known.body is None:
        return Verdict("aside", why="it was there before the document")
    if known.next is not None:
        return Verdict("aside", why="it was changed while the system was killed writing it")
    base = known.body.decode()
    try:
        text = documents.canonical(path, documents.check_text(path, content), base)
        merged = merge(path, base, live, documents.check_text(path, text), same=True)
    except (InvalidInput, TooLarge) as error:
        return Verdict("aside", why=error.detail)
    if merged.clashes:
        return Verdict("aside", why="the same lines were changed in the live document")
    # Equal to live: all of it is there already, or a notebook's JSON is laid out in another way.
    return Verdict("write") if merged.text == live else Verdict("take", merged.text)
