"""The options that every command has.

For example:

    @task.command("list")
    @common
    def list_tasks(out: Out) -> None:
        views = out.ask(lambda angelos: angelos.tasks.list())
        out.table(("task", "state"), [(v.id, v.state) for v in views], {"tasks": views})
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from angelos.cli.output import Out
from angelos.cli.reading import read_token


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--json`, `--data-dir`, `--url` and `--token-file`, and pass them as `out`."""

    @click.option("--data-dir", metavar="DIR", help="Data directory [env: ANGELOS_DATA_DIR].")
    @click.option(
        "--url",
        "system_url",
        metavar="URL",
        help="Address of a system on another machine [env: ANGELOS_URL].",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.option(
        "--token-file",
        metavar="FILE",
        help="Act as the person whose token FILE (- for standard input) holds "
        "[env: ANGELOS_TOKEN, the token itself; the owner].",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any,
        data_dir: str | None,
        system_url: str | None,
        as_json: bool,
        token_file: str | None,
        **kwargs: Any,
    ) -> None:
        out = Out(data_dir, as_json=as_json, url=system_url or "")
        with out.errors():
            out.token = read_token(token_file)
            command(*args, out=out, **kwargs)

    return wrapped


def quiet(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that lists something `-q`, to print ids alone."""
    return click.option("-q", "--quiet", is_flag=True, help="Print only ids, one per line.")(
        command
    )


def log_format(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command that starts processes `--log-format`, as `out.log_format`."""

    @click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="How the logs are written [env: ANGELOS_LOG_FORMAT; text].",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, out: Out, log_format: str | None, **kwargs: Any) -> None:
        out.log_format = log_format or ""
        command(*args, out=out, **kwargs)

    return wrapped


def wait(purpose: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command `--wait S`."""
    return click.option(
        "--wait",
        type=click.FloatRange(0, 3600),
        default=0,
        metavar="S",
        callback=_number,
        help=f"Wait up to S seconds {purpose}.",
    )


def _number(_ctx: click.Context, _param: click.Parameter, value: float) -> float:
    if value != value:  # noqa: PLR0124 - nan, which click's range takes
        raise click.BadParameter("nan is no number of seconds.")
    return value
