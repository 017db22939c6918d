"""`angelos people`: who may sign in, and as what."""

from __future__ import annotations

import click

from angelos.cli.common import Out, common, table

_ROLES = ["viewer", "researcher", "reviewer", "operator", "admin"]


@click.group()
def people() -> None:
    """List and add people."""


@people.command("list")
@common
def list_people(out: Out) -> None:
    """List people and their roles."""
    views = out.ask(lambda angelos: angelos.people())
    out.show({"people": views}, table(("person", "role"), [(v.id, v.role) for v in views]))


@people.command("add")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), default="researcher", show_default=True)
@common
def add_person(out: Out, name: str, role: str) -> None:
    """Add NAME and print the token to sign in with; it is shown only now."""
    from angelos.core.permissions import Role

    view = out.ask(lambda angelos: angelos.add_person(name, Role(role)))
    out.show(view, f"{view.id} is a {view.role}. Token, shown only now:\n{view.token}")


@people.command("remove")
@click.argument("name")
@common
def remove_person(out: Out, name: str) -> None:
    """Remove NAME; the token is void from now on."""
    out.ask(lambda angelos: angelos.remove_person(name))
    out.show({"ok": True}, f"person/{name} is removed.")
