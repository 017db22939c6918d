"""`angelos demo`: the main job, end to end, on real parts, in a temporary directory."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
import msgspec

from angelos.adapters.host.trees import remove_tree
from angelos.cli.endings import ending_signals
from angelos.cli.extras import require
from angelos.cli.output import FAILED, Out
from angelos.core.ids import is_id, is_revision

_WIDTH = 110


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one line of JSON on stdout.")
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="Use this empty directory and keep it, so that the stores can be inspected.",
)
def demo(as_json: bool, keep: Path | None) -> None:  # noqa: FBT001 - click passes flags so
    """Run the whole main job: import, merge, test, review, deploy, attack, undo, audit."""
    if keep and keep.exists() and any(keep.iterdir()):
        raise click.UsageError(f"{keep} is not empty; give a new directory.")
    with Out(None, as_json=as_json).errors():
        require("server")
    data_dir = keep or Path(tempfile.mkdtemp(prefix="angelos-demo-"))
    try:
        report = asyncio.run(run_demo(data_dir, as_json=as_json, temporary=keep is None))
    except asyncio.CancelledError:
        click.echo("Interrupted; everything that was started has been stopped.", err=True)
        sys.exit(FAILED)
    finally:
        if keep is None:
            with contextlib.suppress(OSError):
                remove_tree(data_dir)
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    sys.exit(0 if report["ok"] else FAILED)


async def run_demo(data_dir: Path, *, as_json: bool, temporary: bool) -> dict[str, Any]:
    """Start the system, run the steps until one fails, stop the system; return the report."""
    from angelos.demo.steps import STEPS
    from angelos.demo.world import AGENTS, start_agent, start_up

    _end_on_signals()

    def show(text: str) -> None:
        click.echo(text, err=as_json)

    began = time.monotonic()
    steps: list[dict[str, Any]] = []
    show("Starting AngelOS: PostgreSQL, Valkey, Jupyter Server, hub, two nodes ...")
    async with AsyncExitStack() as stack:
        try:
            world = await start_up(data_dir, stack, temporary=temporary)
            for name in AGENTS:
                await start_agent(world, name, stack)
        except _failures() as error:
            show(f"The system did not start: {_reason(error)}")
            return {"ok": False, "seconds": round(time.monotonic() - began, 2), "steps": []}
        show(f"  ready, with three agents, after {time.monotonic() - began:.1f} s")
        for number, (name, title, step) in enumerate(STEPS, 1):
            started = time.monotonic()
            row: dict[str, Any] = {"name": name, "ok": True, "seconds": 0.0, "evidence": {}}
            try:
                row["evidence"] = await step(world)
            except _failures() as error:
                row |= {"ok": False, "evidence": {"error": _reason(error)}}
            row["seconds"] = round(time.monotonic() - started, 3)
            steps.append(row)
            mark = "ok    " if row["ok"] else "FAILED"
            show(f"  {number}. {mark} {row['seconds']:6.2f} s  {title}")
            if not row["ok"]:
                show(f"     {row['evidence']['error']}")
                show(f"     The logs are in {data_dir / 'logs'} (use --keep to have them stay).")
                break
            for line in _lines(row["evidence"]):
                show(line)
    done = len(steps) == len(STEPS) and all(step["ok"] for step in steps)
    verdict = "All steps did" if done else "Not all steps did"
    show(f"{verdict} what they say, {time.monotonic() - began:.1f} s in all.")
    return {"ok": done, "seconds": round(time.monotonic() - began, 2), "steps": steps}


def _end_on_signals() -> None:
    """Have the first signal that asks us to end cancel this task; it then stops all it started."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    numbers = ending_signals()

    def end() -> None:
        for number in numbers:
            loop.add_signal_handler(number, lambda: None)  # stopping is under way
        if task is not None:
            task.cancel()

    for number in numbers:
        loop.add_signal_handler(number, end)


def _failures() -> tuple[type[Exception], ...]:
    """Return what a step raises when it does not do what it says."""
    from angelos.core.errors import AngelError
    from angelos.demo.world import StepFailed

    return StepFailed, AngelError, TimeoutError, ExceptionGroup


def _reason(error: BaseException) -> str:
    """Return one line about a failure; of several at once, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _lines(evidence: dict[str, Any]) -> list[str]:
    """Return the evidence in lines that fit a terminal; `--json` has all of it."""
    lines = [_flat(evidence)]
    for name, value in evidence.items():
        if isinstance(value, dict):
            rows = [(name, value), *value.items()]
        else:
            rows = [(name, row) for row in value] if isinstance(value, list) else []
        flats = [(n, _flat(row)) for n, row in rows if isinstance(row, dict)]
        lines += [f"{n}: {flat}" for n, flat in flats if flat]
    return [f"     {line}"[:_WIDTH] for line in lines if line]


def _flat(row: dict[str, Any]) -> str:
    """Return the plain values of a row, long ones cut."""
    parts: list[str] = []
    for key, value in row.items():
        if isinstance(value, str) and (is_revision(value) or is_id(value)):
            parts.append(f"{key} {value[: 17 if is_id(value) else 12]}")
        elif isinstance(value, str | int | float) and value != "":
            parts.append(f"{key} {' '.join(str(value).split())}"[:56])
    return ", ".join(parts)
