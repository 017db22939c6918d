r"""Sessions: a program in a box that one talks to while it runs.

One seam carries programs, compilers, test steps, kernels and terminals: `SessionSandbox.start`
gives a `SandboxSession`. A plain run is a session that nobody talks to (`run_session.py`):

    async for event in run_session(sandbox, RunSpec(argv=(), code="print(1)", limits=Limits())):
        ...  # Output(stream="stdout", data=b"1\n"), then Exit(status=Status.ok, ...)
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from angelos.core.errors import InvalidInput
from angelos.core.messages import Input
from angelos.core.paths import safe_path
from angelos.core.reports import Nonce
from angelos.core.runs import RunSpec

MAX_STDIN_PIECE = 1024 * 1024
_Cells = Annotated[int, msgspec.Meta(ge=1, le=1_000)]


class TerminalSize(Input, frozen=True, kw_only=True):
    """The size of a terminal in characters."""

    rows: _Cells = 24
    columns: _Cells = 80


class SessionSignal(StrEnum):
    """What a session can be sent."""

    interrupt = "interrupt"
    """SIGINT, as Ctrl-C: to the foreground of a terminal, else to the program itself."""
    terminate = "terminate"
    """SIGTERM to the program."""
    hangup = "hangup"
    """SIGHUP to the program."""
    kill = "kill"
    """The end of every process in the box; the status is `killed`."""


class SessionSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a sandbox starts, and what one may do with it then."""

    run: RunSpec
    """Program, first input, environment, read-only folders, limits."""
    interactive: bool = False
    """Standard input stays open after `run.stdin`, for `write_stdin`."""
    terminal: TerminalSize | None = None
    """Standard input, output and error are one terminal; its output comes as `stdout`."""
    writable: str = ""
    """Path inside of one folder, empty at first, in which the program may write and from which
    `collect` takes; it counts as disk. Empty: there is none but /tmp."""
    shared: dict[str, str] = {}
    """Path inside -> folder of the host that the program may change, such as a notebook's."""
    loopback: bool = False
    """The box may open TCP and UDP sockets; all that they reach is its own loopback."""
    broker: bool = False
    """A socket listens on the box's loopback, and whoever started the session answers on it
    (`SandboxSession.listener`): the one way out. It takes `loopback` with it."""
    report: Nonce | None = None
    """Give the program a report channel (its descriptor's number is in `ANGELOS_REPORT_FD`, not
    inherited by what it starts) for this run."""

    def __post_init__(self) -> None:
        """Refuse a terminal whose input would end at once, and a relative folder."""
        if self.terminal is not None and not self.interactive:
            raise ValueError("A terminal is interactive.")
        if self.writable and not self.writable.startswith("/"):
            raise ValueError("The writable folder is an absolute path inside the box.")


class CollectLimits(Input, frozen=True, kw_only=True):
    """How much of what a program wrote is taken out of its box."""

    files: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    file_bytes: Annotated[int, msgspec.Meta(ge=1, le=64_000_000)] = 16_000_000
    total_bytes: Annotated[int, msgspec.Meta(ge=1, le=256_000_000)] = 64_000_000


class CollectedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A regular file that a program wrote."""

    path: str
    """Below the writable folder; a safe path."""
    sha256: str
    content: bytes
    executable: bool = False


class NotCollectedReason(StrEnum):
    """Why a file that was asked for was not taken."""

    link = "link"
    """A symbolic link, or it lies below one: links are never followed."""
    special = "special"
    """A device, pipe, socket or directory."""
    too_large = "too-large"
    too_many = "too-many"
    """The limit of files or of bytes in all was reached before it."""
    unsafe_name = "unsafe-name"
    changed = "changed"
    """Something still wrote to it while it was read."""


class NotCollected(msgspec.Struct, frozen=True, kw_only=True):
    """A file that was not taken, by the name it has (what is no Unicode is replaced)."""

    path: str
    reason: NotCollectedReason


class Collected(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken out of a box and what was left, each in the order of paths."""

    files: tuple[CollectedFile, ...]
    left_out: tuple[NotCollected, ...] = ()


def check_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return patterns of `core.paths.matches` if each can only name files below a folder.

    Raises:
        InvalidInput: There is none, there are over 100, or one is absolute or holds `..`.
    """
    if not 0 < len(patterns) <= 100:  # noqa: PLR2004
        raise InvalidInput("Name 1 to 100 patterns of files to collect.")
    for pattern in patterns:
        safe_path(pattern)
    return patterns
