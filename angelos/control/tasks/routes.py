"""Routes of tasks."""

from __future__ import annotations

from typing import cast

from angelos.control.service import Control
from angelos.core.api import (
    Reason,
    SubmitTask,
    TaskList,
    TaskState,
    TaskView,
)
from angelos.core.ids import TaskId
from angelos.core.permissions import Permission
from angelos.core.routes import Call, Nothing, Route, choice, limit, wait_seconds


def routes(control: Control) -> list[Route]:
    """Return the routes of tasks."""
    return [*_writing(control), *_reading(control)]


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
        return TaskList(
            tasks=control.tasks.list(cast("TaskState | None", state), limit(call), call.principal)
        )

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
            query=("state", "limit"),
            summary="The newest tasks",
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
