"""`angelos doctor`: what this machine can do, found out by doing it."""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

from angelos.cli import extras
from angelos.cli.options import common
from angelos.cli.output import FAILED, Out

if TYPE_CHECKING:
    from angelos.core.messages import Tier
    from angelos.node.sandbox.probe import ProbeReport

_PYTHON = (3, 11)


class Diagnosis(NamedTuple):
    """One line of the report; `--` is neither good nor bad."""

    name: str
    state: Literal["ok", "FAIL", "--"]
    detail: str
    hint: str = ""


@click.command()
@common
def doctor(out: Out) -> None:
    """Check what this machine can do: a real sandbox, both stores, versions, the running system.

    Exit code 1 if something that is needed does not work.
    """
    checks, tier = asyncio.run(_checks(out))
    lines = [
        f"{c.state:<4} {c.name:<15} {c.detail}" + (f"\n    {c.hint}" if c.hint else "")
        for c in checks
    ]
    ok = all(check.state != "FAIL" for check in checks)
    report = {"ok": ok, "tier": tier, "checks": [check._asdict() for check in checks]}
    out.show(report, "\n".join(lines))
    sys.exit(0 if ok else FAILED)


async def _checks(out: Out) -> tuple[list[Diagnosis], Tier]:
    """Return the report's lines, and the isolation that a sandbox has here."""
    from angelos.node.sandbox.probe import probe

    machine, stores, system = await asyncio.gather(probe(), _stores(), _system(out))
    return [_python(), *_packages(), *_sandbox(machine), stores, system], machine.tier


def _python() -> Diagnosis:
    return Diagnosis(
        "python",
        "ok" if sys.version_info >= _PYTHON else "FAIL",
        f"{platform.python_version()} at {sys.executable}, {platform.platform()}",
    )


def _packages() -> Iterator[Diagnosis]:
    """Yield which extras are installed, in which versions; a client works without either."""
    for extra in extras.EXTRAS:
        absent = extras.missing(extra)
        if absent:
            detail = f"not installed: {', '.join(absent)}"
            yield Diagnosis(f"angelos[{extra}]", "--", detail, extras.hint(extra))
        else:
            versions = (f"{name} {version(name)}" for name in extras.distributions(extra))
            yield Diagnosis(f"angelos[{extra}]", "ok", ", ".join(versions))


def _sandbox(report: ProbeReport) -> list[Diagnosis]:
    from angelos.core.messages import Tier

    # A missing part lowers the tier and no more; what counts is the sandbox that was launched.
    parts = [Diagnosis(c.name, "ok" if c.ok else "--", c.detail, c.hint) for c in report.checks]
    reasons = "; ".join(report.reasons)
    if report.tier is Tier.none:
        hint = "Code is refused unless ANGELOS_ALLOW_UNSANDBOXED=1, and then a banner says so."
        return [*parts, Diagnosis("isolation", "FAIL", f"{report.tier}: {reasons}", hint)]
    detail = f"{report.tier}" + (f": {reasons}" if reasons else "")
    return [*parts, Diagnosis("isolation", "ok", detail)]


async def _stores() -> Diagnosis:
    from angelos.adapters.host.datadir import DataDir
    from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
    from angelos.core.errors import AngelError

    if extras.missing("server"):
        return Diagnosis("stores", "--", "not tried: they come with angelos[server]")
    with tempfile.TemporaryDirectory(prefix="angelos-doctor-") as folder:
        data = DataDir(Path(folder))
        runtime = Path(folder) / "run"
        try:
            async with (
                EmbeddedPostgres(data.postgres, runtime),
                EmbeddedValkey(data.valkey, runtime),
            ):
                return Diagnosis("stores", "ok", "the embedded PostgreSQL and Valkey start")
        except AngelError as error:
            return Diagnosis("stores", "FAIL", error.detail, error.hint)


async def _system(out: Out) -> Diagnosis:
    from angelos.core.errors import AngelError

    try:
        async with out.connect() as angelos:
            status = await angelos.status()
    except AngelError as error:
        return Diagnosis("system", "--", error.detail, error.hint)
    nodes = ", ".join(f"{n.id} ({n.tier})" for n in status.nodes if n.connected) or "none"
    return Diagnosis("system", "ok", f"runs, isolation {status.tier}; nodes connected: {nodes}")
