"""What the tests of real boxes share: running in one, and counting what a test has started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from angelos.core.errors import Unavailable
from angelos.core.run_session import run_session
from angelos.core.runs import Exit, Output, RunSpec
from angelos.node.sandbox import backstop
from angelos.node.sandbox import sandbox as sandbox_module
from angelos.node.sandbox.proc import parent, tree
from angelos.node.sandbox.sandbox import BubblewrapSandbox


class Children:
    """The processes that a test has started, apart from those that stood before (the stores)."""

    def __init__(self) -> None:
        self._before = self._direct()

    @staticmethod
    def _direct() -> set[int]:
        return {pid for pid in [*tree(os.getpid())][1:] if _parent(pid) == os.getpid()}

    def now(self) -> list[int]:
        return [pid for child in self._direct() - self._before for pid in tree(child)]

    def of_boxes(self) -> list[int]:
        """Leave out the backstop, which stands as long as its sandbox and is no box."""
        return [pid for pid in self.now() if not _is_backstop(pid)]


def _parent(pid: int) -> int:
    try:
        return parent(pid)
    except OSError:
        return 0


def _is_backstop(pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(backstop.__file__) in words


@pytest.fixture
def children() -> Children:
    return Children()


async def run(sandbox: BubblewrapSandbox, spec: RunSpec) -> tuple[Exit, str]:
    printed = b""
    async for event in run_session(sandbox, spec):
        if isinstance(event, Output):
            printed += event.data
        else:
            return event, printed.decode()
    raise AssertionError("no end")


def is_gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


@pytest.fixture
def no_bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise Unavailable("There is no bubblewrap.")

    monkeypatch.setattr(sandbox_module, "find_bwrap", missing)
