"""Groups of commands: imported on use, and helpful about a mistyped word.

@click.group(cls=NounGroup)
def proposal() -> None: ...

$ angelos proposals
Error: No such command 'proposals'. Did you mean `angelos proposal list`?
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

from angelos.cli.suggestions import did_you_mean


class Subcommand(NamedTuple):
    """Where a command is: its module below `commands` (`:attribute` if named otherwise)."""

    where: str
    help: str


class NounGroup(click.Group):
    """A group that, when it does not know a word, says which one may be meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first argument names; raise `UsageError` if none."""
        word = args[0]
        if word.startswith("-") or self.get_command(ctx, word) is not None:
            return super().resolve_command(ctx, args)
        noun = (ctx.info_name or "") if ctx.parent else ""
        hint = did_you_mean(noun, args, verbs(ctx.find_root()))
        raise click.UsageError(f"No such command {word!r}.{hint}", ctx)


class LazyGroup(NounGroup):
    """The root: a group whose commands are imported on use."""

    def __init__(
        self, *args: Any, sections: dict[str, dict[str, Subcommand]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.entries = {name: e for section in sections.values() for name, e in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in self.entries:
            return None
        module, _, attribute = self.entries[cmd_name].where.partition(":")
        imported = importlib.import_module(f"angelos.cli.commands.{module}")
        return getattr(imported, attribute or module)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their sections, without importing them."""
        del ctx
        width = max(map(len, self.entries))
        for title, entries in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", e.help) for name, e in entries.items()])


def verbs(root: click.Context) -> dict[str, tuple[str, ...]]:
    """Return each command of the root with the names of its own commands, if it is a group."""
    group = root.command
    if not isinstance(group, click.Group):
        return {}
    commands = {name: group.get_command(root, name) for name in group.list_commands(root)}
    return {
        name: tuple(command.list_commands(root)) if isinstance(command, click.Group) else ()
        for name, command in commands.items()
    }
