"""`angelos up`: start the system, keep it running, end it in good order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from angelos.cli.endings import ending_signals
from angelos.cli.extras import require
from angelos.cli.options import common, log_format
from angelos.cli.output import FAILED, Out

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterator

    from angelos.system.system import System
    from angelos.wiring.settings import Settings


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), help="Port of JupyterLab [any free one].")
@click.option(
    "--nodes",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    metavar="N",
    help="Execution nodes on this machine, with one that tests changes; 0: none.",
)
@click.option("--hub-host", metavar="HOST", help="Where the hub listens [env: ANGELOS_HUB_HOST].")
@click.option(
    "--hub-port",
    type=click.IntRange(1, 65_534),
    metavar="PORT",
    help="Its port, and the next one for enrolment [env: ANGELOS_HUB_PORT].",
)
@click.option(
    "--hub-name",
    "hub_names",
    multiple=True,
    metavar="NAME",
    help="How other machines reach it; may be repeated [env: ANGELOS_HUB_NAMES].",
)
@click.option(
    "--hub-gateway",
    metavar="HOST:PORT",
    help="The gateway to which tokens send new nodes and agents [env: ANGELOS_HUB_GATEWAY].",
)
@click.option("--lab/--no-browser", default=False, help="Open JupyterLab in a browser.")
@common
@log_format
def up(
    out: Out,
    *,
    port: int | None,
    lab: bool,
    nodes: int,
    **hub: Any,
) -> None:
    """Start stores, server and nodes, and keep them running until Ctrl-C or SIGTERM.

    With --json each step is one line {"event", "seconds", ...}; `ready` comes when everything runs.
    """
    from angelos.adapters.host.logs import configure
    from angelos.wiring.settings import load

    require("server")
    settings = load(
        data_dir=out.data_dir,
        port=port or 0,
        local_nodes=nodes,
        hub={name.removeprefix("hub_"): value for name, value in hub.items()},
        log_format=out.log_format,
    )
    if settings.log.format == "json":
        configure(settings.log.format, "up")
    sys.exit(asyncio.run(_up(settings, _Teller(out), lab=lab)))


class _Teller:
    """Prints what happens, with the seconds since the start."""

    _TEXTS = {
        "orphan": "ended {name} (pid {pid}), left behind by a killed run",
        "started": "{name}",
        "copied": "{data_dir} is a copy: it gets an id and ports of its own",
        "restarting": "{name} {cause} (exit code {exit_code}); starting it again",
        "restarted": "{name} runs again after {after} s",
        "rebuilt": "the directory for sockets was removed; {path} is there again",
        "moved": "the hub's port was taken meanwhile; it is at {hub} now, the nodes follow",
        "ready": "ready: {lab}\n{pad}Ctrl-C stops it; other commands find it through {data_dir}",
        "stopping": "stopping ({reason})",
        "stopped": "stopped; nothing is left running",
    }

    def __init__(self, out: Out) -> None:
        self._out = out
        self._start = time.monotonic()

    def __call__(self, event: str, **data: Any) -> None:
        seconds = round(time.monotonic() - self._start, 2)
        with contextlib.suppress(OSError):  # nobody reads on, a full disk; the system does not mind
            if self._out.as_json:
                self._out.json({"event": event, "seconds": seconds, **data})
            else:
                click.echo(f"{seconds:7.2f} s  {self._TEXTS[event].format(pad=' ' * 11, **data)}")
            sys.stdout.flush()


async def _up(settings: Settings, say: _Teller, *, lab: bool) -> int:
    from angelos.system.system import System

    # Tornado logs a request that was given up when its connection ends; nobody needs to know.
    logging.getLogger("tornado").setLevel(logging.CRITICAL)
    system = System(settings, say)
    stop = _Stop(system, say)
    with stop.listening():
        running = asyncio.create_task(_serve(system, say, lab=lab))
        stopping = asyncio.create_task(stop.requested.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
        await asyncio.wait({running})
        stopping.cancel()
        if running.cancelled():
            return FAILED if stop.killed else 0
        return running.result()


async def _serve(system: System, say: _Teller, *, lab: bool) -> int:
    from angelos.adapters.host.notify import give_signs
    from angelos.wiring.settings import notify_socket

    async with system:
        data_dir = str(system.settings.data_dir)
        say("ready", url=system.url, lab=system.lab_url, data_dir=data_dir)
        if lab:
            import webbrowser

            await asyncio.to_thread(webbrowser.open, system.lab_url)
        async with asyncio.TaskGroup() as group:
            group.create_task(system.watch(), name="watch")
            group.create_task(give_signs(notify_socket()), name="signs of life")
    return 0


class _Stop:
    """The first signal asks for an orderly end, the second kills."""

    def __init__(self, system: System, say: _Teller) -> None:
        self.requested = asyncio.Event()
        self.killed = False
        self._system = system
        self._say = say

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = ending_signals()
        for number in numbers:
            loop.add_signal_handler(number, self._on, number)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _on(self, number: signal.Signals) -> None:
        if self.requested.is_set():
            self.killed = True
            self._system.kill()
            return
        self.requested.set()
        self._say("stopping", reason=number.name)
