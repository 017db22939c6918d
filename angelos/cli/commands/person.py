"""`angelos person`: who may sign in, and as what."""

from __future__ import annotations

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table

_ROLES = ["viewer", "researcher", "reviewer", "operator", "admin"]


@click.group(cls=NounGroup)
def person() -> None:
    """Add, list and remove people."""


@person.command("list")
@common
def list_people(out: Out) -> None:
    """List people and their roles."""
    views = out.ask(lambda angelos: angelos.people.list())
    out.show({"people": views}, table(("person", "role"), [(v.id, v.role) for v in views]))


@person.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default="researcher", show_default=True)
@common
def add_person(out: Out, name: str, role: str) -> None:
    """Add NAME and print the token to sign in with.

    The token is shown only now.
    """
    from angelos.core.permissions import Role

    view = out.ask(lambda angelos: angelos.people.add(name, Role(role)))
    out.show(view, f"{view.id} is a {view.role}. Token, shown only now:\n{view.token}")


@person.command("remove")
@click.argument("name")
@common
def remove_person(out: Out, name: str) -> None:
    """Remove NAME; the token is void from now on."""
    out.ask(lambda angelos: angelos.people.remove(name))
    out.show({"ok": True}, f"person/{name} is removed.")
