"""`angelos runtime`: the languages that this machine can run, and how to bring others."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out, printable, table

if TYPE_CHECKING:
    from angelos.node.runtimes.install import RuntimeReport
    from angelos.node.runtimes.models import RuntimeDefinition


@click.group(cls=NounGroup)
def runtime() -> None:
    """See and bring the languages of this machine; nodes that start here offer them."""


@runtime.command("list")
@common
def list_runtimes(out: Out) -> None:
    """List languages: whether this machine has them, from where, and how large."""
    from angelos.node.runtimes.definitions import definitions
    from angelos.node.runtimes.install import look

    _show(out, [look(definition, _folder()) for definition in definitions().values()])


@runtime.command()
@click.argument("languages", nargs=-1, metavar="[LANGUAGE]...")
@common
def check(out: Out, *, languages: tuple[str, ...]) -> None:
    """Build and run a small program in a box, in each LANGUAGE or in all; 1 if one fails."""
    reports = asyncio.run(_check([_definition(language) for language in languages]))
    _show(out, reports)
    sys.exit(0 if all(report.ready for report in reports) else FAILED)


@runtime.command()
@click.argument("language")
@common
def install(out: Out, *, language: str) -> None:
    """Bring LANGUAGE by pip, or as root by apt; then check it."""
    definition = _definition(language)
    report = asyncio.run(_install(definition))
    _show(out, [report])
    sys.exit(0 if report.ready else FAILED)


def _folder() -> Path:
    from angelos.wiring.settings import runtimes_folder

    return runtimes_folder()


def _definition(language: str) -> RuntimeDefinition:
    from angelos.node.runtimes.definitions import definitions

    if language not in definitions():
        raise click.UsageError(f"{language!r} is none of {', '.join(definitions())}.")
    return definitions()[language]


async def _check(chosen: list[RuntimeDefinition]) -> list[RuntimeReport]:
    from angelos.node.config import SandboxConfig
    from angelos.node.runtimes.definitions import definitions
    from angelos.node.runtimes.install import check
    from angelos.node.sandbox.sandbox import BubblewrapSandbox

    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        wanted = chosen or [*definitions().values()]
        return [await check(definition, _folder(), sandbox) for definition in wanted]


async def _install(definition: RuntimeDefinition) -> RuntimeReport:
    from angelos.node.config import SandboxConfig
    from angelos.node.runtimes.install import check, install, warm
    from angelos.node.sandbox.sandbox import BubblewrapSandbox

    folder = _folder()
    async for line in install(definition, folder):
        click.echo(printable(line), err=True)
    async with BubblewrapSandbox(SandboxConfig(ready_boxes=0)) as sandbox:
        await warm(definition, folder, sandbox)
        return await check(definition, folder, sandbox)


def _show(out: Out, reports: list[RuntimeReport]) -> None:
    rows = [
        (
            report.language,
            "ready" if report.ready else "unavailable",
            report.toolchain,
            " ".join(report.tools.values()) or report.reason,
            f"{report.bytes // 1_000_000} MB" if report.bytes else "",
        )
        for report in reports
    ]
    lines = [table(("language", "state", "toolchain", "tools", "size"), rows)]
    lines += [f"{r.language}: {r.reason} {r.hint}".strip() for r in reports if not r.ready]
    out.show({"runtimes": reports}, "\n".join(map(printable, "\n".join(lines).splitlines())))
