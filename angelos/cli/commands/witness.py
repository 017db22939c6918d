"""`angelos audit witness`: cosign the audit log of others, on another host than theirs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from pathlib import Path

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out


@click.group(cls=NounGroup)
def witness() -> None:
    """Cosign the audit logs of others, so that none can show two people two pasts."""


@witness.command()
@click.argument("folder", metavar="DIR")
@click.option("--name", required=True, metavar="NAME", help="As a URL without https://, say.")
@common
def init(out: Out, *, folder: str, name: str) -> None:
    """Make a witness in DIR, and print its key.

    Whoever runs a log adds the witness to it by `angelos audit witness add URL KEY`.
    """
    from angelos.governance.witness.folder import WitnessFolder

    key = WitnessFolder(Path(folder)).create(name)
    out.show({"name": name, "key": key.public.vkey}, key.public.vkey)


@witness.command()
@click.argument("folder", metavar="DIR")
@click.argument("keys", metavar="KEYS")
@common
def trust(out: Out, *, folder: str, keys: str) -> None:
    """Let the witness in DIR cosign the log whose keys are in the file KEYS.

    `angelos audit keys` prints them at the log; bring them over by a way that you trust. Again
    for the same log, the file replaces its keys.
    """
    from angelos.core.errors import InvalidInput
    from angelos.governance.log.notes import parse_vkey_lines
    from angelos.governance.witness.folder import WitnessFolder

    try:
        text = Path(keys).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{keys} cannot be read.") from error
    place = WitnessFolder(Path(folder))
    place.key()
    origin = place.trust(parse_vkey_lines(text))
    out.show({"log": origin}, f"{origin} is cosigned from now on.")


@witness.command()
@click.argument("folder", metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True)
@common
def run(out: Out, *, folder: str, host: str, port: int) -> None:
    """Cosign, until Ctrl-C. What a witness answers holds no secrets, and needs no TLS."""
    from angelos.adapters.host.clock import SystemClock
    from angelos.core.errors import InvalidInput
    from angelos.governance.witness.folder import WitnessFolder
    from angelos.governance.witness.server import WitnessServer

    async def serve() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ended.set)
        try:
            server = WitnessServer(WitnessFolder(Path(folder)), host, port, SystemClock())
        except OSError as error:
            raise InvalidInput(f"{host} port {port} cannot be used: {error.strerror}.") from error
        async with server:
            out.show({"url": server.url}, f"The witness {server.key.public.name}: {server.url}")
            with contextlib.suppress(asyncio.CancelledError):
                await ended.wait()

    asyncio.run(serve())


@witness.command()
@click.argument("url", metavar="URL")
@click.argument("key", metavar="KEY")
@common
def add(out: Out, *, url: str, key: str) -> None:
    """Have the checkpoints of this host's log cosigned by the witness at URL, from the next start.

    KEY is what its `init` has printed.
    """
    from angelos.adapters.host.datadir import DataDir, write_private
    from angelos.client.settings import find_data_dir
    from angelos.core.errors import NotFound
    from angelos.governance.witness.client import parse_witnesses

    data = DataDir(out.data_dir or find_data_dir())
    if not data.keys.is_dir():
        raise NotFound(f"{data.root} holds no system.", hint="Name one with --data-dir.")
    before = data.witnesses.read_text(encoding="utf-8") if data.witnesses.exists() else ""
    lines = [line for line in before.splitlines() if line.split(" ")[0] != url]
    text = "".join(f"{line}\n" for line in (*lines, f"{url} {key}"))
    witnesses = parse_witnesses(text)
    write_private(data.witnesses, text.encode())
    out.show(
        [address.url for address in witnesses],
        f"{len(witnesses)} witnesses are asked from the next start on.",
    )
