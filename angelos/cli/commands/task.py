"""`angelos task`: run programs in a sandbox on an execution node; see and stop them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from angelos.cli.endings import ending_signals, interruptible
from angelos.cli.groups import NounGroup
from angelos.cli.lookup import MANY, find_task
from angelos.cli.options import common, quiet, wait
from angelos.cli.output import FAILED, Out, masked, printable, table, when
from angelos.cli.reading import is_piped, read_source, read_text

if TYPE_CHECKING:
    from angelos.client import Angelos, Restarted
    from angelos.client.tasks import Task, TaskOptions
    from angelos.core.api import TaskView
    from angelos.core.facts import TaskResult
    from angelos.core.messages import Language, Limits, Priority, TaskAction
    from angelos.core.runs import Output

_CANCEL_S = 10.0


class _Files:
    """What a run is given from here, and what is written here of what it leaves."""

    def __init__(
        self, inputs: tuple[str, ...], outputs: tuple[str, ...], folder: Path, checkout: str | None
    ) -> None:
        """Read the inputs that are here; raise `InvalidInput` or `TooLarge`."""
        from angelos.cli.task_files import read_inputs
        from angelos.core.sessions import check_patterns

        self._here, self._there = read_inputs(inputs)
        self._taken = inputs
        self._patterns = check_patterns(outputs) if outputs else ()
        self._folder = folder
        self._checkout = checkout
        self.stdin: str | None = None
        """Where its standard input comes from; None: ours, if it is piped."""

    def add(self, path: str) -> None:
        """Take one more file or folder of here."""
        from angelos.cli.task_files import read_inputs

        self._taken = (*self._taken, path)
        self._here, self._there = read_inputs(self._taken)

    async def options(self, angelos: Angelos) -> TaskOptions:
        """Return the options that name files; branches are resolved now."""
        from angelos.core.task_files import InputFile

        options: TaskOptions = {"outputs": self._patterns}
        inputs: dict[str, bytes | InputFile] = {**self._here}
        for name, (repo, at, path) in self._there.items():
            revision = (await angelos.repos[repo].revision(at)).revision
            inputs[name] = InputFile(path=name, repo=repo, revision=revision, source=path)
        if inputs:
            options["inputs"] = inputs
        if self._checkout is not None:
            repo, _, at = self._checkout.partition("@")
            options["repo"] = repo
            options["revision"] = (await angelos.repos[repo].revision(at or "main")).revision
        return options

    async def fetch(self, task: Task, result: TaskResult) -> None:
        """Write what the task has left, and say what was not written."""
        from angelos.cli.task_files import write_output

        for file in result.files:
            content = await task.read(file.path)
            written = await asyncio.to_thread(
                write_output, self._folder, file.path, content, self._patterns
            )
            shown = printable(str(self._folder / file.path))
            text = f"{len(content)} bytes" if written else "not written: its name is hidden"
            click.echo(f"angelos: {shown} {text}", err=True)
        for left in result.left_out:
            click.echo(f"angelos: {printable(left.path)} was not taken: {left.reason}", err=True)


_EXTENSIONS = {
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".rs": "rust",
    ".go": "go",
    ".cs": "csharp",
    ".swift": "swift",
}
_LANGUAGES = ("python", *sorted(set(_EXTENSIONS.values())))


class _Language:
    """In which language a program is, what is done with it and when, and what it may reach."""

    def __init__(
        self, language: str | None, action: str, surroundings: TaskOptions, *, background: bool
    ) -> None:
        self._surroundings = surroundings
        self._priority: Priority = "background" if background else "normal"
        self._language = language
        self._action = action

    def of(self, file: str | None) -> Language:
        """Return the language of a file: the one that was named, else by its extension."""
        by_name = _EXTENSIONS.get(Path(file or "").suffix, "python")
        return cast("Language", self._language or by_name)

    def folder(self, file: str | None) -> bool:
        """Return whether a program is a folder."""
        return file not in {None, "-"} and Path(file or "").is_dir()

    def read(self, file: str) -> str:
        """Return the text of a program; empty for a folder."""
        if self.folder(file):
            if self.of(file) == "python":
                raise click.UsageError(
                    f"{file} is a folder: name its --language, or give it by --in."
                )
            return ""
        return read_source(file) if self.of(file) == "python" else read_text(file, stdin=True)

    def options(self, file: str | None, args: tuple[str, ...], files: _Files) -> TaskOptions:
        """Return the options that say what is run."""
        action = cast("TaskAction", self._action)
        if self.folder(file):
            files.add(file or "")
            args = (Path(file or "").resolve().name, *args)
        return {
            "language": self.of(file),
            "action": action,
            "argv": args,
            "priority": self._priority,
            **self._surroundings,
        }


def _language_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of languages, and pass them as `program`."""

    @click.option(
        "--language", type=click.Choice(_LANGUAGES), help="By default that of FILE's extension."
    )
    @click.option(
        "--check", "action", flag_value="check", help="Only check it, as a compiler does."
    )
    @click.option("--test", "action", flag_value="test", help="Run its tests.")
    @click.option("--background", is_flag=True, help="Wait while other tasks of the node do.")
    @_surroundings
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        language: str | None,
        action: str | None,
        background: bool,
        surroundings: TaskOptions,
        **kwargs: Any,
    ) -> None:
        program = _Language(language, action or "run", surroundings, background=background)
        command(*args, program=program, **kwargs)

    return wrapped


def _surroundings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of packages and the network, and pass them together."""

    @click.option(
        "--with",
        "packages",
        multiple=True,
        metavar="PACKAGE",
        help="A Python package that it can import: numpy, pandas==2.2.3.",
    )
    @click.option(
        "--requirements",
        metavar="FILE",
        help="A file of such packages, one a line.",
    )
    @click.option("--lock", metavar="PATH", default="", help="The same, of the --checkout.")
    @click.option(
        "--net",
        "network",
        multiple=True,
        metavar="RULE",
        help="What it may reach: https://HOST/PREFIX, 'GET,POST https://HOST/PREFIX', tls://HOST.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        network: tuple[str, ...],
        packages: tuple[str, ...],
        requirements: str | None,
        lock: str,
        **kwargs: Any,
    ) -> None:
        from angelos.core.errors import AngelError
        from angelos.core.requirements import parse_requirements

        if requirements is not None:
            try:
                packages = (*parse_requirements(read_text(requirements)), *packages)
            except AngelError as error:
                raise click.UsageError(str(error)) from error
        options: TaskOptions = {"network": network, "packages": packages, "lock": lock}
        command(*args, surroundings=options, **kwargs)

    return wrapped


def _file_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name files, and pass them as `files`."""

    @click.option(
        "--input",
        "stdin",
        metavar="FILE",
        help="Its standard input; by default ours if piped.",
    )
    @click.option(
        "--in",
        "inputs",
        multiple=True,
        metavar="PATH",
        help="A file or folder that it reads, or REPO[@REVISION]:PATH of a repository.",
    )
    @click.option(
        "--out",
        "outputs",
        multiple=True,
        metavar="GLOB",
        help="Files in its working folder that are written here when it has ended.",
    )
    @click.option(
        "--out-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(),
        metavar="DIR",
        help="Where they are written; by default here.",
    )
    @click.option(
        "--checkout", metavar="REPO[@REVISION]", help="Run in a revision of a repository."
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        inputs: tuple[str, ...],
        outputs: tuple[str, ...],
        out_dir: Path,
        checkout: str | None,
        stdin: str | None,
        **kwargs: Any,
    ) -> None:
        files = _Files(inputs, outputs, out_dir, checkout)
        files.stdin = stdin
        command(*args, files=files, **kwargs)

    return wrapped


@click.group(cls=NounGroup)
def task() -> None:
    """Run code in a sandbox; see and stop what runs."""


@task.command(context_settings={"allow_interspersed_args": False})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[FILE] [ARGS]...")
@click.option("-c", "--code", metavar="CODE", help="The program itself.")
@_language_options
@click.option("--timeout", type=float, metavar="S", help="Seconds it may take.")
@click.option("--cpu", type=float, metavar="S", help="Processor seconds of all its processes.")
@click.option("--memory", type=int, metavar="MB", help="Memory it may use.")
@click.option("--disk", type=int, metavar="MB", help="What it may write to /tmp.")
@click.option("--pids", type=int, metavar="N", help="Processes and threads at once.")
@click.option("--output", type=int, metavar="BYTES", help="What it may print in all.")
@_file_options
@click.option("--exit-code", is_flag=True, help="End with the program's own exit code.")
@click.option("--node", metavar="NAME", help="Run on this node.")
@common
def run(
    out: Out,
    *,
    words: tuple[str, ...],
    code: str | None,
    program: _Language,
    node: str | None,
    files: _Files,
    exit_code: bool,
    **limited: float | None,
) -> None:
    """Run FILE (- for standard input) or CODE in a sandbox on a node, with ARGS as its arguments.

    The language is the one of FILE's extension, else Python. FILE may be a folder, as a project.

    Options for angelos come before FILE: what follows it is the program's, as in python FILE ARGS.
    Its standard input is ours where that is a file or a pipe, up to its end.

    What --in names stands at /in and, by its name, in the working folder; modules there can be
    imported. What --out names is written below --out-dir: links and hidden files never, and an
    older file of the same name is replaced.

    Its output is printed as it comes, byte for byte into a pipe. Of more than --output bytes the
    first and the last are printed. When its node dies it runs again once the node is back; a line
    on standard error says so. With --json, one last line says how it ended and holds the output of
    the last attempt alone: status is ok, error, timeout, cpu, oom, pids, output, denied or killed.
    """
    file, args = (None, words) if code is not None else (words[0] if words else None, words[1:])
    with interruptible():  # standard input may never end
        text, given = _read(file, code, files.stdin, program)
    options: TaskOptions = {
        **program.options(file, args, files),
        "stdin": given,
        "limits": _limits(limited.pop("timeout"), program.of(file), **limited),
        "node": node,
        "label": "-c" if code is not None else Path(file or "-").name,
    }

    async def start(angelos: Angelos) -> Task:
        options.update(await files.options(angelos))
        return await angelos.tasks.start(text, **options)

    printer = _Printer()
    try:
        result = asyncio.run(_run(out, start, printer, files.fetch))
    except asyncio.CancelledError:  # a signal before the task was accepted, or a second one
        raise KeyboardInterrupt from None
    _conclude(out, result, printer)
    sys.exit(_code_of(result, own=exit_code))


@task.command("list")
@click.option(
    "--state", default="", help="Only those that are accepted, running, cut-off or finished."
)
@click.option("--limit", type=click.IntRange(1, MANY), default=50, show_default=True)
@quiet
@common
def list_tasks(out: Out, *, state: str, limit: int, quiet: bool) -> None:
    """List tasks, newest first."""
    views = out.ask(lambda angelos: angelos.tasks.list(state=state, limit=limit))
    if quiet:
        out.ids(view.id for view in views)
        return
    rows = [(v.id, _state(v), v.by, v.node, when(v.at), v.label[:48]) for v in views]
    text = table(("task", "state", "by", "node", "time", "label"), rows)
    out.show({"tasks": views}, text if rows else "There are no such tasks.")


@task.command()
@click.argument("task", metavar="ID")
@wait("for its end")
@common
def show(out: Out, task: str, wait: float) -> None:
    """Show task ID: how it stands, and its output.

    A unique prefix of the ID is enough.
    """

    async def look(angelos: Angelos) -> TaskView:
        handle = await find_task(angelos, task)
        if wait:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await handle.result()
        return await handle.view()

    view = out.ask(look)
    parts = [_describe(view)]
    if view.result is not None:
        parts += [part for part in (view.result.stdout, view.result.stderr) if part]
    out.show(view, "\n".join(map(printable, "\n".join(parts).splitlines())))


@task.command()
@click.argument("task", metavar="ID")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@common
def cancel(out: Out, task: str, reason: str) -> None:
    """Stop task ID; a unique prefix of it is enough."""

    async def cancel(angelos: Angelos) -> TaskView:
        handle = await find_task(angelos, task)
        await handle.cancel(reason)
        return await handle.view(wait=_CANCEL_S)

    view = out.ask(cancel)
    out.show(view, _describe(view))


def _code_of(result: TaskResult, *, own: bool) -> int:
    """Return our exit code; with `own` the program's, if it has one."""
    if own and result.exit_code is not None:
        return result.exit_code
    return 0 if result.status == "ok" else FAILED


def _conclude(out: Out, result: TaskResult, printer: _Printer) -> None:
    """Say how a run ended, unless it ended well."""
    if out.as_json or sys.stdout.isatty():  # into a pipe nothing but the program's bytes
        printer.end()
    if out.as_json:
        out.json(result)
    elif result.status != "ok":
        click.echo(f"angelos: {_why(result)}", err=True)


def _read(
    file: str | None, code: str | None, stdin: str | None, program: _Language
) -> tuple[str, str]:
    """Return a program and its input; of a folder the program is empty."""
    if file is None and code is None:
        raise click.UsageError("Give FILE or -c CODE.")
    if file == stdin == "-":
        raise click.UsageError("The program and its input cannot both be standard input.")
    text = code if code is not None else program.read(file or "")
    if not text.strip() and not program.folder(file):
        raise click.UsageError("The program is empty.")
    if stdin is None and file != "-" and is_piped():
        stdin = "-"
    return text, "" if stdin is None else read_text(stdin, stdin=True)


def _state(view: TaskView) -> str:
    return view.state if view.result is None else str(view.result.status)


def _describe(view: TaskView) -> str:
    lines = [f"{view.id}  {_state(view)}  {view.label}"]
    if view.reason:
        lines.append(f"  {view.reason}")
    if view.result is not None:
        lines.append(f"  {_why(view.result)}")
    if view.reported is not None:
        lines.append(f"  Its node reported later: {view.reported.status}; {_why(view.reported)}")
    attempt = f", attempt {view.attempt}" if view.attempt > 1 else ""
    lines.append(f"  {when(view.at)}, by {view.by} on {view.node}{attempt}")
    return "\n".join(lines)


async def _run(
    out: Out,
    start: Callable[[Angelos], Awaitable[Task]],
    printer: _Printer,
    fetch: Callable[[Task, TaskResult], Awaitable[None]],
) -> TaskResult:

    me = asyncio.current_task()
    if me is not None:  # the task is not left running
        for number in ending_signals():
            asyncio.get_running_loop().add_signal_handler(number, me.cancel)
    async with out.connect() as angelos:
        running = await start(angelos)
        try:
            async with running:
                result = await _follow(running, printer)
            await fetch(running, result)
        except asyncio.CancelledError:  # asked to end; leaving the block has cancelled the task
            if me is None:
                raise
            me.uncancel()
            click.echo(f"angelos: cancelled {running.id}.", err=True)
            return await _ended(running)
        return result


async def _follow(running: Task, printer: _Printer) -> TaskResult:
    """Print a task's output as it comes; return how it ended."""
    from angelos.client import Restarted

    async with contextlib.aclosing(running.output()) as pieces:
        async for piece in pieces:
            if isinstance(piece, Restarted):
                printer.restart(piece)
            else:
                printer.write(piece)
    return await running.result()


async def _ended(cancelled: Task) -> TaskResult:
    """Return how a cancelled task ended; it is given some seconds."""
    from angelos.core.errors import AngelError

    view = await cancelled.view(wait=_CANCEL_S)
    if view.result is None:
        raise AngelError(
            f"{view.id} has not ended yet. {view.reason}".strip(),
            hint=f"See angelos task show {view.id}.",
        )
    return view.result


class _Printer:
    """Writes a task's output through, and remembers whether a line is open."""

    def __init__(self) -> None:
        self._open = False

    def write(self, piece: Output) -> None:
        stream = sys.stdout if piece.stream == "stdout" else sys.stderr
        stream.flush()
        if piece.omitted:
            click.echo(f"[{piece.omitted} bytes of {piece.stream} are left out here]", err=True)
        stream.buffer.write(masked(piece.data) if stream.isatty() else piece.data)
        stream.flush()
        if piece.stream == "stdout" and piece.data:
            self._open = not piece.data.endswith(b"\n")

    def restart(self, again: Restarted) -> None:
        """Say that what was printed up to here is void."""
        self.end()
        self._open = False
        notice = f"[{again.node} was restarted: running again, attempt {again.attempt}]"
        click.echo(notice, err=True)

    def end(self) -> None:
        """Start a new line if the program's last one is open and somebody reads on."""
        if self._open:
            click.echo()


_OPTION_OF = {
    "wall_s": "--timeout", "cpu_s": "--cpu", "memory_mb": "--memory", "disk_mb": "--disk",
    "pids": "--pids", "output_bytes": "--output",
}  # fmt: skip


def _limits(timeout: float | None, language: str = "python", **limited: float | None) -> Limits:
    """Return limits; without `cpu` a program may compute for as long as it may run."""
    import msgspec

    from angelos.core.errors import InvalidInput
    from angelos.core.messages import limits_for

    default = limits_for(language)
    fields = {"wall_s": timeout}
    for field, option in _OPTION_OF.items():
        fields.setdefault(field, limited.get(option.strip("-")))
    chosen = {field: value for field, value in fields.items() if value is not None}
    if timeout is not None:
        chosen.setdefault("cpu_s", max(timeout, default.cpu_s))
    try:
        return msgspec.structs.replace(default, **chosen)
    except ValueError as error:
        reason = f"{error}."
        for field, option in _OPTION_OF.items():
            shown = "--timeout" if field == "cpu_s" and limited.get("cpu") is None else option
            reason = reason.replace(field, shown)
        raise InvalidInput(reason) from error


def _why(result: TaskResult) -> str:
    evidence = ", ".join(f"{k}: {v}" for k, v in result.evidence.items() if k != "source")
    code = "" if result.exit_code is None else f" (exit code {result.exit_code})"
    return f"{result.status}{code} after {result.duration_s:.2f} s. {evidence}".strip()
