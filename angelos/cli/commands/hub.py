"""`angelos hub`: who is connected, where messages go, and what could not be delivered."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import click

from angelos.cli.groups import NounGroup
from angelos.cli.options import common
from angelos.cli.output import Out, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from angelos.core.api import DeadLetterView
    from angelos.wiring.gateway import GatewayKey
    from angelos.wiring.settings import Settings


@click.group(cls=NounGroup)
def hub() -> None:
    """See connections, routes and dead letters; measure; run a gateway."""


@hub.command("peers")
@common
def list_peers(out: Out) -> None:
    """List who is connected, with labels, load, and what each has sent and was paused for."""
    views = out.ask(lambda angelos: angelos.hub.peers())
    rows = [
        (view.id, view.load, view.items, f"{view.paused_s:g} s", ", ".join(view.labels) or "-")
        for view in views
    ]
    out.show({"peers": views}, table(("peer", "load", "sent", "paused", "labels"), rows))


@hub.command("routes")
@common
def list_routes(out: Out) -> None:
    """List the labels and names by which messages find a peer: the least busy of each comes first.

    A message to several labels goes to the least busy peer that has all of them.
    """
    views = out.ask(lambda angelos: angelos.hub.peers())
    by_load = sorted(views, key=lambda view: (view.load, view.id))
    labels = sorted({label for view in views for label in view.labels})
    routes = [
        {"to": label, "peers": [view.id for view in by_load if label in view.labels]}
        for label in labels
    ]
    routes += [{"to": view.id, "peers": [view.id], "hub": view.hub} for view in views]
    rows = [(route["to"], ", ".join(route["peers"]), route.get("hub", "")) for route in routes]
    out.show({"routes": routes}, table(("to", "peers", "hub"), rows))


@hub.command("bench")
@click.option(
    "--count",
    type=click.IntRange(100, 1_000_000),
    default=10_000,
    show_default=True,
    help="Messages a round.",
)
@click.option(
    "--durability",
    type=click.Choice(["everysec", "always"]),
    default="everysec",
    show_default=True,
    help="When the disk is synced: once a second, or before each acknowledgement.",
)
@common
def bench(out: Out, count: int, durability: str) -> None:
    """Measure what a hub does on this machine, with stores of its own.

    A running system is not touched; it shares the processors, so stop it for figures that count.
    """
    import os

    from angelos.system.hub_bench import measure

    figures = asyncio.run(measure(count, "always" if durability == "always" else "everysec"))
    rows = [(figure.work, f"{figure.value:,.4g}", figure.unit) for figure in figures]
    machine = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    text = table(("work", "figure", "unit"), rows)
    text += f"\n{machine['cores']} cores, load {machine['load']}, {durability}"
    out.show({"durability": durability, "machine": machine, "figures": figures}, text)


@hub.command("key")
@common
def print_key(out: Out) -> None:
    """Print the file that a gateway of this system needs. It is a secret.

    It holds the certificate authority of nodes and agents, not the keys that sign grants and
    commits. Run it where control's data directory is.
    """
    from angelos.adapters.host.datadir import DataDir
    from angelos.cli.extras import require
    from angelos.client.settings import find_data_dir

    require("server")
    from angelos.wiring.gateway import gateway_key

    data = DataDir(out.data_dir or find_data_dir())
    click.echo(gateway_key(data).decode(), nl=False)


@hub.command("run")
@click.option("--key", "key_file", required=True, metavar="FILE", help="Of `angelos hub key`.")
@click.option("--host", metavar="HOST", help="Where it listens [env: ANGELOS_HUB_HOST].")
@click.option(
    "--port",
    type=click.IntRange(1, 65_534),
    metavar="PORT",
    help="Its port, and the next one for enrolment [env: ANGELOS_HUB_PORT].",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="NAME",
    help="How others reach it; may be repeated [env: ANGELOS_HUB_NAMES].",
)
@common
def run_hub(
    out: Out, *, key_file: str, host: str | None, port: int | None, names: tuple[str, ...]
) -> None:
    """Run a hub alone, a gateway, until Ctrl-C or SIGTERM.

    It shares the stores of control, which ANGELOS_POSTGRES_DSN and ANGELOS_VALKEY_URL name, and
    waits for them. With --json the line {"event": "ready", ...} comes when it serves.
    """
    from angelos.cli.extras import require
    from angelos.cli.reading import read_text

    require("server")
    from angelos.wiring.gateway import read_gateway_key
    from angelos.wiring.settings import load

    key = read_gateway_key(read_text(key_file, stdin=True).encode())
    settings = load(data_dir=out.data_dir, hub={"host": host, "port": port, "names": names})
    asyncio.run(_serve_gateway(out, settings, key))


async def _serve_gateway(out: Out, settings: Settings, key: GatewayKey) -> None:
    import logging

    from angelos.adapters.host.collection import spare_started
    from angelos.adapters.host.notify import give_signs
    from angelos.cli.endings import ending_signals
    from angelos.wiring.gateway import serve_gateway
    from angelos.wiring.settings import notify_socket

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def serve() -> None:
        async with serve_gateway(settings, key) as running:
            event = {"event": "ready", "hub_url": running.url, "enrol_url": running.enrol_url}
            out.show(event, f"ready: {running.url}, for enrolment {running.enrol_url}")
            sys.stdout.flush()
            spare_started()
            await give_signs(notify_socket())

    serving = asyncio.create_task(serve(), name="gateway")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    for number in ending_signals():
        loop.add_signal_handler(number, stop.set)
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    serving.cancel()
    await asyncio.wait({serving, stopping})
    if not serving.cancelled() and (error := serving.exception()) is not None:
        raise error


@hub.group("dead-letters", cls=NounGroup)
def dead_letters() -> None:
    """List, show, replay and drop what could not be delivered or read."""


@dead_letters.command("list")
@click.option("--destination", default="", help="Only those of this one, such as node/exec1.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100)
@common
def list_letters(out: Out, destination: str, limit: int) -> None:
    """List dead letters, oldest first; those of the journal belong to system/journal."""
    views = out.ask(lambda angelos: angelos.hub.dead_letters(destination, limit))
    out.show({"letters": views}, letters_table(views))


@dead_letters.command("show")
@click.argument("destination")
@click.argument("position")
@common
def show_letter(out: Out, destination: str, position: str) -> None:
    """Show the dead letter at POSITION of DESTINATION."""
    view = out.ask(lambda angelos: angelos.hub.dead_letter(destination, position))
    lines = [f"{name}: {getattr(view, name)}" for name in view.__struct_fields__]
    out.show(view, "\n".join(lines))


@dead_letters.command("replay")
@click.argument("destination")
@click.argument("positions", nargs=-1, required=True)
@common
def replay_letters(out: Out, destination: str, positions: tuple[str, ...]) -> None:
    """Put dead letters of DESTINATION into its queue again."""
    count = out.ask(lambda angelos: angelos.hub.replay(destination, positions))
    out.show({"count": count}, f"{count} of {len(positions)} dead letters were replayed.")


@dead_letters.command("drop")
@click.argument("destination")
@click.argument("positions", nargs=-1, required=True)
@common
def drop_letters(out: Out, destination: str, positions: tuple[str, ...]) -> None:
    """Forget dead letters of DESTINATION for good."""
    count = out.ask(lambda angelos: angelos.hub.drop(destination, positions))
    out.show({"count": count}, f"{count} of {len(positions)} dead letters were dropped.")


def letters_table(views: Iterable[DeadLetterView]) -> str:
    """Return dead letters as a table."""
    rows = [
        (view.destination, view.position, view.reason, view.source or "-", view.detail)
        for view in views
    ]
    return table(("destination", "position", "reason", "source", "why"), rows)
