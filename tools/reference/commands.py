"""cli.md: every command with its options, from click's own objects."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import click

from angelos.cli import SECTIONS, cli
from angelos.wiring import node
from tools.reference.source import code, doc, head, table

_TOP = """\
`angelos COMMAND --help` says the same in a terminal. Errors go to standard error in one line, what
happened and what to do next; with `--json` the last line of standard output is a problem object
(see [errors](errors.md)).
"""


def page() -> str:
    """Return the page."""
    parts = [head("Command line", doc(cli.callback)), _TOP]
    for title, entries in SECTIONS.items():
        rows = [(f"[`angelos {n}`](#angelos-{n})", entry.help) for n, entry in entries.items()]
        parts.append(table((title, ""), rows))
    for name, command in _all(cli, "angelos"):
        parts.append(_section(name, command))
    parts.append(_node())
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _all(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    with click.Context(group, info_name=above) as context:
        for word in group.list_commands(context):
            command = group.get_command(context, word)
            if command is None:  # pragma: no cover - a list that names what is not there
                raise LookupError(word)
            yield f"{above} {word}", command
            if isinstance(command, click.Group):
                yield from _all(command, f"{above} {word}")


def _section(name: str, command: click.Command) -> str:
    level = "##" if name.count(" ") == 1 else "###"
    context = click.Context(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"{level} {name}", "", f"`{usage}`", "", doc(command.callback)]
    records = [
        param.get_help_record(context)
        for param in command.params
        if isinstance(param, click.Option)
    ]
    rows = [(code(record[0]), record[1]) for record in records if record is not None]
    if rows:
        lines += ["", table(("option", ""), rows)]
    return "\n".join(lines)


def _node() -> str:
    """Return the node's own program, whose options argparse keeps to itself."""
    rows: list[tuple[str, str, str]] = []
    for call in ast.walk(ast.parse(inspect.getsource(node))):
        if not (isinstance(call, ast.Call) and ast.unparse(call.func).endswith("add_argument")):
            continue
        said = {word.arg: ast.unparse(word.value) for word in call.keywords}
        option = str(ast.literal_eval(call.args[0]))
        default = "required" if said.get("required") == "True" else said.get("default", "")
        choices = " or ".join(ast.literal_eval(said.get("choices", "()")))
        text = str(ast.literal_eval(said["help"])) if "help" in said else choices
        rows.append((code(option), default if default == "required" else code(default), text))
    return "\n\n".join(
        ["## python -m angelos.wiring.node", doc(node), table(("option", "default", ""), rows)]
    )
