r"""The files of tasks: uploaded by who runs one, fetched and kept by its node, read by readers.

view = await files.keep(b"a,b\n")                        # before the task is submitted
content = await files.input(node, task, view.sha256)     # by the node that runs it
content = await files.output(ada, task, "plot.png")      # by whoever may read what it printed
"""

from __future__ import annotations

import msgspec

from angelos.control.context import ControlContext
from angelos.control.state.models import TaskRecord
from angelos.control.tasks.reading import OutputReaders
from angelos.core.api import FileView
from angelos.core.errors import Forbidden, InvalidInput, NotFound
from angelos.core.ids import TaskId, is_revision
from angelos.core.messages import Command, RunTask, decode, decode_payload
from angelos.core.paths import safe_path
from angelos.core.permissions import Principal
from angelos.core.task_files import InputFile, check_inputs


class TaskFileService:
    """Keeps and shows the files of tasks."""

    def __init__(self, context: ControlContext) -> None:
        self._context = context
        self._readers = OutputReaders(context.projection, context.policy)

    async def keep(self, content: bytes) -> FileView:
        """Keep a file for a task to come; raise `Busy` where there is no room."""
        digest = await self._context.contents.put(content)
        return FileView(sha256=digest, size=len(content))

    async def resolved(self, files: tuple[InputFile, ...]) -> tuple[InputFile, ...]:
        """Return inputs with the hash of each content.

        Raises:
            InvalidInput: Two have one place, or one was not uploaded.
            NotFound: A revision has no such file.
        """
        if not files:
            return files
        check_inputs(files)
        uploaded = {file.sha256 for file in files if not file.repo}
        missing = uploaded - await self._context.contents.has(uploaded)
        if missing:
            raise InvalidInput(
                f"The file {min(missing)[:12]} was not uploaded, or is forgotten.",
                hint="Send it to POST /files first.",
            )
        return tuple([await self._of_revision(file) if file.repo else file for file in files])

    async def input(self, node: Principal, task: TaskId, digest: str) -> bytes:
        """Return the content of an input to the node that runs the task."""
        run = self._run_of(node, task)
        file = next((file for file in run.inputs if file.sha256 == digest), None)
        if file is None:
            raise NotFound(f"{task} has no input {digest[:12]}.")
        if file.repo and file.revision is not None:
            path = file.source or file.path
            return await self._context.repository.read(file.repo, file.revision, path)
        return await self._context.contents.get(digest)

    async def keep_output(self, node: Principal, task: TaskId, content: bytes) -> FileView:
        """Keep a file that a task has left, for the node that runs it."""
        if not self._run_of(node, task).outputs:
            raise Forbidden(f"{task} was asked for no files.")
        return await self.keep(content)

    async def output(self, reader: Principal, task: TaskId, path: str) -> bytes:
        """Return a file that a task has left, to whoever may read its output.

        Raises:
            Forbidden: The reader may not.
            NotFound: There is no such task or file, or it is forgotten.
        """
        record = self._record(task)
        if not self._readers.may_read(reader, record):
            raise Forbidden(f"What {task} has left is not yours to read.")
        files = record.result.files if record.result is not None else ()
        file = next((file for file in files if file.path == path), None)
        if file is None:
            raise NotFound(f"{task} has left no file {path[:80]!r}.")
        return await self._context.contents.get(file.sha256)

    def _run_of(self, node: Principal, task: TaskId) -> RunTask:
        """Return the run of an open task of this node; every other is refused alike."""
        record = self._context.projection.state.tasks.get(task)
        if record is None or record.node != node.id or not record.open:
            raise Forbidden(f"{task} does not run on {node.id}.")
        payload = decode_payload(decode(record.body, Command).payload)
        if not isinstance(payload, RunTask):
            raise Forbidden(f"{task} has no files.")
        return payload

    def _record(self, task: TaskId) -> TaskRecord:
        record = self._context.projection.state.tasks.get(task)
        if record is None:
            raise NotFound(f"There is no task {task}, or it is forgotten.")
        return record

    async def _of_revision(self, file: InputFile) -> InputFile:
        revision, path = file.revision, safe_path(file.source or file.path)
        if revision is None or not is_revision(revision):
            raise InvalidInput(f"{(revision or '')[:80]!r} is no revision.")
        entries = await self._context.repository.tree(file.repo, revision)
        entry = next((entry for entry in entries if entry.path == path), None)
        if entry is None:
            raise NotFound(f"{revision[:12]} of {file.repo} has no file {path}.")
        if file.sha256 not in {"", entry.sha256}:
            raise InvalidInput(f"{path} of {revision[:12]} has another hash.")
        return msgspec.structs.replace(file, sha256=entry.sha256)
