"""`angelos policy` and `angelos whoami`: what is allowed, and by which rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from angelos.core.permissions import Permission, Role

_ROLES = ["viewer", "researcher", "reviewer", "operator", "admin", "agent", "node"]


@click.group(cls=NounGroup)
def policy() -> None:
    """Check rules, and explain what they decide."""


@policy.command("explain")
@click.argument("action")
@click.option("--role", type=click.Choice(_ROLES), help="For this role; by default yours.")
@common
def explain(out: Out, action: str, role: str | None) -> None:
    """Show the rules about ACTION, such as tasks:run or promote, and what they decide."""
    from angelos.core.permissions import Role

    chosen = Role(role) if role else None
    view = out.ask(lambda angelos: angelos.policy.explain(action, chosen))
    verdict = {True: "allowed", False: "refused", None: "depends on more than the role"}
    lines = [f"{action} for {view.role}: {verdict[view.allowed]}", ""]
    lines += [f"{rule.id} ({rule.effect})\n  {rule.text}" for rule in view.rules]
    out.show(view, "\n".join(lines))


@policy.command("check")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@common
def check(out: Out, files: tuple[Path, ...]) -> None:
    """Check FILEs as part of the policy, and show which permissions they would change.

    A file replaces the one of the policy that has its name. Nothing is put in force.
    """
    try:
        texts = {path.name: path.read_text(encoding="utf-8") for path in files}
    except UnicodeDecodeError as error:
        raise click.UsageError("A file is not UTF-8 text.") from error
    view = out.ask(lambda angelos: angelos.policy.check(texts))
    rows = [*_rows("+", view.gained), *_rows("-", view.lost)]
    changes = table(("role", "permissions"), rows) if rows else "No role gains or loses anything."
    out.show(view, changes if view.valid else view.reason)
    if not view.valid:
        raise SystemExit(1)


@click.command()
@common
def whoami(out: Out) -> None:
    """Show who you are here, and what you may do."""
    view = out.ask(lambda angelos: angelos.whoami())
    text = f"{view.id}, {view.role}, {view.state}, generation {view.generation}\n"
    text += f"open: {view.tasks_open} tasks, {view.proposals_open} proposals\n"
    for name, figure in view.budget.items():
        most = "no limit" if figure.most is None else f"of {figure.most:g}"
        text += f"budget: {figure.used:g} {most} {name} within an hour\n"
    text += f"limits: {', '.join(f'{name} {most:g}' for name, most in view.limits.items())}\n"
    out.show(view, text + f"may: {' '.join(view.permissions)}")


def _rows(sign: str, changes: Mapping[Role, tuple[Permission, ...]]) -> list[tuple[str, str]]:
    return [(role, " ".join(f"{sign}{p}" for p in changed)) for role, changed in changes.items()]
