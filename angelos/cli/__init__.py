"""The `angelos` command. Each subcommand's module is imported when it is used.

So `angelos --help` needs nothing but click, and answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from typing import NoReturn

import click

from angelos import __version__

COMMANDS = {
    "up": ("up", "Start the system and keep it running."),
    "demo": ("demo", "Show the main job from end to end in a temporary directory."),
    "run": ("run", "Run code in a sandbox on an execution node."),
    "status": ("status", "Show the system at a glance."),
    "nodes": ("status:nodes", "List the nodes."),
    "import": ("import_:import_folder", "Make a repository of a folder."),
    "propose": ("propose", "Propose a change of a file."),
    "proposals": ("review:proposals", "List proposals."),
    "show": ("review:show", "Show a proposal: what it changes and how its tests went."),
    "approve": ("review:approve", "Approve a proposal."),
    "reject": ("review:reject", "Reject a proposal."),
    "log": ("log", "List the revisions of a branch."),
    "rollback": ("review:rollback", "Take main back to an earlier revision."),
    "audit": ("audit", "Verify, read and export the audit log."),
    "doctor": ("doctor", "Check what this machine can do, with a real sandbox."),
    "people": ("people", "List and add people."),
    "enrol": ("enrol", "Make a token by which a node or an agent joins."),
    "agent": ("enrol:agent", "What an agent does itself."),
    "quarantine": ("enrol:quarantine", "Refuse a node or agent from now on."),
    "release": ("enrol:release", "End a quarantine."),
}
"""Name -> (module below `angelos.cli.commands`, with `:attribute` if named otherwise; help)."""


class LazyGroup(click.Group):
    """A group whose subcommands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        found = importlib.import_module(f"angelos.cli.commands.{module}")
        return getattr(found, attribute or module)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="angelos")
def cli() -> None:
    """Several agents and people in the same live notebooks and files, safely.

    Exit codes: 0 done; 1 the thing itself failed or was refused; 2 bad usage or input.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line; a usage error is a problem object too when `--json` is asked for."""
    try:
        _main(args)
    except OSError as error:  # not even the error could be printed, or the help
        place = f"{error.filename}: " if error.filename else ""
        with contextlib.suppress(OSError):
            click.echo(f"angelos: {place}{error.strerror or error}.", err=True)
        give_up_stdout()
        sys.exit(1)


def give_up_stdout() -> None:
    """Let go of what could not be written; else the interpreter tries it again at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # there may be no real stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(args: list[str] | None) -> NoReturn:
    for stream in ("stdout", "stderr"):  # None where the shell has closed it (`>&-`)
        if getattr(sys, stream) is None:
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for good
    words = sys.argv[1:] if args is None else args
    try:
        sys.exit(cli.main(args=words, prog_name="angelos", standalone_mode=False))
    except click.ClickException as error:
        if "--json" in words:
            from angelos.core.errors import InvalidInput

            click.echo(json.dumps(InvalidInput(error.format_message()).problem()))
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("angelos: interrupted.", err=True)
        sys.exit(1)
