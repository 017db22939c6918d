"""`angelos run`: a program in a sandbox on an execution node, its output as it comes."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.common import FAILED, Out, common, ending_signals, read_text

if TYPE_CHECKING:
    from angelos.client import Restarted
    from angelos.core.api import SubmitTask, TaskView
    from angelos.core.messages import Limits, TaskResult
    from angelos.core.runs import Output

_CANCEL_S = 10.0


@click.command()
@click.argument("file", required=False, metavar="[FILE]")
@click.option("-c", "--code", metavar="CODE", help="The program itself.")
@click.option("--language", type=click.Choice(["python"]), default="python", show_default=True)
@click.option("--timeout", type=float, metavar="S", help="Seconds it may take.")
@click.option("--memory", type=int, metavar="MB", help="Memory it may use.")
@click.option("--node", metavar="NAME", help="Run on this node.")
@common
def run(
    out: Out,
    file: str | None,
    code: str | None,
    language: str,
    timeout: float | None,
    memory: int | None,
    node: str | None,
) -> None:
    """Run FILE (- for standard input) or CODE in a sandbox on an execution node.

    Its output is printed as it comes. When its node dies it runs again once the node is back;
    a line on standard error says so. With --json, one last line tells how it ended and holds
    the output of the last attempt alone: status is ok, error, timeout, cpu, oom, pids, output,
    denied or killed.
    """
    from angelos.core.api import SubmitTask

    if (file is None) == (code is None):
        raise click.UsageError("Give either FILE or -c CODE.")
    text = code if code is not None else read_text(file or "", stdin=True)
    label = "-c" if code is not None else Path(file or "-").name
    assert language == "python"  # noqa: S101 - the only choice so far
    task = SubmitTask(
        language=language, code=text, limits=_limits(timeout, memory), node=node, label=label
    )
    if not text.strip():
        raise click.UsageError("The program is empty.")
    printer = _Printer()
    try:
        result = asyncio.run(_run(out, task, printer))
    except asyncio.CancelledError:  # a signal before the task was accepted, or a second one
        raise KeyboardInterrupt from None
    printer.end()
    if out.as_json:
        out.json(result)
    elif result.status != "ok":
        click.echo(f"angelos: {_why(result)}", err=True)
    sys.exit(0 if result.status == "ok" else FAILED)


async def _run(out: Out, task: SubmitTask, printer: _Printer) -> TaskResult:
    from angelos.client import Angelos, Restarted
    from angelos.core.errors import AngelError
    from angelos.core.messages import TaskResult

    accepted: list[TaskView] = []
    me = asyncio.current_task()
    if me is not None:  # the task is not left running
        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    async with Angelos.connect(out.data_dir, out.token) as angelos:
        try:
            async with contextlib.aclosing(
                angelos.stream(task, on_accept=accepted.append)
            ) as pieces:
                async for piece in pieces:
                    if isinstance(piece, TaskResult):
                        return piece
                    if isinstance(piece, Restarted):
                        printer.restart(piece)
                    else:
                        printer.write(piece)
        except asyncio.CancelledError:  # asked to end; leaving the stream has cancelled the task
            if not accepted or me is None:
                raise
            me.uncancel()
            click.echo(f"angelos: cancelled {accepted[0].id}.", err=True)
            view = await angelos.task(accepted[0].id, wait=_CANCEL_S)
            if view.result is None:
                raise AngelError(
                    f"{view.id} has not ended yet. {view.reason}".strip(),
                    hint="See angelos status.",
                ) from None
            return view.result
    raise AngelError("The stream of the task ended without a result.")


class _Printer:
    """Writes a task's output through, and remembers whether a line is open."""

    def __init__(self) -> None:
        self._open = False

    def write(self, piece: Output) -> None:
        stream = sys.stdout if piece.stream == "stdout" else sys.stderr
        stream.flush()
        stream.buffer.write(piece.data)
        stream.flush()
        if piece.stream == "stdout" and piece.data:
            self._open = not piece.data.endswith(b"\n")

    def restart(self, again: Restarted) -> None:
        """Tell that what was printed up to here is void."""
        self.end()
        self._open = False
        notice = f"[{again.node} was restarted: running again, attempt {again.attempt}]"
        click.echo(notice, err=True)

    def end(self) -> None:
        """Start a new line if the program's last one is open and somebody reads on."""
        if self._open:
            click.echo()


_OPTION_OF = {"wall_s": "--timeout", "cpu_s": "--timeout", "memory_mb": "--memory"}


def _limits(timeout: float | None, memory: int | None) -> Limits:
    from angelos.core.errors import InvalidInput
    from angelos.core.messages import Limits

    asked = Limits()
    try:
        return Limits(
            wall_s=timeout if timeout is not None else asked.wall_s,
            cpu_s=max(timeout if timeout is not None else asked.cpu_s, asked.cpu_s),
            memory_mb=memory if memory is not None else asked.memory_mb,
        )
    except ValueError as error:
        said = f"{error}."
        for field, option in _OPTION_OF.items():
            said = said.replace(field, option)
        raise InvalidInput(said) from error


def _why(result: TaskResult) -> str:
    known = ", ".join(f"{k}: {v}" for k, v in result.evidence.items() if k != "source")
    code = "" if result.exit_code is None else f" (exit code {result.exit_code})"
    return f"{result.status}{code} after {result.duration_s:.2f} s. {known}".strip()
