"""`angelos doctor`: what this machine can do, found out by doing it."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import version
from inspect import isawaitable
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

    Exit code 1 if something that is needed does not work, and always where plain code would be
    refused by the policy and the isolation in force. A check that fails does not stop the rest.
    """
    rows, tier = asyncio.run(checks(out))
    lines = [
        f"{c.state:<4} {c.name:<15} {c.detail}" + (f"\n    {c.hint}" if c.hint else "")
        for c in rows
    ]
    ok = all(check.state != "FAIL" for check in rows)
    report = {"ok": ok, "tier": tier, "checks": [check._asdict() for check in rows]}
    out.show(report, "\n".join(lines))
    sys.exit(0 if ok else FAILED)


async def checks(out: Out) -> tuple[list[Diagnosis], str]:
    """Return the report's lines, and the isolation that a sandbox has here."""
    tier: list[str] = []

    async def sandbox() -> list[Diagnosis]:
        from angelos.node.sandbox.probe import probe

        machine = await probe()
        tier.append(machine.tier)
        return _sandbox(machine)

    async def boxes() -> list[Diagnosis]:
        """Check one after the other: two sandboxes of one process get in each other's way."""
        isolation = await _guarded("isolation", sandbox)
        return [*isolation, *await _guarded("plain code", _plain_code)]

    parts = await asyncio.gather(
        _guarded("python", _python),
        _guarded("packages", lambda: list(_packages())),
        boxes(),
        _guarded("data directory", lambda: _data_dir(out)),
        _guarded("stores", _stores),
        _guarded("system", lambda: _system(out)),
    )
    return [check for part in parts for check in part], tier[0] if tier else "none"


Report = list[Diagnosis] | Diagnosis


async def _guarded(
    name: str, check: Callable[[], Report] | Callable[[], Awaitable[Report]]
) -> list[Diagnosis]:
    """Return what a check reports; one that raises is itself a failure."""
    try:
        report = check()
        if isawaitable(report):
            report = await report
    except Exception as error:  # noqa: BLE001 - whatever it is, the other checks go on
        hint = str(getattr(error, "hint", "") or "")
        return [Diagnosis(name, "FAIL", f"{type(error).__name__}: {error}", hint)]
    return report if isinstance(report, list) else [report]


async def _plain_code() -> Diagnosis:
    """Run plain code in the sandbox of a node here, and ask the policy whether it may run."""
    from angelos.core.messages import Limits, Status
    from angelos.core.run_session import run_session
    from angelos.core.runs import Exit, RunSpec
    from angelos.node.config import SandboxConfig
    from angelos.node.sandbox.sandbox import BubblewrapSandbox
    from angelos.wiring.settings import load_nodes

    unsandboxed = load_nodes().allow_unsandboxed
    config = SandboxConfig(ready_boxes=0, allow_unsandboxed=unsandboxed)
    end: Exit | None = None
    async with BubblewrapSandbox(config) as sandbox:
        spec = RunSpec(argv=(), code="print(6 * 7)", limits=Limits(wall_s=30))
        async for event in run_session(sandbox, spec):
            if isinstance(event, Exit):
                end = event
        tier = sandbox.tier
    hint = "See the lines above for what is missing."
    if end is None or end.status is not Status.ok:
        how = end.status if end else "nothing"
        return Diagnosis("plain code", "FAIL", f"it ends as {how}, tier {tier}", hint)
    reason = _refusal(tier, unsandboxed=unsandboxed)
    if reason:
        return Diagnosis("plain code", "FAIL", f"the policy refuses it: {reason}", hint)
    return Diagnosis("plain code", "ok", f"runs, tier {tier}")


def _refusal(tier: Tier, *, unsandboxed: bool) -> str:
    """Return why the policy refuses a researcher's plain code in this tier; empty if it does not.

    A machine without the server has no policy; its server's refuses code without isolation.
    """
    from angelos.core.messages import Tier

    if extras.missing("server"):
        return "" if tier is not Tier.none or unsandboxed else "there is no isolation"
    from angelos.control.state.models import NodeRecord
    from angelos.control.tasks.service import run_context
    from angelos.core.api import SubmitTask
    from angelos.core.ids import PrincipalId
    from angelos.core.policy.access import policy_in_force
    from angelos.core.policy.engine import Request

    node = NodeRecord(id=PrincipalId("node/doctor"), role="execution", tier=tier)
    context = run_context(SubmitTask(code="print(1)"), node, unsandboxed=unsandboxed)
    request = Request(
        principal=PrincipalId("person/doctor"),
        role="researcher",
        action="run",
        resource=("Node", node.id),
        context={**context, "pipeline": False, "quarantined": False},
    )
    decision = policy_in_force().ask(request)
    return "" if decision.allowed else decision.reason


def _data_dir(out: Out) -> Diagnosis:
    """Check the directory that the system would use: its owner, format and disk."""
    from angelos.adapters.host.aof import MIN_FREE, free_bytes
    from angelos.adapters.host.datadir import DataDir
    from angelos.client.settings import find_data_dir

    data = DataDir(out.data_dir or find_data_dir())
    folder = data.root
    while not folder.exists():
        folder = folder.parent
    if data.root.exists():
        if data.root.stat().st_uid != os.geteuid():
            return Diagnosis("data directory", "FAIL", f"{data.root} belongs to another user")
        data.check_format()
    if not os.access(folder, os.W_OK | os.X_OK):
        return Diagnosis("data directory", "FAIL", f"{folder} cannot be written")
    free = free_bytes(folder)
    if free < MIN_FREE:
        detail = f"the disk of {folder} is nearly full: {free >> 20} MiB are free"
        return Diagnosis("data directory", "FAIL", detail, "Writes are refused below 64 MiB.")
    return Diagnosis("data directory", "ok", f"{data.root}, {free >> 30} GiB free")


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
