r"""Minimal edits between two texts, and unified diffs; both are strict about lines.

Lines end at `\n` only, as in git: `str.splitlines` also splits at form feeds, lone carriage
returns and U+2028, and would count different lines than the diff does. Positions of edits are
UTF-8 byte offsets, because pycrdt's `Text` counts bytes.

    >>> text_edits("one\ntwo\n", "one\n2\n")
    [TextEdit(at=4, delete=3, insert='2')]
    >>> apply_diff("one\ntwo\n", "@@ -2 +2 @@\n-two\n+2\n", "a.txt")
    'one\n2\n'
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import fast_diff_match_patch
import msgspec
import pygit2
from pygit2.enums import DiffOption

from angelos.core.errors import InvalidInput

MAX_DIFF_CHARS = 64_000
"""The longest diff that is stored for people to read."""
_BUDGET = 200_000_000
"""How much work the character diffs of one text may cost, in characters times characters: about a
second in the worst case. After that a part is replaced as one edit, less its common ends."""
_MAX_CHARACTERS = 4_000_000
"""A part that costs more than this is compared by words."""
_FEW_LINES = 8
"""Up to so many lines are compared as one text: some of them may have been moved or joined."""
_WORDS = re.compile(r"\w+|\n|[^\w\n]")
_CUT = re.compile(r"\n\.\.\. [0-9]+ characters more\n\Z")
"""No line of a unified diff begins with a dot."""
_HUNK = re.compile(r"^@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@")
_HEADERS = (
    "diff ",
    "index ",
    "old mode ",
    "new mode ",
    "new file mode ",
    "deleted file mode ",
    "similarity ",
    "--- ",
    "+++ ",
)


class TextEdit(msgspec.Struct, frozen=True):
    """Remove `delete` bytes at byte `at` of the text before, and insert there."""

    at: int
    delete: int
    insert: str


class Hunk(msgspec.Struct, frozen=True):
    """Lines `start:end` of one text became lines `new_start:new_end` of the other (from 0)."""

    start: int
    end: int
    new_start: int
    new_end: int


def lines(text: str) -> list[str]:
    r"""Return the lines of `text` with their ends; only `\n` ends a line."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def line_hunks(before: str, after: str) -> list[Hunk]:
    """Return the changed line ranges, in order.

    Source: libgit2's xdiff, which is Myers, "An O(ND) Difference Algorithm and Its Variations".
    """
    if before == after:
        return []
    old, new = before.encode(), after.encode()
    patch = _patch(old, new, context=0)
    hunks = []
    for hunk in patch.hunks:
        start = hunk.old_start - 1 if hunk.old_lines else hunk.old_start
        begin = hunk.new_start - 1 if hunk.new_lines else hunk.new_start
        hunks.append(Hunk(start, start + hunk.old_lines, begin, begin + hunk.new_lines))
    return hunks


def text_edits(before: str, after: str) -> list[TextEdit]:
    """Return the edits that turn `before` into `after`, the last one first.

    Applied in this order, no edit shifts the offset of a later one. The lines are compared first,
    then the lines of a large hunk without their indentation, then the words, then the characters:
    each step leaves less to the next, so that edits stay small in files of any size.
    """
    old, new = lines(before), lines(after)
    edits: list[TextEdit] = []
    offset, line, budget = 0, 0, _BUDGET
    for hunk in line_hunks(before, after):
        offset += _size("".join(old[line : hunk.start]))
        line = hunk.end
        removed, added = old[hunk.start : hunk.end], new[hunk.new_start : hunk.new_end]
        for old_part, new_part in _aligned(removed, added):
            hunk_edits, cost = _hunk_edits(old_part, new_part, offset, budget)
            edits += hunk_edits
            budget -= cost
            offset += _size(old_part)
    edits.reverse()
    return edits


def unified_diff(before: str | None, after: str | None, path: str) -> str:
    """Return a unified diff for people to read, cut at `MAX_DIFF_CHARS`; "" if nothing differs."""
    return bounded_diff(whole_diff(before, after, path))


def whole_diff(before: str | None, after: str | None, path: str) -> str:
    """Return a unified diff however long it is; "" if nothing differs."""
    if before == after:
        return ""
    old, new = (before or "").encode(), (after or "").encode()
    return _patch(old, new, context=3, path=path).text or ""


def bounded_diff(text: str) -> str:
    """Return a diff cut at `MAX_DIFF_CHARS`, with how much more there is."""
    if len(text) > MAX_DIFF_CHARS:
        return text[:MAX_DIFF_CHARS] + f"\n... {len(text) - MAX_DIFF_CHARS} characters more\n"
    return text


def is_cut(diff: str) -> bool:
    """Return whether `unified_diff` cut this diff."""
    return _CUT.search(diff) is not None


def apply_diff(base: str, diff: str, path: str) -> str | None:
    """Return `base` with a unified diff applied, or None if the diff removes the file.

    There is no fuzz: each context line and each removed line must be in the base at exactly the
    line that the hunk's header gives.

    Raises:
        InvalidInput: the diff is malformed or does not fit; the text names the hunk and the line.
    """
    rows = diff.split("\n")
    first = next((i for i, row in enumerate(rows) if _HUNK.match(row)), None)
    head = rows if first is None else rows[:first]
    removed = _check_head(head, path)
    if first is None and not removed:
        raise InvalidInput(
            f"The diff of {path} has no hunk.", hint="Each begins with @@ -a,b +c,d @@."
        )
    out: list[str] = []
    source = lines(base)
    at = 0
    for number, start, body in _hunks(rows[len(head) :], path):
        if start < at or start > len(source):
            raise InvalidInput(
                f"Hunk {number} of the diff of {path} begins at line {start + 1}, "
                f"but the base has {len(source)} lines and hunks must come in order."
            )
        out += source[at:start]
        at = start
        for sign, text in body:
            if sign == "+":
                out.append(text)
                continue
            line = source[at] if at < len(source) else None
            if line != text:
                raise InvalidInput(
                    f"Hunk {number} of the diff of {path} does not fit its base at line {at + 1}: "
                    f"the diff has {text!r}, the base {line!r}.",
                    hint="Make the diff against the exact content of the base revision.",
                )
            if sign == " ":
                out.append(text)
            at += 1
    text = "".join(out + source[at:])
    if removed and text:
        raise InvalidInput(
            f"The diff of {path} removes the file, but not all of its lines; nothing was applied.",
            hint="Make the diff against the exact content of the base revision.",
        )
    return None if removed else text


def _check_head(head: list[str], path: str) -> bool:
    """Check the lines before the first hunk; return whether the diff removes the file."""
    removed = False
    for row in head:
        if row.strip() and not row.startswith(_HEADERS):
            raise InvalidInput(f"The diff of {path} has the unknown line {row[:80]!r}.")
        if row.startswith(("--- ", "+++ ")):
            name = row[4:].split("\t")[0].strip()
            if name == "/dev/null":
                removed = removed or row.startswith("+++")
            elif path not in (name, name.partition("/")[2]):
                raise InvalidInput(f"The diff is of {name}, the edit of {path}.")
    return removed


def _hunks(rows: list[str], path: str) -> Iterator[tuple[int, int, list[tuple[str, str]]]]:
    """Yield (number from 1, first base line from 0, signed lines) of each hunk."""
    if rows and not rows[-1]:
        rows = rows[:-1]
    i, number = 0, 0
    while i < len(rows):
        match = _HUNK.match(rows[i])
        number += 1
        if match is None:
            raise InvalidInput(
                f"Hunk {number - 1} of the diff of {path} is followed by {rows[i][:80]!r}.",
                hint="A hunk's header must count its lines; an edit holds the diff of one file.",
            )
        a, b, _, d = (int(g) if g is not None else 1 for g in match.groups())
        i += 1
        missing, body = [b, d], []
        while i < len(rows) and (missing != [0, 0] or rows[i].startswith("\\")):
            sign, text = rows[i][:1] or " ", rows[i][1:]
            if sign == "\\":
                if not body:
                    raise InvalidInput(
                        f"Hunk {number} of the diff of {path} begins with {rows[i]!r}."
                    )
                body[-1] = (body[-1][0], body[-1][1].removesuffix("\n"))
                i += 1
                continue
            if sign not in " +-":
                raise InvalidInput(
                    f"Hunk {number} of the diff of {path} has a line that begins with {sign!r}."
                )
            missing = [missing[0] - (sign != "+"), missing[1] - (sign != "-")]
            body.append((sign, text + "\n"))
            i += 1
        if missing != [0, 0]:
            raise InvalidInput(
                f"Hunk {number} of the diff of {path} counts {b} lines before and {d} after, "
                f"but holds {b - missing[0]} and {d - missing[1]}."
            )
        yield number, (a - 1 if b else a), body


def _aligned(removed: list[str], added: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the parts of a hunk that correspond to each other, in order.

    Lines that differ in their indentation only are pairs; between them, where as many lines were
    removed as were added, each is a pair with the one in its place.
    """
    if len(removed) * len(added) <= 1:
        yield "".join(removed), "".join(added)
        return
    bare = ["".join(f"{line.strip()}\n" for line in side) for side in (removed, added)]
    old, new = 0, 0
    for hunk in [*line_hunks(*bare), Hunk(len(removed), len(removed), len(added), len(added))]:
        yield from zip(removed[old : hunk.start], added[new : hunk.new_start], strict=True)
        old, new = hunk.end, hunk.new_end
        old_part, new_part = removed[hunk.start : old], added[hunk.new_start : new]
        if len(old_part) == len(new_part) > _FEW_LINES:
            yield from zip(old_part, new_part, strict=True)
        elif old_part or new_part:
            yield "".join(old_part), "".join(new_part)


def _hunk_edits(removed: str, added: str, offset: int, budget: int) -> tuple[list[TextEdit], int]:
    """Return the edits of one part at byte `offset`, the first one first, and their cost."""
    head = _common_prefix(removed, added)
    offset += _size(removed[:head])
    removed, added = removed[head:], added[head:]
    tail = _common_prefix(removed[::-1], added[::-1])
    removed, added = removed[: len(removed) - tail], added[: len(added) - tail]
    cost = len(removed) * len(added)
    if not removed and not added:
        return [], 0
    if cost == 0 or budget <= 0:
        return [TextEdit(offset, _size(removed), added)], 0
    if cost > _MAX_CHARACTERS:
        return _word_edits(removed, added, offset), 0
    edits: list[TextEdit] = []
    pending: tuple[int, int, str] | None = None
    steps = fast_diff_match_patch.diff(
        removed, added, counts_only=False, timelimit=1, cleanup="Semantic"
    )
    for op, text in [*steps, ("=", "")]:
        if op == "=":
            if pending:
                edits.append(TextEdit(*pending))
                pending = None
            offset += _size(text)
            continue
        at, delete, insert = pending or (offset, 0, "")
        if op == "-":
            delete += _size(text)
            offset += _size(text)
        else:
            insert += text
        pending = (at, delete, insert)
    return edits, cost


def _word_edits(removed: str, added: str, offset: int) -> list[TextEdit]:
    """Return the edits of a part that is too large to compare by characters, word by word."""
    words = [_WORDS.findall(side) for side in (removed, added)]
    # A word a line, so that the line diff compares words; a line feed is a word of its own.
    rows = ["".join(word.replace("\n", "\r") + "\n" for word in side) for side in words]
    edits: list[TextEdit] = []
    end = 0
    for hunk in line_hunks(*rows):
        offset += _size("".join(words[0][end : hunk.start]))
        old = "".join(words[0][hunk.start : hunk.end])
        edits.append(TextEdit(offset, _size(old), "".join(words[1][hunk.new_start : hunk.new_end])))
        offset += _size(old)
        end = hunk.end
    return edits


def _common_prefix(a: str, b: str) -> int:
    """Return the length of the longest common prefix, by bisection."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _patch(before: bytes, after: bytes, context: int, path: str = "file") -> pygit2.Patch:
    """Return a patch that is valid only while the caller holds both texts.

    It points into their memory (libgit2, `git_patch_from_buffers`) and does not keep them alive.
    """
    # Without FORCE_TEXT git takes a text with a control character for binary and has no hunks.
    return pygit2.Patch.create_from(
        before,
        after,
        old_as_path=path,
        new_as_path=path,
        flag=DiffOption.FORCE_TEXT,
        context_lines=context,
    )


def _size(text: str) -> int:
    return len(text.encode())
