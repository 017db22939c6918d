"""Files that go into a task's box and come out of it, each named by its content's hash.

>>> check_inputs((InputFile(path="a.csv", sha256="0" * 64), InputFile(path="a.csv/b")))
Traceback (most recent call last):
angelos.core.errors.InvalidInput: a.csv is given as a file and as a folder.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.ids import Revision
from angelos.core.paths import matches, safe_path

FILE_BYTES = 10_000_000
"""The most that one file may have."""
TOTAL_BYTES = 64_000_000
"""The most that all files may have that go into one task, or come out of it."""
MAX_FILES = 500
MAX_PATTERNS = 100
BUNDLE_BYTES, MAX_BUNDLES = 256_000, 50
"""Of rich output that travels in the result itself; all of it has three times as much."""
INPUTS = "/in"
"""Where a box has its input files, read-only."""
DISPLAYS = ".angelos-display"
"""The folder in a task's `/tmp` in which its rich output waits to be collected."""
_Sha256 = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{64})?$")]


class InputFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that a task reads: one that was uploaded, or one of a revision."""

    path: Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
    """Where it stands in the box, below `/in`."""
    sha256: _Sha256 = ""
    """Of its content; may be left out for a file of a revision."""
    executable: bool = False
    repo: Annotated[str, msgspec.Meta(max_length=64)] = ""
    """The repository that holds it; empty for an uploaded file."""
    revision: Revision | None = None
    source: Annotated[str, msgspec.Meta(max_length=512)] = ""
    """Its path there, by default `path`."""


class OutputFile(msgspec.Struct, frozen=True, kw_only=True):
    """A regular file that a task left, kept by its content's hash."""

    path: str
    sha256: str
    size: int
    media_type: str = "application/octet-stream"
    """By its name alone."""
    executable: bool = False


class OutputLeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was asked for and was not taken."""

    path: str
    reason: str
    """A `core.sessions.NotCollectedReason`, or `not-stored`."""


class MimeBundle(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of rich output in several forms, as Jupyter's `display_data` has it.

    Whoever shows it decides which form; HTML and SVG come from the program and are not trusted.
    """

    data: dict[str, str]
    """Media type -> text; what is no text is in base64."""


def check_inputs(files: tuple[InputFile, ...]) -> None:
    """Raise `InvalidInput` unless each file has a place and a content of its own."""
    folders: set[str] = set()
    paths: set[str] = set()
    for file in files:
        safe_path(file.path)
        if file.path in paths:
            raise InvalidInput(f"The input {file.path} is given twice.")
        paths.add(file.path)
        parts = file.path.split("/")
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    if clash := paths & folders:
        raise InvalidInput(f"{min(clash)} is given as a file and as a folder.")
    for file in files:
        if bool(file.repo) != bool(file.revision):
            raise InvalidInput(f"The input {file.path} needs both repo and revision, or neither.")
        if not file.repo and (file.source or not file.sha256):
            raise InvalidInput(f"The input {file.path} needs the SHA-256 of an uploaded file.")
        if file.source:
            safe_path(file.source)


def may_write(path: str, patterns: tuple[str, ...]) -> bool:
    """Return whether a file that came out of a box may be written where somebody works.

    A hidden file or folder is a setting of some program; it is written where a pattern names it.

    >>> may_write("plots/a.png", ("**/*.png",)), may_write(".bashrc", ("*",))
    (True, False)
    """
    if not matches(path, patterns):
        return False
    hidden = any(part.startswith(".") for part in path.split("/"))
    plain = tuple(p for p in patterns if any(part.startswith(".") for part in p.split("/")))
    return not hidden or matches(path, plain)
