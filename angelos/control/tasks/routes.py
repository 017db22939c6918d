"""Routes of tasks."""

from __future__ import annotations

from typing import cast

from angelos.control.service import Control
from angelos.control.tasks.service import TaskQuery
from angelos.core.api import (
    FileView,
    Reason,
    SubmitTask,
    TaskList,
    TaskState,
    TaskView,
    UploadFile,
)
from angelos.core.ids import TaskId
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, choice, limit, period, wait_seconds


def routes(control: Control) -> list[Route]:
    """Return the routes of tasks."""
    return [*_writing(control), *_reading(control), *_files(control), *_serving(control)]


def _writing(control: Control) -> list[Route]:
    async def submit(call: Call[SubmitTask]) -> TaskView:
        return await control.tasks.submit(call.principal, call.body, call.trace)

    async def cancel(call: Call[Reason]) -> TaskView:
        task = TaskId(call.params["task"])
        return await control.tasks.cancel(call.principal, task, call.body.reason, call.trace)

    return [
        Route(
            "POST",
            "/tasks",
            Permission.tasks_run,
            submit,
            request=SubmitTask,
            response=TaskView,
            status=202,
            summary="Run code on a node",
        ),
        Route(
            "POST",
            "/tasks/{task}/cancel",
            Permission.tasks_cancel,
            cancel,
            request=Reason,
            response=TaskView,
            summary="Stop a task",
        ),
    ]


def _reading(control: Control) -> list[Route]:
    async def list_tasks(call: Call[Nothing]) -> TaskList:
        state = choice(call.query, "state", TaskState)
        query = TaskQuery(
            state=cast("TaskState | None", state),
            period=period(call),
            **{name: call.query.get(name, "") for name in ("author", "node", "repo", "after")},
        )
        return control.tasks.list(query, limit(call), call.principal)

    async def show(call: Call[Nothing]) -> TaskView:
        return await control.tasks.view(
            TaskId(call.params["task"]), wait_seconds(call), call.principal
        )

    return [
        Route(
            "GET",
            "/tasks",
            Permission.tasks_read,
            list_tasks,
            response=TaskList,
            query=("state", "author", "node", "repo", "since", "until", "after", "limit"),
            summary="Tasks, newest first, by state, author, node, repository and time",
        ),
        Route(
            "GET",
            "/tasks/{task}",
            Permission.tasks_read,
            show,
            response=TaskView,
            query=("wait",),
            summary="A task; wait=seconds waits for its end",
        ),
    ]


def _files(control: Control) -> list[Route]:
    files = control.tasks.files

    async def upload(call: Call[UploadFile]) -> FileView:
        return await files.keep(call.body.content)

    async def download(call: Call[Nothing]) -> bytes:
        path = call.query.get("path", "")
        return await files.output(call.principal, TaskId(call.params["task"]), path)

    return [
        Route(
            "POST",
            "/files",
            Permission.tasks_run,
            upload,
            request=UploadFile,
            response=FileView,
            status=201,
            summary="Keep a file for a task to come",
        ),
        Route(
            "GET",
            "/tasks/{task}/file",
            Permission.tasks_read,
            download,
            response=bytes,
            query=("path",),
            media_type="application/octet-stream",
            summary="A file that a task has left",
        ),
    ]


def _serving(control: Control) -> list[Route]:
    """Return what the node that runs a task asks for."""
    files = control.tasks.files

    async def fetch_input(call: Call[Nothing]) -> bytes:
        task, digest = TaskId(call.params["task"]), call.params["content"]
        return await files.input(call.principal, task, digest)

    async def keep_output(call: Call[UploadFile]) -> FileView:
        task = TaskId(call.params["task"])
        return await files.keep_output(call.principal, task, call.body.content)

    return [
        Route(
            "GET",
            "/tasks/{task}/inputs/{content}",
            Permission.tasks_serve,
            fetch_input,
            response=bytes,
            media_type="application/octet-stream",
            summary="An input of a task, for its node",
        ),
        Route(
            "POST",
            "/tasks/{task}/outputs",
            Permission.tasks_serve,
            keep_output,
            request=UploadFile,
            response=FileView,
            status=201,
            summary="Keep a file that a task has left, for its node",
        ),
    ]
