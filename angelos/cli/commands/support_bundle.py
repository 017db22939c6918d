"""`angelos support-bundle`: one file for somebody who helps, without secrets."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from angelos.cli.options import common
from angelos.cli.output import Out

if TYPE_CHECKING:
    from angelos.adapters.host.datadir import DataDir
    from angelos.cli.bundle import SupportArchive

_ANSWER_S = 30.0


@click.command("support-bundle")
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--no-doctor", is_flag=True, help="Leave out the checks of `angelos doctor`.")
@common
def support_bundle(out: Out, *, file: Path | None, no_doctor: bool) -> None:
    """Write versions, settings, status, load and the ends of the logs into FILE.

    Secrets are taken out, and keys, stores, notebooks and files of users are not even read. Look
    at it before you give it away all the same: names of people, nodes and repositories are in it.
    """
    from angelos.adapters.host.datadir import DataDir
    from angelos.cli.bundle import SupportArchive, secrets_of
    from angelos.cli.scrub import Scrubber
    from angelos.client.settings import find_data_dir
    from angelos.wiring.settings import inherited

    data = DataDir(out.data_dir or find_data_dir())
    target = file or Path(time.strftime("angelos-support-%Y%m%d-%H%M%S.tar.gz"))
    environ = inherited()
    bundle = SupportArchive(Scrubber([*secrets_of(data, environ), *filter(None, [out.token])]))
    asyncio.run(_fill(bundle, out, data, doctor=not no_doctor))
    body = bundle.finish()
    _write(target, body)
    shown = {"file": str(target), "bytes": len(body), "holds": bundle.names}
    out.show(shown, f"{target}: {len(body) >> 10} KiB, {len(bundle.names)} files")
    sys.stdout.flush()


async def _fill(bundle: SupportArchive, out: Out, data: DataDir, *, doctor: bool) -> None:
    from angelos.cli import bundle as content
    from angelos.wiring.settings import inherited

    parts: dict[str, Any] = {
        "about.json": lambda: content.about(data),
        "environment.json": lambda: content.environment(inherited()),
        "packages.json": content.packages,
        "processes.json": lambda: content.processes(data),
        "disk.json": lambda: content.disk(data),
    }
    for name, gather in parts.items():
        bundle.add(name, _or_error(gather))
    for name, body in content.logs(data):
        bundle.add(f"logs/{name}", body)
    await _ask(bundle, out)
    if doctor:
        from angelos.cli.commands.doctor import checks

        rows, tier = await checks(out)
        bundle.add("doctor.json", {"tier": tier, "checks": [row._asdict() for row in rows]})


async def _ask(bundle: SupportArchive, out: Out) -> None:
    """Add what the running system says; what it does not say is said why."""
    from angelos.cli.bundle import QUESTIONS
    from angelos.core.errors import AngelError

    for name, question in QUESTIONS.items():
        try:
            async with asyncio.timeout(_ANSWER_S), out.connect() as angelos:
                answer = await question(angelos)
        except (AngelError, OSError, TimeoutError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        bundle.add(f"system/{name}.json", answer)


def _or_error(gather: Any) -> Any:
    try:
        return gather()
    except Exception as error:  # noqa: BLE001 - one part that cannot be read is no reason for none
        return {"error": f"{type(error).__name__}: {error}"}


def _write(target: Path, body: bytes) -> None:
    from angelos.core.errors import Conflict

    try:
        number = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{target} exists.", hint="Name another file.") from None
    with os.fdopen(number, "wb") as file:
        file.write(body)
