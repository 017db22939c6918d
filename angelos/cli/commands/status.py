"""`angelos status`: the system at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from angelos.cli.commands.node import nodes_table
from angelos.cli.options import common
from angelos.cli.output import Out, table, when

if TYPE_CHECKING:
    from angelos.core.api import RestartView, RetentionView, StatusView


@click.command()
@common
def status(out: Out) -> None:
    """Show the system at a glance."""
    view = out.ask(lambda angelos: angelos.status())
    out.show(view, _text(view))


def _text(view: StatusView) -> str:
    lines = [
        f"AngelOS {view.version}, running since {when(view.started_at)}",
        (
            f"isolation {view.tier}, tasks running {view.tasks_running}, "
            f"waiting for a person {view.waiting}, policy {view.policy[:12]}"
        ),
        "",
        nodes_table(view.nodes),
    ]
    lines += [_restart_line(restart) for restart in view.restarts]
    if view.repos:
        rows = [(r.name, r.main[:12], r.dev[:12]) for r in view.repos]
        lines += ["", table(("repository", "main", "dev"), rows)]
    if view.retention is not None:
        lines += ["", _retention_line(view.retention)]
    for card in view.cards:
        done = f" [{card.done}]" if card.done else ""
        lines += ["", f"- {when(card.at)} {card.title}{done}: {card.detail}".rstrip(": ")]
        lines += [f"  {card.hint}"] if card.hint else []
    if view.banner:
        lines.insert(0, f"! {view.banner}")
    return "\n".join(lines)


def _retention_line(view: RetentionView) -> str:
    """Return one line about what grows and how long it is kept."""
    outputs = f"{view.outputs_days:g} days" if view.outputs_days else "for ever"
    since = f" since {when(view.journal_oldest_at)}" if view.journal_oldest_at else ""
    line = (
        f"journal {view.journal_bytes / 1e6:.1f} MB{since} (kept {view.journal_days:g} days or "
        f"{view.journal_mb:g} MB), outputs kept {outputs}, files {view.files_days:g} days"
    )
    return f"{line}\n! {view.problem}" if view.problem else line


def _restart_line(view: RestartView) -> str:
    """Return one line about a part that was started again."""
    code = view.exit_code
    how = f" (exit code {code})" if code is not None else ""
    times = "once" if view.count == 1 else f"{view.count} times"
    return f"{view.part} was started again {times}, last {when(view.at)}: {view.cause}{how}"
