r"""What to do with a working file: is it ours to write, or did somebody else write it?

Pure. Three texts decide: what the file holds (`DiskFile`), what we last wrote into it
(`WriteRecord`), and the live document. Content on disk that is not ours is an edit: the three-way
line merge takes it in, or the file is kept beside the new one. Nothing is overwritten.

    on disk                                     what is done
    ------------------------------------------  ---------------------------------------------
    the live text                               nothing
    what we wrote                               write
    other text, lines of its own                take it in, then write the merge
    other text, the same lines as live          write; their text is kept beside the file
    nothing (deleted)                           write
    no text, no file, too large, never ours     write; what was there is kept beside the file
    somebody is writing it now                  wait

    >>> known, disk = WriteRecord("1\n2\n3\n".encode()), DiskFile("file", "1\n2\nthree\n".encode())
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
from angelos.angelgit.storage.models import WriteRecord
from angelos.core.errors import InvalidInput, TooLarge


class DiskFile(msgspec.Struct, frozen=True):
    """What stands at a working file's path."""

    kind: Literal["absent", "file", "odd"]
    content: bytes = b""
    what: str = ""
    """Of something odd: why it is not read."""
    fresh: bool = False
    """It was changed a moment ago; whoever did may not be finished."""
    written: bool = False
    """Somebody has it open for writing."""


class FileDecision(msgspec.Struct, frozen=True):
    """What to do."""

    do: Literal["nothing", "write", "take", "aside", "wait"]
    """`aside`: write the live text, and keep what is there beside it."""
    text: str = ""
    """Of `take`: what the live document becomes."""
    why: str = ""


def decide(path: str, disk: DiskFile, known: WriteRecord, live: str) -> FileDecision:
    """Return what to do with the working file of a document that holds `live`."""
    if disk.kind == "odd":
        return FileDecision("aside", why=disk.what)
    if disk.kind == "absent":
        # Many editors take a file away for a moment and put another in its place.
        gone = known.body is not None
        return FileDecision(
            "wait" if gone and disk.fresh else "write", why="it was deleted on disk" if gone else ""
        )
    if disk.content == live.encode():
        return FileDecision("nothing")
    ours = disk.content in (known.body, known.next)
    if disk.written or (disk.fresh and not ours):
        return FileDecision("wait", why="somebody is writing it")
    return FileDecision("write") if ours else _foreign(path, disk.content, known, live)


def _foreign(path: str, content: bytes, known: WriteRecord, live: str) -> FileDecision:
    if known.body is None:
        return FileDecision("aside", why="it was there before the document")
    if known.next is not None:
        return FileDecision("aside", why="it was changed while the system was killed writing it")
    base = known.body.decode()
    try:
        text = documents.canonical(path, documents.check_text(path, content), base)
        merged = merge(path, base, live, documents.check_text(path, text), same=True)
    except (InvalidInput, TooLarge) as error:
        return FileDecision("aside", why=error.detail)
    if merged.clashes:
        return FileDecision("aside", why="the same lines were changed in the live document")
    # Equal to live: all of it is there already, or a notebook's JSON is laid out in another way.
    return FileDecision("write") if merged.text == live else FileDecision("take", merged.text)
