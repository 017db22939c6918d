r"""Verify an export of the audit log, offline, and name what is wrong.

    report = verify(path.open("rb"), Trust(epochs=[keys]))
    print("\n".join(report.lines()))

Checks everything that can be checked without the server: the form of each line, the hash of each
entry, their order and number, the data that each commits to, each writer's sequence, and each
checkpoint's signatures and root. An export that was cut off at an older checkpoint, or a log that
was set back and written again, is consistent in itself: an older checkpoint that was stored
elsewhere, or the cosignature of a witness, reveals it. Without keys the export's own are used, and
the author of the export may have made those keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import msgspec

from angelos.core.audit import discloses, read_leaf
from angelos.core.errors import AngelError, InvalidInput, Tampered
from angelos.core.ids import PrincipalId
from angelos.core.sequences import FactSequence, check_sequence, latest
from angelos.governance.log.checkpoint import Checkpoint, KeyEpoch, cosigners, open_checkpoint
from angelos.governance.log.export import FORMAT, ExportCheckpoint, ExportEntry, ExportHeader
from angelos.governance.log.merkle import Frontier, leaf_hash
from angelos.governance.log.notes import NoteKey

MAX_PROBLEMS = 100
_CHECKPOINT = b'{"checkpoint":'
L = TypeVar("L")


class Discrepancy(msgspec.Struct, frozen=True):
    """One defect. `line` counts from 1; `first` to `last` are the entries that it affects."""

    line: int
    detail: str
    first: int | None = None
    last: int | None = None


class Omission(msgspec.Struct, frozen=True):
    """A fact does not follow the one before it of the same writer: something was left out."""

    index: int
    writer: PrincipalId
    kind: str
    """A `core.sequences.StepKind`."""
    missing: int


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What a verifier knows from elsewhere."""

    epochs: Sequence[KeyEpoch] = ()
    """The log's keys; without any, those that the export names."""
    previous: str = ""
    """The note of an older checkpoint, which the log must continue."""
    witnesses: Sequence[NoteKey] = ()
    quorum: int = 0
    """How many of the witnesses must have cosigned the last checkpoint."""


class Report(msgspec.Struct, frozen=True):
    """The result of a verification."""

    ok: bool
    entries: int
    checkpoints: int
    size: int
    """Leaves that the newest good checkpoint signs for."""
    root: str
    origin: str
    """The log's name."""
    keys: tuple[str, ...]
    """Ids of the keys that were trusted."""
    cosigners: tuple[str, ...]
    """Witnesses that cosigned the newest good checkpoint, of those that were given."""
    erased: int
    """Entries whose data were erased."""
    problems: tuple[Discrepancy, ...]
    omissions: tuple[Omission, ...] = ()
    """Facts that a writer numbered and the log does not hold; they never reached it."""

    def lines(self) -> list[str]:
        """Return the report for people to read."""
        counts = f"{self.entries} entries, {self.checkpoints} checkpoints, log {self.origin}"
        notes = [
            f"entry {o.index}: {o.kind} in the sequence of {o.writer}"
            + (f", {o.missing} missing" if o.missing else "")
            for o in self.omissions
        ]
        if self.cosigners:
            notes.append(f"cosigned by {', '.join(self.cosigners)}")
        if self.erased:
            notes.append(f"the data of {self.erased} entries were erased; their leaves verify")
        if self.ok:
            return [f"ok: {counts}", f"root {self.root} at size {self.size}", *notes]
        problems = [f"line {p.line}: {p.detail}" for p in self.problems]
        return [f"TAMPERED: {counts}", *problems, *notes]


def verify(lines: Iterable[bytes], trust: Trust | None = None) -> Report:
    """Return a report on an export.

    Args:
        lines: The lines of the export, with their line ends.
        trust: What the verifier knows from elsewhere.
    """
    return _Verifier(trust or Trust()).run(lines)


def last_note(lines: Iterable[bytes]) -> str:
    """Return the note of an export's last checkpoint, unverified; raise `Tampered` if none."""
    note = ""
    for number, line in enumerate(lines):
        if line.startswith(_CHECKPOINT):
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                note = msgspec.json.decode(line, type=ExportCheckpoint).checkpoint
        elif number:
            break
    if not note:
        raise Tampered("The older export holds no checkpoint.")
    return note


class _Verifier:
    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._epochs = list(trust.epochs)
        self._origin = ""
        self._previous: Checkpoint | None = None
        self._problems: list[Discrepancy] = []
        self._signed: list[tuple[int, Checkpoint, str]] = []
        self._checkpoints = 0
        self._entries = 0
        self._erased = 0
        self._writers: dict[PrincipalId, FactSequence] = {}
        self._omissions: list[Omission] = []
        self._tree = Frontier()
        self._expected = 0
        self._comparing = True
        self._good: Checkpoint | None = None
        self._cosigners: list[NoteKey] = []

    def run(self, lines: Iterable[bytes]) -> Report:
        numbered = iter(enumerate(lines, start=1))
        number = 1
        if self._header(next(numbered, (1, b""))):
            for number, line in numbered:
                self._line(number, line)
            self._end(number)
        problems = tuple(self._problems)
        return Report(
            ok=not problems,
            entries=self._entries,
            checkpoints=self._checkpoints,
            size=self._good.size if self._good else 0,
            root=self._good.root.hex() if self._good else "",
            origin=self._origin,
            keys=tuple(key.key_id.hex() for epoch in self._epochs for key in epoch),
            cosigners=tuple(key.name for key in self._cosigners),
            erased=self._erased,
            problems=problems,
            omissions=tuple(self._omissions),
        )

    def _header(self, first: tuple[int, bytes]) -> bool:
        header = self._parse(*first, ExportHeader, "the header")
        if header is None:
            return False
        if header.format != FORMAT:
            self._problem(1, f"the format is {header.format!r}; this verifier knows {FORMAT!r}")
            return False
        self._origin = header.origin
        try:
            stated = [tuple(map(NoteKey.parse, row)) for row in header.keys if row]
        except InvalidInput as error:
            self._problem(1, f"the header holds no keys: {error.detail}")
            return False
        if not self._epochs:
            self._epochs = stated
        elif not any(epoch in self._epochs for epoch in stated):
            self._problem(1, "the export's keys are not those that were expected")
        if any(key.name != header.origin for epoch in self._epochs for key in epoch):
            self._problem(1, "the header's origin does not belong to its keys")
        if self._trust.previous:
            try:
                self._previous = open_checkpoint(self._trust.previous, self._epochs)
            except Tampered as error:
                self._problem(1, f"the previous checkpoint is not valid: {error.detail}")
        return True

    def _line(self, number: int, line: bytes) -> None:
        if line.startswith(_CHECKPOINT) and self._entries == 0:
            self._checkpoints += 1
            if parsed := self._parse(number, line, ExportCheckpoint, "a checkpoint"):
                self._checkpoint(number, parsed.checkpoint)
            return
        expected = self._expected
        entry = self._parse(number, line, ExportEntry, f"entry {expected}", expected)
        self._entries += 1
        if entry is None:
            self._tree = self._tree.append(bytes(32))  # it keeps its place in the tree
            self._expected += 1
        else:
            self._entry(number, expected, entry)

    def _checkpoint(self, number: int, note: str) -> None:
        try:
            checkpoint = open_checkpoint(note, self._epochs)
        except Tampered as error:
            self._problem(number, error.detail)
            return
        if self._signed and checkpoint.size <= self._signed[-1][1].size:
            self._problem(number, "the checkpoints are not in order of their size")
            return
        self._signed.append((number, checkpoint, note))

    def _entry(self, number: int, expected: int, entry: ExportEntry) -> None:
        if entry.index > expected:
            last = entry.index - 1
            self._problem(number, f"{_entries(expected, last)} missing", expected, last)
            self._comparing = False
        elif entry.index < expected:
            detail = (
                f"entry {entry.index} stands here, where entry {expected} belongs: it was "
                "added or moved, or its number was changed"
            )
            self._problem(number, detail, entry.index, expected)
            self._comparing = False
        self._expected = max(expected, entry.index + 1)
        body = bytes(entry.body)
        if leaf_hash(body).hex() != entry.leaf:
            detail = f"entry {entry.index} was changed: its body does not have its hash"
            self._problem(number, detail, entry.index, entry.index)
        else:
            self._content(number, entry, body)
        # The stated hash goes on: a changed body is named above and must not hide other defects.
        self._tree = self._tree.append(_bytes(entry.leaf))
        self._compare(number)

    def _content(self, number: int, entry: ExportEntry, body: bytes) -> None:
        """Check what an entry says against the data beside it and its writer's sequence."""
        try:
            leaf = read_leaf(body)
        except AngelError as error:
            self._problem(number, f"entry {entry.index}: {error.detail}", entry.index, entry.index)
            return
        if entry.data is None or entry.salt is None:
            self._erased += 1
        elif not discloses(leaf, entry.salt, entry.data):
            detail = f"entry {entry.index}: its data are not those that it commits to"
            self._problem(number, detail, entry.index, entry.index)
        if leaf.sequence is not None:
            self._sequence(entry.index, leaf.sequence)

    def _sequence(self, index: int, sequence: FactSequence) -> None:
        previous = self._writers.get(sequence.writer)
        try:
            step = check_sequence(previous, sequence)
        except InvalidInput:
            return
        if not step.sound and len(self._omissions) < MAX_PROBLEMS:
            omission = Omission(index, sequence.writer, step.kind.value, step.missing)
            self._omissions.append(omission)
        self._writers[sequence.writer] = latest(previous, sequence)

    def _compare(self, number: int) -> None:
        """Compare the tree with the checkpoint of its size, if there is one."""
        previous = self._previous
        if previous and previous.size == self._tree.size and self._comparing:
            self._previous = None
            if previous.root != self._tree.root():
                detail = f"the first {previous.size} entries are not those that were signed before"
                self._problem(number, f"{detail}: the log was written again", 0, previous.size - 1)
        while self._signed and self._signed[0][1].size <= self._tree.size:
            _, signed, note = self._signed.pop(0)
            if signed.size < self._tree.size or not self._comparing:
                continue
            if signed.root == self._tree.root():
                self._agree(signed, note)
                continue
            self._comparing = False  # every later root differs too
            first, last = (self._good.size if self._good else 0), signed.size - 1
            if not self._named(first, last):
                detail = (
                    f"an entry from {first} to {last} was changed together with its hash: "
                    f"they do not have the root signed at size {signed.size}"
                )
                self._problem(number, detail, first, last)

    def _end(self, number: int) -> None:
        if self._previous and self._previous.size > self._tree.size:
            first, last = self._tree.size, self._previous.size - 1
            detail = f"{_entries(first, last)} missing, which the previous checkpoint signs for"
            self._problem(number, f"{detail}: the log was set back", first, last)
        if not self._checkpoints:
            self._problem(number, "there is no checkpoint, so nothing is signed")
        for line, signed, note in self._signed:
            if signed.size == 0 and self._tree.size == 0:
                self._agree(signed, note)
                continue
            first, last = self._expected, signed.size - 1
            if first > last:
                continue  # the missing entries are named already
            detail = f"{_entries(first, last)} missing, which the checkpoint signs for"
            self._problem(line, detail, first, last)
        covered = self._good.size if self._good else 0
        if not self._problems and covered != self._tree.size:
            detail = f"entries from {covered} on were added: no checkpoint signs for them"
            self._problem(number, detail, covered, self._tree.size - 1)
        if len(self._cosigners) < self._trust.quorum:
            detail = (
                f"{len(self._cosigners)} of the witnesses have cosigned the last checkpoint, "
                f"{self._trust.quorum} must have"
            )
            self._problem(number, detail)

    def _agree(self, signed: Checkpoint, note: str) -> None:
        self._good = signed
        self._cosigners = cosigners(note, self._trust.witnesses)

    def _named(self, first: int, last: int) -> bool:
        return any(
            p.first is not None and p.last is not None and p.first <= last and p.last >= first
            for p in self._problems
        )

    def _parse(
        self, number: int, line: bytes, kind: type[L], name: str, index: int | None = None
    ) -> L | None:
        """Return the line's struct if it is written exactly as we write it."""
        try:
            parsed = msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._problem(number, f"{name} was changed: it cannot be read", index, index)
            return None
        if msgspec.json.encode(parsed) + b"\n" != line:
            self._problem(number, f"{name} was changed: it is written another way", index, index)
        return parsed

    def _problem(
        self, line: int, detail: str, first: int | None = None, last: int | None = None
    ) -> None:
        if len(self._problems) < MAX_PROBLEMS:  # however long an export is
            self._problems.append(Discrepancy(line, detail, first, last))


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _bytes(leaf: str) -> bytes:
    try:
        return bytes.fromhex(leaf)
    except ValueError:
        return b""
