"""Tasks: code that runs in a sandbox on an execution node.

    result = await angelos.tasks.run("print(6 * 7)")        # wait for the end

    async with await angelos.tasks.start("...") as task:    # cancelled if the block is left early
        async for piece in task.output():
            ...
        result = await task.result()

    view = await angelos.tasks["task-0193..."].view()       # a handle needs no request

A task runs from its facts:

    submit -> view.offset -> facts task.started, task.output, task.output, ..., task.finished

A task whose node died is started again when the node is back, and what it printed before is void:
`output` yields a `Restarted` at that point.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

import msgspec

from angelos.client.events import follow
from angelos.client.transport import Transport, segments
from angelos.core import api
from angelos.core.errors import AngelError, TooLarge
from angelos.core.facts import Kind, TaskOutput, TaskResult, TaskStarted
from angelos.core.ids import CommandId, Offset, Revision, TaskId, new_command_id
from angelos.core.messages import Language, Limits, Priority, TaskAction, limits_for
from angelos.core.runs import Output
from angelos.core.task_files import FILE_BYTES, InputFile, check_inputs

_ACCEPTED_S = 5.0
"""How long a cancelled caller waits to learn whether its task was accepted."""
_KINDS = (Kind.task_started, Kind.task_output, Kind.task_finished)


class Restarted(msgspec.Struct, frozen=True):
    """The task begins anew: what was printed up to here is not part of its output."""

    attempt: int
    """How often the task was started, this time included; 2 or more."""
    node: str
    """The node that runs it."""


class TaskFilter(TypedDict, total=False):
    """Which tasks a page names."""

    state: str
    """`accepted`, `running`, `cut-off` or `finished`."""
    author: str
    """Who started it, or on whose behalf, such as `agent/ada`."""
    node: str
    repo: str
    """Of the proposal that it tests."""
    since: float
    """Unix seconds."""
    until: float
    after: str
    """`next` of the page before."""


class TaskOptions(TypedDict, total=False):
    """The options of a task besides its code."""

    language: Language
    """Of the code; by default Python.

    Beside Python, `argv` without code names a file or folder among the inputs, or in the checkout.
    """
    action: TaskAction
    """`check` or `test` instead of `run`, for the languages beside Python."""
    argv: Sequence[str]
    """The arguments of the code; without code, a program and its arguments."""
    stdin: str
    """What it reads from standard input."""
    repo: str
    """A repository whose checkout is the working directory; needs `revision`."""
    revision: Revision
    """The revision that is checked out."""
    limits: Limits
    """What it may use; by default what `limits_for(language)` says. A compiler has the same."""
    guard: bool
    """Apply the language's guard to the code before anything starts; by default it is applied."""
    node: str | None
    """The node that runs it; by default the least busy execution node."""
    inputs: Mapping[str, bytes | InputFile]
    """Files that stand read-only at `/in`, with links to them in `/tmp`: path -> content, or an
    `InputFile` of a revision or of an upload.
    """
    outputs: Sequence[str]
    """Patterns of files in `/tmp` that are kept when it has ended; see `Task.read`."""
    network: Sequence[str]
    """What it may reach: `https://host/prefix` (GET and HEAD), `GET,POST https://host/prefix`, or
    `tls://host` for a host as a whole; nothing by default.
    """
    packages: Sequence[str]
    """Python packages that it can import: `numpy`, `pandas==2.2.3`. The node installs them once, in
    a box of their own, and keeps them for later tasks.
    """
    lock: str
    """A file of the checkout that names packages, one a line."""
    label: str
    """A name by which people recognise it."""
    priority: Priority
    """`background` waits while others do; by default it is `normal`."""
    command: CommandId
    """The id of the request; by default a new one.

    The same id again gives the same task, and it runs once.
    """


class Task:
    """A handle on one task; `angelos.tasks[id]` and `angelos.tasks.start(...)` give one.

    As a context manager it owns the task: a block that is left before the end cancels it.

    Attributes:
        id: The task's id, such as `task-0193...`.
    """

    def __init__(self, transport: Transport, task: str) -> None:
        self.id = TaskId(task)
        self._transport = transport
        self._offset: Offset | None = None
        self._result: TaskResult | None = None

    def __repr__(self) -> str:
        return f"Task({self.id!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._result is None:
            await asyncio.shield(_cancel_quietly(self))

    async def view(self, wait: float = 0) -> api.TaskView:
        """Return the task as it is now.

        Args:
            wait: Seconds to wait for its end first; the server bounds them (60).

        Returns:
            Its state, node, attempt and, once it has ended, its result.

        Raises:
            NotFound: There is no such task.
            Unavailable: The server cannot be reached.
        """
        view = await self._transport.call(
            "GET",
            "/tasks" + segments(self.id),
            api.TaskView,
            query={"wait": wait or None},
            patience_s=wait,
        )
        return self._remember(view)

    async def output(self) -> AsyncGenerator[Output | Restarted, None]:
        """Yield the task's output from its beginning, as it comes, until the task ends.

        A restart of the server is survived. Of a task that has ended already, the output is taken
        from its result, one piece for each stream. Leaving the iterator does not cancel the task.

        Yields:
            Pieces of output, and `Restarted` where all pieces before are void.

        Raises:
            NotFound: There is no such task.
            Unavailable: The server cannot be reached for a minute.
        """
        offset = await self._start_offset()
        if self._result is not None:
            for piece in _output_of(self._result):
                yield piece
            return
        attempt = 0
        async with aclosing(follow(self._transport, offset, _KINDS, self.id)) as facts:
            async for fact in facts:
                match fact.payload():
                    case TaskOutput(stream=stream, text=text, raw=raw, omitted=omitted):
                        yield Output(stream, _bytes_of(text, raw), omitted)
                    case TaskStarted(attempt=number, node=node):
                        attempt = max(attempt + 1, number)
                        if attempt > 1:
                            yield Restarted(attempt, node)
                    case _ if fact.kind == Kind.task_finished:
                        self._result = fact.read(TaskResult)
                        return
                    case _:  # a piece of output that cannot be read: the result has the whole
                        continue

    async def result(self) -> TaskResult:
        """Wait for the end of the task; a restart of the server is survived.

        Use `asyncio.timeout` to wait no longer than that; it does not cancel the task.

        Returns:
            How it ended, with its whole output (of the last attempt).

        Raises:
            NotFound: There is no such task.
            Unavailable: The server cannot be reached for a minute.
        """
        offset = await self._start_offset()
        if self._result is not None:
            return self._result
        kinds = (Kind.task_finished,)
        async with aclosing(follow(self._transport, offset, kinds, self.id)) as facts:
            self._result = (await anext(facts)).read(TaskResult)
        return self._result

    async def cancel(self, reason: str = "") -> api.TaskView:
        """Stop the task; it ends with the status `killed`.

        Args:
            reason: Why; kept in the audit log.

        Returns:
            The task, which may still run for a moment.

        Raises:
            Conflict: It has ended already.
            Forbidden: The caller may not cancel this task.
            NotFound: There is no such task.
        """
        path = "/tasks" + segments(self.id, "cancel")
        body = api.Reason(reason=reason)
        return self._remember(await self._transport.call("POST", path, api.TaskView, body=body))

    async def read(self, path: str) -> bytes:
        """Return a file that the task has left (`TaskResult.files` names them).

        Args:
            path: Its path, as in the result.

        Raises:
            Forbidden: The caller may not read what the task printed.
            NotFound: It has left no such file, or the file is forgotten after a week.
        """
        route = "/tasks" + segments(self.id, "file")
        return await self._transport.fetch("GET", route, query={"path": path})

    async def input(self, digest: str) -> bytes:
        """Return the content of one of the task's inputs; for the node that runs it.

        Args:
            digest: Its SHA-256, in hex.

        Raises:
            Forbidden: The task does not run on this node.
        """
        return await self._transport.fetch("GET", "/tasks" + segments(self.id, "inputs", digest))

    async def keep_output(self, content: bytes) -> api.FileView:
        """Keep a file that the task has left; for the node that runs it.

        Args:
            content: At most 10 MB.

        Raises:
            Forbidden: The task does not run on this node, or was asked for no files.
            Busy: There is no room.
        """
        route = "/tasks" + segments(self.id, "outputs")
        body = api.UploadFile(content=content)
        return await self._transport.call("POST", route, api.FileView, body=body)

    async def _start_offset(self) -> Offset:
        """Return the offset after which the task's facts stand; ask only once."""
        return self._offset or (await self.view()).offset

    def _remember(self, view: api.TaskView) -> api.TaskView:
        self._offset, self._result = view.offset, view.result or self._result
        return view


class TaskCollection:
    """All tasks of a system: `angelos.tasks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def __getitem__(self, task: str) -> Task:
        """Return a handle on a task, without a request.

        Args:
            task: The task's id.
        """
        return Task(self._transport, task)

    async def list(self, state: str = "", limit: int = 50) -> tuple[api.TaskView, ...]:
        """Return tasks, newest first.

        Args:
            state: Only those in this state: `accepted`, `running` or `finished`.
            limit: At most so many.

        Raises:
            InvalidInput: There is no such state, or the limit is out of bounds.
            Forbidden: The caller may not read tasks.
        """
        return (await self.page(limit, state=state)).tasks

    async def page(self, limit: int = 50, **query: Unpack[TaskFilter]) -> api.TaskList:
        """Return a page of tasks, newest first, and how many there are in all.

        Args:
            limit: At most so many.
            **query: Which; by default all.

        Raises:
            InvalidInput: A filter has the wrong form, or the limit is out of bounds.
            NotFound: There is no such task as `after`.
            Forbidden: The caller may not read tasks.
        """
        given: dict[str, object] = {name: value for name, value in query.items() if value}
        return await self._transport.call(
            "GET", "/tasks", api.TaskList, query=given | {"limit": limit}
        )

    async def start(self, code: str = "", **options: Unpack[TaskOptions]) -> Task:
        """Start code, or a program, in a sandbox; return once it is accepted.

        A caller that is cancelled meanwhile leaves no task behind.

        Args:
            code: The source of a program; empty where `argv` is given.
            **options: `language`, `action`, `argv`, `stdin`, `repo`, `revision`, `limits`, `guard`,
                `node`, `inputs`, `outputs`, `network`,
                `packages`, `lock`, `priority`, `label`, `command`; see `TaskOptions`.

        Returns:
            A handle; as a context manager it cancels a task that is left before its end.

        Raises:
            InvalidInput: There is nothing to run, or an option is out of bounds.
            Forbidden: Policy does not permit it.
            Busy: Too many tasks wait already.
            Unavailable: No node can run it, or the server cannot be reached.
        """
        inputs = await self._uploaded(options.get("inputs", {}))
        submitting = asyncio.ensure_future(self._submit(_body(code, options, inputs)))
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            await asyncio.shield(_give_up(submitting))
            raise

    async def run(
        self,
        code: str = "",
        *,
        on_output: Callable[[Output], None] | None = None,
        on_restart: Callable[[Restarted], None] | None = None,
        **options: Unpack[TaskOptions],
    ) -> TaskResult:
        """Run code, or a program, in a sandbox and return how it ended.

        A caller that is cancelled cancels the task. A restart of the server is survived.

        Args:
            code: The source of a program; empty where `argv` is given.
            on_output: Called with each piece of output as it comes.
            on_restart: Called when the task begins anew because its node died; what
                `on_output` was given before is void.
            **options: `language`, `action`, `argv`, `stdin`, `repo`, `revision`, `limits`, `guard`,
                `node`, `inputs`, `outputs`, `network`,
                `packages`, `lock`, `priority`, `label`, `command`; see `TaskOptions`.

        Returns:
            Status, exit code, whole output and evidence. A program that fails is a result, not
            an error: look at `status`.

        Raises:
            InvalidInput: There is nothing to run, or an option is out of bounds.
            Forbidden: Policy does not permit it.
            Busy: Too many tasks wait already.
            Unavailable: No node can run it, or the server cannot be reached for a minute.
        """
        async with await self.start(code, **options) as task, aclosing(task.output()) as pieces:
            async for piece in pieces:
                if isinstance(piece, Restarted):
                    if on_restart is not None:
                        on_restart(piece)
                elif on_output is not None:
                    on_output(piece)
            return await task.result()

    async def _uploaded(self, inputs: Mapping[str, bytes | InputFile]) -> tuple[InputFile, ...]:
        """Upload contents and return the inputs by their hashes."""
        files: list[InputFile] = []
        for path, given in inputs.items():
            if isinstance(given, InputFile):
                files.append(msgspec.structs.replace(given, path=path))
                continue
            if len(given) > FILE_BYTES:
                raise TooLarge(f"{path} has {len(given)} bytes; a file has at most {FILE_BYTES}.")
            view = await self._transport.call(
                "POST", "/files", api.FileView, body=api.UploadFile(content=given)
            )
            files.append(InputFile(path=path, sha256=view.sha256))
        check_inputs(tuple(files))
        return tuple(files)

    async def _submit(self, body: api.SubmitTask) -> Task:
        view = await self._transport.call("POST", "/tasks", api.TaskView, body=body)
        task = self[view.id]
        task._remember(view)  # noqa: SLF001 - its own module
        return task


def _body(code: str, options: TaskOptions, inputs: tuple[InputFile, ...]) -> api.SubmitTask:
    """Return the request; it has an id, so that repeating it is one task."""
    argv = tuple(options.get("argv", ()))
    outputs = tuple(options.get("outputs", ()))
    fields: dict[str, Any] = {"command": new_command_id(), **options, "argv": argv}
    fields |= {"inputs": inputs, "outputs": outputs, "network": tuple(options.get("network", ()))}
    fields["packages"] = tuple(options.get("packages", ()))
    fields.setdefault("limits", limits_for(fields.get("language", "python")))
    return api.SubmitTask(code=code, **fields)


async def _give_up(submitting: asyncio.Future[Task]) -> None:
    """Cancel a task whose caller left while it was being submitted."""
    await asyncio.wait({submitting}, timeout=_ACCEPTED_S)
    if not submitting.done():
        submitting.cancel()
        await asyncio.wait({submitting})
    elif submitting.exception() is None:
        await _cancel_quietly(submitting.result())


async def _cancel_quietly(task: Task) -> None:
    try:
        await task.cancel("The caller went away.")
    except AngelError:
        return  # it may have ended meanwhile, and there is nobody to report to


def _bytes_of(text: str, raw: str) -> bytes:
    """Return the bytes of a piece of output; its text where they cannot be read."""
    try:
        return base64.b64decode(raw, validate=True) or text.encode(errors="surrogateescape")
    except ValueError:
        return text.encode(errors="surrogateescape")


def _output_of(result: TaskResult) -> list[Output]:
    streams: list[Output] = []
    if result.stdout:
        streams.append(Output("stdout", result.stdout.encode(errors="surrogateescape")))
    if result.stderr:
        streams.append(Output("stderr", result.stderr.encode(errors="surrogateescape")))
    return streams
