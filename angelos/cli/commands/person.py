"""`angelos person`: who may sign in, and as what."""

from __future__ import annotations

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table

_ROLES = ["viewer", "researcher", "reviewer", "operator", "admin"]


@click.group(cls=NounGroup)
def person() -> None:
    """Add, list, change and remove people."""


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


@person.command("change")
@click.argument("name")
@click.option("--role", type=click.Choice(_ROLES), help="What they may do from now on.")
@click.option("--new-token", is_flag=True, help="Replace their token, and print the new one.")
@common
def change_person(out: Out, name: str, role: str | None, *, new_token: bool) -> None:
    """Change NAME's role or token.

    Fewer rights or a new token end whatever NAME has signed in and started.
    """
    from angelos.core.permissions import Role

    if role is None and not new_token:
        raise click.UsageError("Give --role or --new-token.")
    view = out.ask(
        lambda angelos: angelos.people.change(
            name, Role(role) if role else None, new_token=new_token
        )
    )
    shown = f" Token, shown only now:\n{view.token}" if view.token else ""
    out.show(view, f"{view.id} is a {view.role}.{shown}")


@person.command("remove")
@click.argument("name")
@common
def remove_person(out: Out, name: str) -> None:
    """Remove NAME; whatever they have signed in and started ends."""
    out.ask(lambda angelos: angelos.people.remove(name))
    out.show({"ok": True}, f"person/{name} is removed.")
