"""The `angelos` command. Each command's module is imported when it is used.

So `angelos --help` needs nothing but click, and answers at once.

    angelos NOUN VERB ...        angelos proposal show prop-0193
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import NoReturn

import click

from angelos import __version__
from angelos.cli.groups import LazyGroup, Subcommand

SECTIONS: dict[str, dict[str, Subcommand]] = {
    "The system": {
        "up": Subcommand("up", "Start the system and keep it running."),
        "demo": Subcommand("demo", "Show the main job from end to end in a temporary directory."),
        "status": Subcommand("status", "Show the system at a glance."),
        "top": Subcommand("top", "Show nodes, tasks and queues, live."),
        "whoami": Subcommand("policy:whoami", "Show who you are here, and what you may do."),
        "backup": Subcommand("backup", "Write a running or stopped system into one file."),
        "restore": Subcommand("backup:restore", "Make a system from its backup, and verify it."),
        "doctor": Subcommand("doctor", "Check what this machine can do, with a real sandbox."),
        "support-bundle": Subcommand("support_bundle", "Write one file for who helps, no secrets."),
    },
    "What is in it": {
        "task": Subcommand("task", "Run code in a sandbox; see and stop what runs."),
        "proposal": Subcommand("proposal", "Propose changes, look at them, decide on them."),
        "repo": Subcommand("repo", "Import repositories, read their history, roll them back."),
        "hub": Subcommand("hub", "See connections, routes, dead letters; run a gateway."),
        "node": Subcommand("node", "Add, list and shut out the machines that run code."),
        "runtime": Subcommand("runtime", "See and bring the languages of this machine."),
        "agent": Subcommand("agent", "Add agents, and shut them out."),
        "person": Subcommand("person", "Add, list, change and remove people."),
        "token": Subcommand("token", "Make, list and revoke tokens of your own."),
        "memory": Subcommand("memory", "What agents and people remember."),
        "model": Subcommand("model", "Tiny models, each for one role."),
        "policy": Subcommand("policy", "Check rules, and explain what they decide."),
        "audit": Subcommand("audit", "Verify, read and export the audit log."),
        "provenance": Subcommand("provenance", "Verify where a state of main comes from."),
    },
    "Short for": {
        "run": Subcommand("task:run", "angelos task run"),
        "propose": Subcommand("proposal:create", "angelos proposal create"),
    },
}
"""The commands as `angelos --help` shows them, in sections."""


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="angelos")
def cli() -> None:
    """Several agents and people in the same live notebooks and files, safely.

    Exit codes: 0 done; 1 the thing itself failed or was refused; 2 bad usage or input.
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line; with `--json` a usage error is a problem object too."""
    try:
        _main(args)
    except OSError as error:  # not even the error could be printed, or the help
        place = f"{error.filename}: " if error.filename else ""
        with contextlib.suppress(OSError):
            click.echo(f"angelos: {place}{error.strerror or error}.", err=True)
        give_up_stdout()
        sys.exit(1)


def give_up_stdout() -> None:
    """Discard what could not be written; else the interpreter tries it again at its end."""
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
