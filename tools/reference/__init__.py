"""Writes docs/reference from the code that exists, so that the two cannot drift apart.

    python -m tools.reference docs/reference           # what `make docs` does
    python -m tools.reference docs/reference --check   # exit code 1: a page is out of date

Commands come from click's own objects, routes from the lists that the server mounts, and words
(roles, errors, kinds of facts, settings, rules) from the one place that defines each; what is said
of them stands beside the definition, as its docstring or comment.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from tools.reference import api, commands, metrics, policy, proto, schema, settings, words

PAGES: dict[str, Callable[[], str]] = {
    "angelos.v1.proto": proto.page,
    "api.md": api.page,
    "cli.md": commands.page,
    "errors.md": words.errors,
    "messages.md": words.messages,
    "messages.schema.json": schema.page,
    "metrics.md": metrics.page,
    "policy.md": policy.page,
    "roles.md": words.roles,
    "settings.md": settings.page,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or with `--check` compare them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.reference", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pages are")
    parser.add_argument("--check", action="store_true", help="write nothing; compare")
    options = parser.parse_args(argv)
    if not options.check:
        options.folder.mkdir(parents=True, exist_ok=True)
        for name, page in PAGES.items():
            (options.folder / name).write_text(page(), encoding="utf-8")
        return 0
    old = outdated(options.folder)
    for name in old:
        click.echo(f"{options.folder / name} is out of date: run `make docs`.", err=True)
    return 1 if old else 0


def outdated(folder: Path) -> list[str]:
    """Return the names of the pages in `folder` that differ from what the code says."""

    def kept(name: str) -> str:
        path = folder / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    return [name for name, page in PAGES.items() if kept(name) != page()]
