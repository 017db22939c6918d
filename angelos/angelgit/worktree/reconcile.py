r"""What to do with a working file: write it, or take in what somebody else wrote.

Pure. Three texts decide: what the file holds (`DiskFile`), what we last wrote into it
(`WriteRecord`), and the live document. Content on disk that is not ours is an edit: the three-way
line merge takes it in, or the file is kept beside the new one. Nothing is overwritten.

    on disk                                     action
    ------------------------------------------  ---------------------------------------------
    the live text                               nothing
    what we wrote                               write
    other text, other lines than the live text  take in the edit, then write the merge
    other text, the same lines as the live text set aside: write, their file is kept beside it
    nothing (deleted)                           restore
    no text, no file, too large, never ours     set aside
    somebody is writing it now                  wait

    >>> record, disk = WriteRecord(b"1\n2\n3\n"), DiskFile(FileKind.file, b"1\n2\nthree\n")
    >>> decision = decide("a.txt", disk, record, "one\n2\n3\n")
    >>> decision.action, decision.text
    (<FileAction.take_in: 'take-in'>, 'one\n2\nthree\n')
    >>> decide("a.txt", disk, record, "1\n2\ndrei\n").action
    <FileAction.set_aside: 'set-aside'>
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from angelos.angelgit.documents.canonical import canonical, check_text
from angelos.angelgit.merge.three_way import merge
from angelos.angelgit.storage.models import WriteRecord
from angelos.core.errors import InvalidInput, TooLarge


class FileKind(StrEnum):
    """What is at the path of a working file."""

    absent = "absent"
    file = "file"
    unreadable = "unreadable"
    """A link, a folder, a device, or a file that is too large or not readable."""


class DiskFile(msgspec.Struct, frozen=True):
    """A working file as it is on disk."""

    kind: FileKind
    content: bytes = b""
    reason: str = ""
    """Why an unreadable file is not read."""
    recent: bool = False
    """It was changed a moment ago; its writer may not be finished."""
    being_written: bool = False
    """A process has it open for writing."""


class FileAction(StrEnum):
    """What is done with a working file."""

    nothing = "nothing"
    write = "write"
    restore = "restore"
    """Write a file that was deleted."""
    take_in = "take-in"
    """Apply the edit on disk to the live document, then look again."""
    set_aside = "set-aside"
    """Write the live text, and keep the file that is there beside it."""
    wait = "wait"


class FileDecision(msgspec.Struct, frozen=True):
    """An action with its text and reason."""

    action: FileAction
    text: str = ""
    """Of `take_in`: the text that the live document gets."""
    reason: str = ""
    """For people to read."""


def decide(path: str, disk: DiskFile, record: WriteRecord, live: str) -> FileDecision:
    """Return what to do with the working file of a document whose text is `live`."""
    if disk.kind is FileKind.unreadable:
        return FileDecision(FileAction.set_aside, reason=disk.reason)
    if disk.kind is FileKind.absent:
        if record.content is None:
            return FileDecision(FileAction.write)
        # Many editors delete a file and put another in its place a moment later.
        action = FileAction.wait if disk.recent else FileAction.restore
        return FileDecision(action, reason="it was deleted on disk")
    if disk.content == live.encode():
        return FileDecision(FileAction.nothing)
    ours = disk.content in (record.content, record.intended)
    if disk.being_written or (disk.recent and not ours):
        return FileDecision(FileAction.wait, reason="somebody is writing it")
    return FileDecision(FileAction.write) if ours else _decide_edit(path, disk, record, live)


def _decide_edit(path: str, disk: DiskFile, record: WriteRecord, live: str) -> FileDecision:
    """Return what to do with content that somebody else wrote."""
    if record.content is None:
        return FileDecision(FileAction.set_aside, reason="it was there before the document")
    if record.intended is not None:
        # The merge needs the text that they edited, and it may be either of the two.
        reason = "it was changed while the system was killed writing it"
        return FileDecision(FileAction.set_aside, reason=reason)
    base = record.content.decode()
    try:
        text = canonical(path, check_text(path, disk.content), base)
        merged = merge(path, base, live, check_text(path, text))
    except (InvalidInput, TooLarge) as error:
        return FileDecision(FileAction.set_aside, reason=error.detail)
    if merged.has_conflicts:
        reason = "the same lines were changed in the live document"
        return FileDecision(FileAction.set_aside, reason=reason)
    # Equal to live: the edit is there already, or only the layout of a notebook's JSON differs.
    if merged.text == live:
        return FileDecision(FileAction.write)
    return FileDecision(FileAction.take_in, merged.text)
