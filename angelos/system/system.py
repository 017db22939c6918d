"""The system that `angelos up` runs: stores, server and nodes, as one `async with`.

    async with System(settings, say) as system:
        reason = await system.watch()   # until a part is lost for good

Parts start side by side where possible: while PostgreSQL and Valkey start, the server imports. A
server or node that dies is started again; when a store dies everything stops in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from angelos.adapters.host.children import end_recorded, start_ticks
from angelos.adapters.host.datadir import Process, ServerFile, SystemFile
from angelos.adapters.host.embedded import EmbeddedPostgres, EmbeddedValkey
from angelos.adapters.net.sockets import free_port
from angelos.client import Angelos
from angelos.core.errors import AngelError, ServerState, Unavailable, first_of
from angelos.system import jupyter
from angelos.system.child import Child, Restarts, ended
from angelos.system.environment import server_environment
from angelos.system.nodes import LOCAL_NODES, LocalNode
from angelos.wiring.settings import Settings

log = logging.getLogger(__name__)
Say = Callable[..., None]
_READY_S = 60.0
_STOP_S = 15.0
_CHECK_S = 5.0


class System:
    """Everything that `angelos up` starts; ready inside `async with`, stopped in reverse order.

    Args:
        settings: the data directory, stores and nodes.
        say: called with each event, `say("started", name="server")`.
    """

    def __init__(self, settings: Settings, say: Say) -> None:
        self.settings = settings
        self.data = settings.data
        self._say = say
        self._stack = AsyncExitStack()
        self._children: dict[str, Child] = {}
        self._nodes: dict[str, LocalNode] = {}
        self._stores: dict[str, Process] = {}
        self._token = secrets.token_urlsafe(32)
        self._file: SystemFile | None = None
        self.stopping = False

    @property
    def lab_url(self) -> str:
        """Where people open JupyterLab; holds the token."""
        return f"{self._system.url}/lab?token={self._token}"

    @property
    def url(self) -> str:
        """The server's address."""
        return self._system.url

    @property
    def _system(self) -> SystemFile:
        if self._file is None:
            raise Unavailable("The system has not been started.")
        return self._file

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stop()

    def kill(self) -> None:
        """Kill all processes now."""
        for child in self._children.values():
            child.kill()
        for store in self._stores.values():
            if start_ticks(store.pid) == store.start_ticks:
                os.kill(store.pid, signal.SIGKILL)

    async def watch(self) -> str:
        """Keep the parts running; when one is lost for good, return the reason."""
        waits = [
            asyncio.create_task(self._keep(child), name=f"keep {name}")
            for name, child in self._children.items()
        ]
        waits.append(asyncio.create_task(self._check(), name="check server"))
        waits += [
            asyncio.create_task(self._lost(store), name=f"watch {name}")
            for name, store in self._stores.items()
        ]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    # -- start -----------------------------------------------------------------------------

    async def _start(self) -> None:
        data = self.data
        data.create()
        self._stack.enter_context(data.locked())
        await self._end_orphans()
        self._stack.callback(data.write_processes, [])
        runtime = data.create_runtime()
        self._stack.callback(shutil.rmtree, runtime, ignore_errors=True)
        port = free_port(self.settings.server.port)
        if self.settings.server.port not in (0, port):
            raise Unavailable(
                f"Port {self.settings.server.port} is taken.",
                hint="Leave --port out for a free one.",
            )
        config = jupyter.configure(data)
        env = server_environment(data, self._token, config)
        server = self._add(Child("server", jupyter.argv(port), env, data.logs / "server.log"))
        await self._spawn(server)
        self._file = await self._start_stores(runtime)
        data.write_system(self._file)
        self._stack.callback(data.clear_system)
        url = f"http://127.0.0.1:{port}"
        async with Angelos(url, token=self._token) as angelos:
            await self._server_ready(server, angelos)
            self._say("started", name="server", url=url)
            hub = data.server()
            if hub is None:
                raise Unavailable("The server has not written the address of its hub.")
            await self._start_nodes(angelos, hub.hub_url)
            self._publish(hub, url=url, token=self._token)
            await self._nodes_connected(angelos)

    def _publish(self, hub: ServerFile, **fields: str) -> None:
        """Write `system.json` with the hub's addresses and other fields."""
        self._file = msgspec.structs.replace(
            self._system, hub_url=hub.hub_url, enrol_url=hub.enrol_url, **fields
        )
        self.data.write_system(self._file)

    async def _end_orphans(self) -> None:
        """Stop the processes of an `up` that was killed, in reverse order of start."""
        for old in reversed(self.data.processes()):
            how = signal.SIGINT if old.name == "postgres" else signal.SIGTERM
            if await end_recorded(old.pid, old.start_ticks, how):
                self._say("orphan", name=old.name, pid=old.pid)
        self.data.clear_system()

    async def _start_stores(self, runtime: Path) -> SystemFile:
        dsn, url = self.settings.stores.postgres_dsn, self.settings.stores.valkey_url
        try:
            async with asyncio.TaskGroup() as group:
                postgres = valkey = None
                if not dsn:
                    store = EmbeddedPostgres(self.data.postgres, runtime)
                    postgres = group.create_task(self._start_store(store))
                if not url:
                    store = EmbeddedValkey(self.data.valkey, runtime)
                    valkey = group.create_task(self._start_store(store))
        except ExceptionGroup as group:
            if (error := first_of(group)) is None:
                raise
            raise error from None
        return SystemFile(
            pid=os.getpid(),
            start_ticks=start_ticks(os.getpid()) or 0,
            started_at=time.time(),
            postgres=postgres.result() if postgres else dsn,
            valkey=valkey.result() if valkey else url,
        )

    async def _start_store(self, store: EmbeddedPostgres | EmbeddedValkey) -> str:
        await self._stack.enter_async_context(store)
        self._stores[store.name] = Process(store.name, store.pid, store.start_ticks)
        self._record()
        self._say("started", name=store.name, pid=store.pid)
        return store.url

    async def _server_ready(self, server: Child, angelos: Angelos) -> None:
        died = asyncio.create_task(server.wait())
        try:
            async with asyncio.timeout(_READY_S):
                pause = 0.05
                while True:
                    if died.done():
                        raise Unavailable(
                            f"The server ended with exit code {died.result()}.",
                            hint=f"Its log is {self.data.logs / 'server.log'}.",
                            log=server.tail(),
                        )
                    try:
                        await angelos.status()
                    except Unavailable as error:
                        if error.extra.get("state") == ServerState.not_started:
                            raise
                        await asyncio.sleep(pause)
                        pause = min(pause * 1.2, 0.25)
                    except AngelError as error:
                        raise Unavailable(
                            f"The server runs without AngelOS ({error}).",
                            hint=f"Its log is {self.data.logs / 'server.log'}.",
                            log=server.tail(),
                        ) from error
                    else:
                        return
        except TimeoutError:
            raise Unavailable(
                f"The server was not ready after {_READY_S:.0f} s.",
                hint=f"Its log is {self.data.logs / 'server.log'}.",
                log=server.tail(),
            ) from None
        finally:
            died.cancel()
            await asyncio.wait({died})

    async def _start_nodes(self, angelos: Angelos, hub_url: str) -> None:
        for local in LOCAL_NODES:
            node = self._nodes[local.name] = LocalNode(local, self.settings)
            await node.enrol(angelos, hub_url)
            await self._spawn(self._add(node.child()))

    async def _nodes_connected(self, angelos: Angelos) -> None:
        names = {f"node/{local.name}" for local in LOCAL_NODES}
        try:
            async with asyncio.timeout(_READY_S):
                pause = 0.05
                while names:
                    connected = {
                        str(view.id) for view in await angelos.nodes.list() if view.connected
                    }
                    for name in sorted(names & connected):
                        self._say("started", name=name)
                    names -= connected
                    for name in sorted(names):
                        child = self._children[name.partition("/")[2]]
                        if not child.running:
                            code = await child.wait()
                            raise Unavailable(
                                f"{name} ended with exit code {code}.",
                                hint=f"Its log is {self.data.logs}/{child.name}.log.",
                                log=child.tail(),
                            )
                    if names:
                        await asyncio.sleep(pause)
                        pause = min(pause * 1.2, 0.25)
        except TimeoutError:
            lost = ", ".join(sorted(names))
            tails = "\n".join(self._children[n.partition("/")[2]].tail() for n in sorted(names))
            raise Unavailable(
                f"{lost} did not connect in {_READY_S:.0f} s.",
                hint=f"Logs are in {self.data.logs}.",
                log=tails,
            ) from None

    # -- run -------------------------------------------------------------------------------

    async def _keep(self, child: Child) -> str:
        restarts = Restarts()
        while True:
            code = await child.wait()
            await child.stop()
            restarts, delay = restarts.died(time.monotonic())
            if delay is None:
                if (
                    child is not self._children["server"]
                ):  # without a node the system is still of use
                    self._say("given up", name=child.name, exit_code=code)
                    await asyncio.Event().wait()
                return f"{child.name} keeps ending (exit code {code}); see {self.data.logs}."
            self._say("restarting", name=child.name, exit_code=code)
            await asyncio.sleep(delay)
            if child.name in self._nodes:
                await self._enrol_again(self._nodes[child.name])
            await self._spawn(child)

    async def _enrol_again(self, node: LocalNode) -> None:
        """Renew the certificate of a node that was away too long, unless it is quarantined."""
        try:
            async with Angelos(self.url, token=self._token) as angelos:
                await node.enrol(angelos, self._system.hub_url)
        except AngelError as error:
            log.warning("%s has no certificate: %s", node.local.name, error)

    async def _check(self) -> str:
        """Stop the server when AngelOS has failed in it, so that it is started anew."""
        async with Angelos(self.url, token=self._token) as angelos:
            while True:
                await asyncio.sleep(_CHECK_S)
                try:
                    await angelos.status()
                    self._follow_hub()
                except Unavailable as error:
                    if error.extra.get("state") == ServerState.failed:
                        self._children["server"].terminate()
                except AngelError as error:
                    log.warning("the server answers with %s", error)

    def _follow_hub(self) -> None:
        """Restart the nodes, to enrol again, when the hub has moved to another port."""
        hub = self.data.server()
        if hub is None or hub.hub_url == self._system.hub_url:
            return
        self._publish(hub)
        self._say("moved", hub=hub.hub_url)
        for name in self._nodes:
            self._children[name].terminate()

    async def _lost(self, store: Process) -> str:
        await ended(store.pid)
        return f"{store.name} (pid {store.pid}) has died; what was acknowledged is kept."

    # -- stop ------------------------------------------------------------------------------

    async def _stop(self) -> None:
        self.stopping = True
        names = [name for name in self._children if name != "server"]
        await asyncio.gather(*(self._children[name].stop(_STOP_S) for name in names))
        if "server" in self._children:
            await self._children["server"].stop(_STOP_S)
        await self._stack.aclose()
        if self._children or self._stores:  # otherwise nothing was started
            self._say("stopped")

    def _add(self, child: Child) -> Child:
        self._children[child.name] = child
        return child

    async def _spawn(self, child: Child) -> None:
        await child.start()
        self._record()

    def _record(self) -> None:
        processes = list(self._stores.values())
        processes += [child.record for child in self._children.values() if child.record is not None]
        self.data.write_processes(processes)
