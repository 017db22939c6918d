r"""Unified diffs of several files, as `diff -ru` and `git diff` write them, cut into edits.

>>> split("--- a/x.txt\n+++ b/x.txt\n@@ -1 +1 @@\n-old\n+new\n")
(UnifiedDiff(path='x.txt', diff='--- a/x.txt\n+++ b/x.txt\n@@ -1 +1 @@\n-old\n+new\n'),)
"""

from __future__ import annotations

import re

from angelos.core.errors import InvalidInput
from angelos.core.paths import safe_path
from angelos.core.repository import DeleteFile, Edit, NewText, UnifiedDiff

_HUNK = re.compile(r"^@@ -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@", re.ASCII)
_MORE = re.compile(r"[+ ]|-(?!-[ -])")  # not the next file's `--- `, not a mail's `-- `
_NOTHING = "/dev/null"


def split(text: str) -> tuple[Edit, ...]:
    """Return one edit for each file of a patch; raise `InvalidInput` when it is not one.

    A file made anew becomes a `NewText`, one that is removed a `DeleteFile`.
    """
    lines = text.splitlines(keepends=True)
    edits: list[Edit] = []
    at = 0
    while at < len(lines):
        if lines[at].startswith("--- ") and at + 1 < len(lines) and lines[at + 1][:4] == "+++ ":
            end = _end_of_file(lines, at + 2)
            edits.append(_edit(lines[at:end]))
            at = end
        elif lines[at].startswith("@@ "):
            raise InvalidInput(f"Line {at + 1} of the patch is a hunk of no file, or not readable.")
        elif lines[at].startswith(("GIT binary patch", "rename from", "copy from")):
            raise InvalidInput(
                f"Line {at + 1} of the patch is not a change of text: {lines[at].strip()!r}.",
                hint="Make the diff with --no-renames and without binary files.",
            )
        else:
            at += 1
    if not edits:
        raise InvalidInput("There is no change in the patch.", hint="Use the output of `diff -u`.")
    return tuple(edits)


def _end_of_file(lines: list[str], at: int) -> int:
    while at < len(lines) and (hunk := _HUNK.match(lines[at])):
        old, new = (int(count) if count is not None else 1 for count in hunk.groups())
        at += 1
        while at < len(lines) and (old > 0 or new > 0):
            mark = lines[at][:1]
            if mark not in {" ", "-", "+", "\\", "\n"}:
                raise InvalidInput(f"Line {at + 1} of the patch does not belong to its hunk.")
            old -= mark in {" ", "-", "\n"}
            new -= mark in {" ", "+", "\n"}
            at += 1
        if old or new:
            raise InvalidInput("The patch ends inside a hunk, or a hunk's counts are wrong.")
        if at < len(lines) and lines[at].startswith("\\"):
            at += 1
        if at < len(lines) and _MORE.match(lines[at]):
            raise InvalidInput(f"Line {at + 1} of the patch is more than its hunk's counts say.")
    return at


def _edit(lines: list[str]) -> Edit:
    before, after = _name(lines[0]), _name(lines[1])
    if _NOTHING not in {before, after}:
        if before.startswith("a/") and after.startswith("b/"):
            after = after[2:]
        return UnifiedDiff(path=safe_path(after), diff="".join(lines))
    if after == _NOTHING:
        return DeleteFile(path=safe_path(before.removeprefix("a/")))
    added = [line[1:] for line in lines[2:] if line.startswith("+")]
    if lines[-1].startswith("\\") and added:
        added[-1] = added[-1].rstrip("\n")
    return NewText(path=safe_path(after.removeprefix("b/")), text="".join(added))


def _name(line: str) -> str:
    return line[4:].rstrip("\r\n").partition("\t")[0].strip()
