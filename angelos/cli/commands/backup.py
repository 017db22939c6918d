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
        f"as of {when(info.at)}; writes waited {info.paused_ms:g} ms.\n"
        f"sha256 {info.sha256}\n"
        f"key    {info.key}\n"
        "Write the key down apart from the file: `angelos restore --key` asks for it.",
    )


@click.command()
@click.argument("file", metavar="FILE")
@click.argument("folder", metavar="DIR")
@click.option("--key", "keys", multiple=True, help="A key that `angelos backup` printed.")
@click.option("--sha256", default="", help="The file's hash that `angelos backup` printed.")
@click.option("--trust", is_flag=True, help="Restore it whoever made it.")
@click.option(
    "--forgotten",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The file `forgotten` of the data directory: what it names does not come back.",
)
@common
def restore(
    out: Out,
    *,
    file: str,
    folder: str,
    keys: tuple[str, ...],
    sha256: str,
    trust: bool,
    forgotten: tuple[str, ...],
) -> None:
    """Make a system in DIR from the backup FILE, and verify all of it.

    Restoring runs what FILE says, so it must be signed by a key that you name or by the system of
    this machine's data directory, if that is still there; or have the hash that you name.

    DIR must not exist, or be empty; it appears when everything is right, the audit log included.
    Start the system with `angelos up --data-dir DIR`. It has an identity, ports and a signing key
    of its own, so it may run beside the original. Memories that were forgotten since are not in it,
    if that directory is still there or --forgotten names its file.
    """
    from angelos.wiring.restore import Origin, backup_keys
    from angelos.wiring.restore import restore as restore_system
    from angelos.wiring.settings import load

    require("server")
    data = load(data_dir=out.data_dir).data
    origin = Origin.parse((*keys, *backup_keys(data)), sha256, anyone=trust)
    gone = (data.forgotten, *map(Path, forgotten))
    info = asyncio.run(restore_system(Path(file), Path(folder), origin, gone))
    out.show(
        info,
        f"{info.data_dir}: {info.files} files and {info.entries} journal entries as of "
        f"{when(info.at)}, made by AngelOS {info.version}.\n"
        f"verified: {info.contents} contents, {info.audit_entries} entries of the audit log, "
        f"root {info.audit_root}",
    )
