"""Collects what a task has left: files by its patterns, and rich output."""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Sequence

import msgspec

from angelos.core.errors import AngelError
from angelos.core.ids import TaskId
from angelos.core.messages import RunTask
from angelos.core.ports import SandboxSession
from angelos.core.sessions import CollectedFile, CollectLimits, NotCollectedReason
from angelos.core.task_files import (
    BUNDLE_BYTES,
    DISPLAYS,
    FILE_BYTES,
    MAX_BUNDLES,
    MAX_FILES,
    TOTAL_BYTES,
    MimeBundle,
    OutputFile,
    OutputLeftOut,
)
from angelos.node.files.models import TaskFiles

_FILES = CollectLimits(files=MAX_FILES, file_bytes=FILE_BYTES, total_bytes=TOTAL_BYTES)
_BUNDLES = CollectLimits(files=MAX_BUNDLES, file_bytes=BUNDLE_BYTES, total_bytes=3 * BUNDLE_BYTES)
_MAX_LEFT_OUT = 200
_decode = msgspec.json.Decoder(MimeBundle).decode


class Outputs(msgspec.Struct, kw_only=True):
    """What was collected of one task."""

    files: list[OutputFile] = []
    left_out: list[OutputLeftOut] = []
    displays: list[MimeBundle] = []


class OutputCollector:
    """Takes what a task has left and gives it to whoever keeps it."""

    def __init__(self, task: RunTask, files: TaskFiles) -> None:
        self._task = task
        self._files = files
        self.outputs = Outputs()

    async def ended(self, session: SandboxSession) -> None:
        """Collect from a session whose program has ended."""
        if self._task.outputs:
            await self._collect_files(session)
        if session.displayed:
            got = await session.collect((f"{DISPLAYS}/*.json",), _BUNDLES)
            self.outputs.displays += bundles(got.files)
            self._leave_out((file.path, file.reason) for file in got.left_out)

    async def _collect_files(self, session: SandboxSession) -> None:
        got = await session.collect(self._task.outputs, _FILES)
        ours = {file.path.split("/")[0] for file in self._task.inputs}
        self._leave_out(
            (file.path, file.reason)
            for file in got.left_out
            if not (file.reason is NotCollectedReason.link and file.path in ours)
        )
        for file in got.files:
            if file.path.split("/")[0] == DISPLAYS or self._is_program(file):
                continue
            if await self._kept(self._task.task, file.content):
                self.outputs.files.append(output_of(file))
            else:
                self._leave_out([(file.path, "not-stored")])

    def _is_program(self, file: CollectedFile) -> bool:
        """Return whether it is the copy of the code that the box has made for its children."""
        return file.path == "main.py" and file.content == self._task.code.encode(errors="replace")

    async def _kept(self, task: TaskId, content: bytes) -> bool:
        try:
            await self._files.keep(task, content)
        except AngelError:
            return False
        return True

    def _leave_out(self, rows: Iterable[tuple[str, str]]) -> None:
        for path, reason in rows:
            if len(self.outputs.left_out) < _MAX_LEFT_OUT:
                self.outputs.left_out.append(OutputLeftOut(path=path, reason=str(reason)))


def output_of(file: CollectedFile) -> OutputFile:
    """Return what the result says of a file; its type follows from its name alone."""
    media_type, encoding = mimetypes.guess_type(file.path, strict=False)
    return OutputFile(
        path=file.path,
        sha256=file.sha256,
        size=len(file.content),
        media_type=media_type if media_type and not encoding else "application/octet-stream",
        executable=file.executable,
    )


def bundles(files: Sequence[CollectedFile]) -> list[MimeBundle]:
    """Return the bundles that a program wrote; what is none is dropped, since it is its word."""
    valid: list[MimeBundle] = []
    for file in files:
        try:
            bundle = _decode(file.content)
        except (msgspec.DecodeError, ValueError):
            continue
        if bundle.data and all(len(name) < 128 and "/" in name for name in bundle.data):  # noqa: PLR2004
            valid.append(bundle)
    return valid
