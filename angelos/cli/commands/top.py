"""`angelos top`: nodes, tasks and queues, live."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING, TypeVar

import click

from angelos.cli.options import common
from angelos.cli.output import Out, masked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from angelos.cli.terminal import Terminal
    from angelos.cli.top_screen import Cursor, TopView
    from angelos.client import Angelos
    from angelos.core.api import TaskView

T = TypeVar("T")
_MOST_TASKS = 200
_LOOK_S = 1.0
_OUTPUT_BYTES = 65_536


@click.command()
@click.option("--once", is_flag=True, help="Print it once.")
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds between two looks.",
)
@common
def top(out: Out, *, once: bool, interval: float) -> None:
    """Show nodes, tasks, queues and what waits, live.

    Arrow keys choose a task, enter shows it with its output, c cancels it, q ends. With --json each
    look is one line.
    """
    from angelos.core.errors import InvalidInput

    if once:
        view = out.ask(snapshot)
        from angelos.cli.top_screen import text

        out.show(view, text(view))
        return
    if not out.as_json and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidInput("`angelos top` needs a terminal.", hint="Add --once or --json.")
    with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
        asyncio.run(_lines(out, interval) if out.as_json else _Top(out, interval).run())


async def snapshot(angelos: Angelos) -> TopView:
    """Return the system at this moment."""
    from angelos.cli.top_screen import TopView

    load, nodes, running, accepted = await asyncio.gather(
        angelos.load(),
        angelos.nodes.list(),
        angelos.tasks.list("running", _MOST_TASKS),
        angelos.tasks.list("accepted", _MOST_TASKS),
    )
    return TopView(load, nodes, (*running, *accepted))


async def _lines(out: Out, interval: float) -> None:
    while True:
        async with out.connect() as angelos:
            out.json(await snapshot(angelos))
        sys.stdout.flush()
        await asyncio.sleep(interval)


class _Top:
    """The live view: looks at the system every `interval`, and at once after each key."""

    def __init__(self, out: Out, interval: float) -> None:
        from angelos.cli.top_screen import Cursor

        self._out = out
        self._interval = interval
        self._view: TopView | None = None
        self._cursor: Cursor = Cursor()
        self._message = ""

    async def run(self) -> None:
        """Show it until a key or a signal ends it."""
        from angelos.cli.terminal import Terminal

        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, ended.set)
        self._view = await self._ask(snapshot)  # before the screen: an error is printed as ever
        with Terminal() as terminal:
            showing = asyncio.create_task(self._show(terminal), name="top")
            ending = asyncio.create_task(ended.wait(), name="signal")
            try:
                await asyncio.wait({showing, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                showing.cancel()
                ending.cancel()
                await asyncio.wait({showing, ending})
        if showing.done() and not showing.cancelled():
            showing.result()

    async def _show(self, terminal: Terminal) -> None:
        while True:
            self._draw(terminal)
            key = await self._key(terminal, self._interval)
            if key == "q":
                return
            await self._act(terminal, key)

    def _draw(self, terminal: Terminal) -> None:
        from angelos.cli.top_screen import Cursor, screen

        if self._view is not None:
            cursor = Cursor(self._cursor.task, self._message)
            terminal.draw(screen(self._view, cursor, terminal.size))

    async def _key(self, terminal: Terminal, patience_s: float) -> str:
        """Return the next key, an empty text if none comes in time."""
        try:
            async with asyncio.timeout(patience_s):
                return await terminal.keys.get()
        except TimeoutError:
            return ""

    async def _act(self, terminal: Terminal, key: str) -> None:
        from angelos.cli.top_screen import moved

        if key in {"up", "down"} and self._view is not None:
            self._message = ""
            self._cursor = moved(self._view, self._cursor, 1 if key == "down" else -1)
        elif key == "enter" and self._cursor.task:
            await self._look(terminal)
        elif key == "c" and self._cursor.task:
            await self._cancel(terminal)
        elif key != "resize":
            await self._refresh()

    async def _refresh(self) -> None:
        from angelos.core.errors import AngelError

        try:
            self._view = await self._ask(snapshot)
            self._message = ""
        except AngelError as error:
            self._message = f"{error} Trying again."

    async def _look(self, terminal: Terminal) -> None:
        """Show one task until a key."""
        from angelos.cli.top_screen import look
        from angelos.core.errors import AngelError

        while True:
            try:
                task, output = await self._ask(self._task)
            except AngelError as error:
                self._message = str(error)
                return
            terminal.draw(look(task, output, terminal.size))
            key = await self._key(terminal, self._interval)
            if key == "c":
                await self._cancel(terminal)
            if key not in {"", "resize"}:
                return

    async def _task(self, angelos: Angelos) -> tuple[TaskView, str]:
        """Return the chosen task and what it has printed so far."""
        task = angelos.tasks[self._cursor.task]
        view = await task.view()
        if view.result is not None:
            return view, masked((view.result.stdout + view.result.stderr).encode()).decode()
        data = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S), contextlib.aclosing(task.output()) as pieces:
                async for piece in pieces:
                    data = (data + getattr(piece, "data", b""))[-_OUTPUT_BYTES:]
        return view, masked(data).decode()

    async def _cancel(self, terminal: Terminal) -> None:
        from angelos.core.errors import AngelError

        name = self._cursor.task
        self._message = f"Cancel {name}? y: yes, any other key: no"
        self._draw(terminal)
        if await terminal.keys.get() != "y":
            self._message = "Not cancelled."
            return
        try:
            view = await self._ask(lambda angelos: angelos.tasks[name].cancel("by angelos top"))
        except AngelError as error:
            self._message = str(error)
        else:
            self._message = f"{name}: {view.reason or view.state}"

    async def _ask(self, question: Callable[[Angelos], Awaitable[T]]) -> T:
        async with self._out.connect() as angelos:
            return await question(angelos)
