"""The system that `angelos up` runs: stores, server and nodes, as one `async with`.

    async with System(settings, say) as system:
        await system.watch()        # until it is cancelled

Parts start side by side where possible: while PostgreSQL and Valkey start, the server imports. A
part that ends or freezes is started again, with growing pauses and for ever.
"""

from __future__ import annotations

import asyncio
import functools
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
from angelos.adapters.host.notify import SignsOfLife
from angelos.adapters.host.supervision import Failure, Restart, SupervisedPart, keep
from angelos.adapters.net.sockets import free_port
from angelos.client import Angelos
from angelos.core.errors import AngelError, ServerState, Unavailable, first_of
from angelos.system import jupyter
from angelos.system.child import Child
from angelos.system.environment import server_environment
from angelos.system.nodes import LocalNode, local_nodes
from angelos.system.parts import NodePart, ServerPart
from angelos.wiring.restarts import RestartFacts
from angelos.wiring.settings import Settings

log = logging.getLogger(__name__)
Say = Callable[..., None]
_READY_S = 60.0
_STOP_S = 15.0
_CHECK_S = 2.0
SIGNS = "notify"
"""The socket for signs of life, in the directory for sockets."""


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
        self._stores: dict[str, EmbeddedPostgres | EmbeddedValkey] = {}
        self._identity = ""
        self._signs: SignsOfLife | None = None
        self._facts: RestartFacts | None = None
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
            store.kill()

    async def watch(self) -> None:
        """Keep all parts running, until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts():
                group.create_task(keep(part, self), name=f"keep {part.name}")
            group.create_task(self._check(), name="check server")
            group.create_task(self._keep_runtime(), name="check runtime directory")

    def _parts(self) -> list[SupervisedPart]:
        parts: list[SupervisedPart] = list(self._stores.values())
        parts.append(ServerPart(self._children["server"], self.url))
        assert self._signs is not None  # noqa: S101 - opened before the first child was started
        for name, node in self._nodes.items():
            renew = functools.partial(self._enrol_again, node)
            parts.append(NodePart(self._children[name], self._signs, renew))
        return parts

    # -- what happens to the parts (host/supervision.py, Reporter) -----------------------------

    def failed(self, part: str, failure: Failure) -> None:
        """Say that a part is about to be started again."""
        self._say("restarting", name=part, cause=failure.cause, exit_code=failure.exit_code)

    def restarted(self, restart: Restart) -> None:
        """Record that a part runs again."""
        self._record()
        self._say("restarted", name=restart.part, after=round(restart.seconds, 2))
        if self._facts is not None:
            self._facts.add(restart)

    # -- start -----------------------------------------------------------------------------

    async def _start(self) -> None:
        data = self.data
        data.create()
        self._identity, copied = self._stack.enter_context(data.locked())
        if copied:
            self._say("copied", data_dir=str(data.root))
        await self._end_orphans()
        self._stack.callback(data.write_processes, [])
        runtime = data.create_runtime()
        self._stack.callback(self._remove_runtime)
        self._signs = await self._stack.enter_async_context(SignsOfLife(runtime / SIGNS))
        port = free_port(self.settings.server.port)
        if self.settings.server.port not in (0, port):
            raise Unavailable(
                f"Port {self.settings.server.port} is taken.",
                hint="Leave --port out for a free one.",
            )
        log_format = self.settings.log.format
        config = jupyter.configure(data, log_format)
        env = server_environment(
            data, self._token, config, self._identity, self.settings.hub, log_format
        )
        server = self._add(Child("server", jupyter.argv(port), env, data.logs / "server.log"))
        await self._spawn(server)
        self._file = await self._start_stores(runtime)
        data.write_system(self._file)
        self._stack.callback(data.clear_system)
        self._facts = await self._stack.enter_async_context(RestartFacts(self._file.valkey))
        url = f"http://127.0.0.1:{port}"
        async with Angelos(url, token=self._token) as angelos:
            await self._server_ready(server, angelos)
            self._say("started", name="server", url=url)
            hub = data.server()
            if hub is None:
                raise Unavailable("The server has not written the address of its hub.")
            await self._start_nodes(angelos, hub)
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
            if await end_recorded(old.pid, old.start_ticks, how, identity=self._identity):
                self._say("orphan", name=old.name, pid=old.pid)
        self.data.clear_system()

    async def _start_stores(self, runtime: Path) -> SystemFile:
        dsn, url = self.settings.stores.postgres_dsn, self.settings.stores.valkey_url
        try:
            async with asyncio.TaskGroup() as group:
                postgres = valkey = None
                if not dsn:
                    store = EmbeddedPostgres(self.data.postgres, runtime, identity=self._identity)
                    postgres = group.create_task(self._start_store(store))
                if not url:
                    store = EmbeddedValkey(self.data.valkey, runtime, identity=self._identity)
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
        self._stores[store.name] = store
        self._record()
        self._say("started", name=store.name, pid=store.pid)
        return store.url

    async def _server_ready(self, server: Child, angelos: Angelos) -> None:
        """Wait until the server runs; one that says that it is starting has all the time it needs.

        A long history is read at a start, and nobody is helped by a system that gives up on it.
        """
        loop = asyncio.get_running_loop()
        died = asyncio.create_task(server.wait())
        try:
            async with asyncio.timeout(_READY_S) as limit:
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
                        if error.extra.get("state") == ServerState.starting:
                            limit.reschedule(loop.time() + _READY_S)
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

    async def _start_nodes(self, angelos: Angelos, hub: ServerFile) -> None:
        for local in local_nodes(self.settings.nodes.local):
            node = self._nodes[local.name] = LocalNode(local, self.settings)
            await node.enrol(angelos, hub)
            assert self._signs is not None  # noqa: S101 - opened before
            await self._spawn(self._add(node.child(self._identity, str(self._signs.path))))

    async def _nodes_connected(self, angelos: Angelos) -> None:
        names = {f"node/{name}" for name in self._nodes}
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

    async def _enrol_again(self, node: LocalNode) -> None:
        """Renew the certificate of a node that was away too long, unless it is quarantined."""
        try:
            hub = self.data.server()
            if hub is None:
                raise Unavailable("The server is not running.")
            async with Angelos(self.url, token=self._token) as angelos:
                await node.enrol(angelos, hub)
        except AngelError as error:
            log.warning("%s has no certificate: %s", node.local.name, error)

    async def _check(self) -> None:
        """Stop the server when AngelOS does not run in it, so that it is started anew."""
        async with Angelos(self.url, token=self._token) as angelos:
            while True:
                await asyncio.sleep(_CHECK_S)
                try:
                    await angelos.status()
                    self._follow_hub()
                    self._follow_certificates()
                except Unavailable as error:
                    # `not_started` too: the stores of others may have been away.
                    if error.extra.get("state") in {ServerState.failed, ServerState.not_started}:
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

    def _follow_certificates(self) -> None:
        """Restart the nodes whose certificate has expired, to enrol again: the clock has jumped."""
        for name, node in self._nodes.items():
            child = self._children[name]
            if child.running and not node.enrolled(self._system.hub_url):
                log.warning("The certificate of %s has expired; it enrols again.", name)
                child.terminate()

    async def _keep_runtime(self) -> None:
        """Make the directory for sockets again when somebody has removed it."""
        assert self._signs is not None  # noqa: S101 - opened before
        while True:
            await asyncio.sleep(_CHECK_S)
            if self._signs.path.is_socket():
                continue
            try:
                runtime = self.data.create_runtime()
                if runtime != self._signs.path.parent:
                    self._move_runtime(runtime)
                self._signs.open()
            except (AngelError, OSError) as error:
                log.warning("The directory for sockets cannot be made again: %s", error)
            else:
                self._say("rebuilt", path=str(runtime))

    def _move_runtime(self, runtime: Path) -> None:
        """Use another directory for sockets: the place of the old one has gone (a log-out)."""
        assert self._signs is not None  # noqa: S101 - opened before
        self._signs.path = runtime / SIGNS
        urls: dict[str, str] = {}
        for name, store in self._stores.items():
            store.move_sockets(runtime)
            urls[name] = store.url
            store.kill()  # and it is started again, with its socket there
        self._file = msgspec.structs.replace(self._system, **urls)
        self.data.write_system(self._file)
        self._children["server"].terminate()

    def _remove_runtime(self) -> None:
        if self._signs is not None:
            shutil.rmtree(self._signs.path.parent, ignore_errors=True)

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
        processes = [Process(s.name, s.pid, s.start_ticks) for s in self._stores.values()]
        processes += [child.record for child in self._children.values() if child.record is not None]
        self.data.write_processes(processes)
