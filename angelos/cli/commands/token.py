"""`angelos token`: tokens of your own, with fewer rights than you have and an end."""

from __future__ import annotations

import time

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table


@click.group(cls=NounGroup)
def token() -> None:
    """Make, list and revoke tokens of your own."""


@token.command("list")
@common
def list_tokens(out: Out) -> None:
    """List your tokens; their secrets are not kept."""
    views = out.ask(lambda angelos: angelos.tokens.list())
    rows = [
        (v.id, v.label or v.kind, _when(v.expires_at), " ".join(v.scopes) or "-") for v in views
    ]
    out.show({"tokens": views}, table(("token", "label", "until", "may"), rows))


@token.command("create")
@click.option("--label", default="", help="For you to recognise it by.")
@click.option("--may", "scopes", multiple=True, metavar="PERMISSION", help="Only this; repeatable.")
@click.option(
    "--ttl", "ttl_s", type=click.IntRange(60, 2_592_000), default=86_400, help="Seconds it lives."
)
@common
def create_token(out: Out, label: str, scopes: tuple[str, ...], ttl_s: int) -> None:
    """Make a token and print it; it is shown only now.

    It may do what you may, or only what --may names.
    """
    from angelos.core.permissions import Permission

    names = {permission.value for permission in Permission}
    if unknown := sorted(set(scopes) - names):
        raise click.UsageError(f"{unknown[0]} is no permission; there are {', '.join(names)}.")
    chosen = [Permission(scope) for scope in scopes]
    view = out.ask(lambda angelos: angelos.tokens.create(label, chosen, ttl_s))
    out.show(view, f"{view.id} is valid until {_when(view.expires_at)}:\n{view.token}")


@token.command("revoke")
@click.argument("token_id", metavar="TOKEN")
@common
def revoke_token(out: Out, token_id: str) -> None:
    """Void TOKEN, by its id; what it opened is closed."""
    out.ask(lambda angelos: angelos.tokens.revoke(token_id))
    out.show({"ok": True}, f"{token_id} is void.")


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
