r"""Verify an export of the audit log, offline, and name what is wrong.

    report = verify(path.open("rb"), key=known_key)
    print("\n".join(report.lines()))

Everything that a log can be checked for without its server: the form of each line, the hash of
each entry, their order and number, and each checkpoint's signature and root. An export that was
cut off at an older checkpoint, or a log that was set back and written anew, is good in itself:
`seen`, a checkpoint that was kept elsewhere (such as the last one of an older export), tells it.
Without `key`, the export's own key is taken, and whoever made the export may have made the key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from angelos.core.errors import Tampered
from angelos.core.signing import VerifyKey
from angelos.governance.checkpoint import Checkpoint, open_note, origin_of
from angelos.governance.merkle import Frontier, leaf_hash
from angelos.governance.models import FORMAT, CheckpointLine, EntryLine, Header

MAX_PROBLEMS = 100
_CHECKPOINT = b'{"checkpoint":'
L = TypeVar("L")


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `line` counts from 1; `first`..`last` are the entries it is in."""

    line: int
    detail: str
    first: int | None = None
    last: int | None = None


class Report(msgspec.Struct, frozen=True):
    """What was checked and found."""

    ok: bool
    entries: int
    checkpoints: int
    size: int
    """Leaves that the newest good checkpoint signs for."""
    root: str
    key: str
    """The log key's id."""
    problems: tuple[Problem, ...]

    def lines(self) -> list[str]:
        """Return the report for people to read."""
        counts = f"{self.entries} entries, {self.checkpoints} checkpoints, key {self.key}"
        if self.ok:
            return [f"ok: {counts}", f"root {self.root} at size {self.size}"]
        return [f"TAMPERED: {counts}", *(f"line {p.line}: {p.detail}" for p in self.problems)]


def verify(lines: Iterable[bytes], key: bytes | None = None, seen: str = "") -> Report:
    """Check the lines of an export (with their line ends) against its key, or against `key`.

    With `seen`, the note of a checkpoint, the export must go on from there.
    """
    return _Verifier(key, seen).run(lines)


def last_note(lines: Iterable[bytes]) -> str:
    """Return the note of an export's last checkpoint, unverified; raise `Tampered` if none."""
    note = ""
    for number, line in enumerate(lines):
        if line.startswith(_CHECKPOINT):
            with contextlib.suppress(msgspec.DecodeError, ValueError):
                note = msgspec.json.decode(line, type=CheckpointLine).checkpoint
        elif number:
            break
    if not note:
        raise Tampered("The older export holds no checkpoint.")
    return note


class _Verifier:
    def __init__(self, key: bytes | None, seen: str) -> None:
        self._pinned = key
        self._note = seen
        self._seen: Checkpoint | None = None
        self._key = VerifyKey(key or b"")
        self._problems: list[Problem] = []
        self._signed: list[tuple[int, Checkpoint]] = []
        self._checkpoints = 0
        self._entries = 0
        self._tree = Frontier()
        self._expected = 0
        self._comparing = True
        self._good: Checkpoint | None = None

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
            key=self._key.key_id,
            problems=problems,
        )

    def _header(self, first: tuple[int, bytes]) -> bool:
        header = self._parse(*first, Header, "the header")
        if header is None:
            return False
        if self._pinned is None:
            self._key = VerifyKey(header.key)
        elif header.key != self._pinned:
            self._problem(1, "the export's key is not the one that was expected")
        if header.format != FORMAT:
            self._problem(1, f"the format is {header.format!r}; this verifier knows {FORMAT!r}")
            return False
        if header.origin != origin_of(VerifyKey(header.key)):
            self._problem(1, "the header's origin does not belong to its key")
        if self._note:
            try:
                self._seen = open_note(self._note, self._key)
            except Tampered as error:
                self._problem(1, f"the checkpoint that was seen before is no good: {error.detail}")
        return True

    def _line(self, number: int, line: bytes) -> None:
        if line.startswith(_CHECKPOINT) and self._entries == 0:
            self._checkpoints += 1
            if parsed := self._parse(number, line, CheckpointLine, "a checkpoint"):
                self._checkpoint(number, parsed.checkpoint)
            return
        expected = self._expected
        entry = self._parse(number, line, EntryLine, f"entry {expected}", expected)
        self._entries += 1
        if entry is None:
            self._tree = self._tree.append(bytes(32))  # keeps its place, whatever it was
            self._expected += 1
        else:
            self._entry(number, expected, entry)

    def _checkpoint(self, number: int, note: str) -> None:
        try:
            checkpoint = open_note(note, self._key)
        except Tampered as error:
            self._problem(number, error.detail)
            return
        if self._signed and checkpoint.size <= self._signed[-1][1].size:
            self._problem(number, "the checkpoints are not in order of their size")
            return
        self._signed.append((number, checkpoint))

    def _entry(self, number: int, expected: int, entry: EntryLine) -> None:
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
        if leaf_hash(entry.body).hex() != entry.leaf:
            detail = f"entry {entry.index} was changed: its body does not have its hash"
            self._problem(number, detail, entry.index, entry.index)
        # By the hash as it stands: a changed body is named above and hides nothing else.
        self._tree = self._tree.append(_bytes(entry.leaf))
        self._compare(number)

    def _compare(self, number: int) -> None:
        """Compare the tree with the checkpoint of its size, if there is one."""
        seen = self._seen
        if seen and seen.size == self._tree.size and self._comparing:
            self._seen = None
            if seen.root != self._tree.root():
                detail = f"the first {seen.size} entries are not those that were signed before"
                self._problem(number, f"{detail}: the log was written anew", 0, seen.size - 1)
        while self._signed and self._signed[0][1].size <= self._tree.size:
            _, signed = self._signed.pop(0)
            if signed.size < self._tree.size or not self._comparing:
                continue
            if signed.root == self._tree.root():
                self._good = signed
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
        if self._seen and self._seen.size > self._tree.size:
            first, last = self._tree.size, self._seen.size - 1
            detail = f"{_entries(first, last)} missing, which a checkpoint seen before signs for"
            self._problem(number, f"{detail}: the log was set back", first, last)
        if not self._checkpoints:
            self._problem(number, "there is no checkpoint, so nothing is signed")
        for line, signed in self._signed:
            if signed.size == 0 and self._tree.size == 0:
                self._good = signed
                continue
            first, last = self._expected, signed.size - 1
            if first > last:
                continue  # what is missing before is named already
            detail = f"{_entries(first, last)} missing, which the checkpoint signs for"
            self._problem(line, detail, first, last)
        covered = self._good.size if self._good else 0
        if not self._problems and covered != self._tree.size:
            detail = f"entries from {covered} on were added: no checkpoint signs for them"
            self._problem(number, detail, covered, self._tree.size - 1)

    def _named(self, first: int, last: int) -> bool:
        return any(
            p.first is not None and p.last is not None and p.first <= last and p.last >= first
            for p in self._problems
        )

    def _parse(
        self, number: int, line: bytes, kind: type[L], what: str, index: int | None = None
    ) -> L | None:
        """Return the line's struct if it is written exactly as we write it."""
        try:
            parsed = msgspec.json.decode(line, type=kind)
        except (msgspec.DecodeError, ValueError, RecursionError):
            self._problem(number, f"{what} was changed: it cannot be read", index, index)
            return None
        if msgspec.json.encode(parsed) + b"\n" != line:
            self._problem(number, f"{what} was changed: it is written another way", index, index)
        return parsed

    def _problem(
        self, line: int, detail: str, first: int | None = None, last: int | None = None
    ) -> None:
        if len(self._problems) < MAX_PROBLEMS:  # an export of any size is read, not kept
            self._problems.append(Problem(line, detail, first, last))


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _bytes(leaf: str) -> bytes:
    try:
        return bytes.fromhex(leaf)
    except ValueError:
        return b""
