"""`angelos backup` and `angelos restore`: a system in one file, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from angelos.cli.extras import require
from angelos.cli.options import common
from angelos.cli.output import Out, when


@click.command()
@click.argument("file", metavar="FILE")
@common
def backup(out: Out, *, file: str) -> None:
    """Write everything that the system has into FILE, while it works.

    Both stores are copied as they are at one moment, for which writes wait some milliseconds;
    then keys, policies and the workspace. FILE holds the system's keys: it is created with mode
    0600, and never replaces another. Run it as the user and on the machine of the data directory.
    """
    from angelos.wiring.backup import back_up
    from angelos.wiring.settings import load

    require("server")
    info = asyncio.run(back_up(load(data_dir=out.data_dir), Path(file)))
    out.show(
        info,
        f"{info.file}: {info.files} files, {info.entries} journal entries, {info.bytes:,} bytes, "
        f"as of {when(info.at)}; writes waited {info.paused_ms:g} ms.",
    )


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("folder", metavar="DIR")
@common
def restore(out: Out, *, file: str, folder: str) -> None:
    """Make a system in DIR from the backup FILE, and verify all of it.

    DIR must not exist, or be empty; it appears when everything is right, the audit log included.
    Start the system with `angelos up --data-dir DIR`. It has an identity, ports and a signing key
    of its own, so it may run beside the original.
    """
    from angelos.wiring.restore import restore as restore_system

    require("server")
    info = asyncio.run(restore_system(Path(file), Path(folder)))
    out.show(
        info,
        f"{info.data_dir}: {info.files} files and {info.entries} journal entries as of "
        f"{when(info.at)}, made by AngelOS {info.version}.\n"
        f"verified: {info.contents} contents, {info.audit_entries} entries of the audit log, "
        f"root {info.audit_root}",
    )
