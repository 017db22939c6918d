"""The life cycle of the extension.

    link   -> sign-in, roles and files of Jupyter itself (before the web application is created)
    load   -> handlers, which answer 503 until the system runs
    start  -> `build_server` is entered: stores attached or started, hub listening
    stop   -> rooms store what they hold, then the server is left

Under `angelos up` the extension uses up's stores; under a plain `jupyter lab` it attaches to a
running system or runs the stores itself. When the system cannot start, Jupyter goes on without it
and the API says why.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jupyter_server.auth.authorizer import AllowAllAuthorizer
from jupyter_server.auth.identity import PasswordIdentityProvider
from jupyter_server.extension.application import ExtensionApp
from traitlets.config import Config

from angelos.adapters.host.collection import spare_started
from angelos.adapters.host.logs import jupyter_logging
from angelos.adapters.net import frame_loop
from angelos.core.errors import AngelError
from angelos.core.routes import PREFIX
from angelos.wiring.settings import Settings, load, take_jupyter_token
from jupyter_ext.api.events import EventsHandler
from jupyter_ext.api.git import GitHandler
from jupyter_ext.api.handlers import ApiHandler, HealthHandler, RootHandler
from jupyter_ext.auth.authorizer import AngelAuthorizer
from jupyter_ext.auth.identity import AngelIdentityProvider
from jupyter_ext.auth.pages import PageConfig
from jupyter_ext.auth.refusals import recording
from jupyter_ext.binding import Backend, Binding
from jupyter_ext.kernels.handlers import OwnKernelsHandler, OwnSessionsHandler
from jupyter_ext.kernels.managed import ManagedContents
from jupyter_ext.kernels.wiring import attach_boxes, use_boxes
from jupyter_ext.rooms.handler import RoomHandler
from jupyter_ext.rooms.room import ManagedRoom

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

log = logging.getLogger(__name__)
_KERNELS_END_S = 20.0
_LAB_EXTENSIONS = Path(__file__).parent / "labextensions"


class AngelExtension(ExtensionApp):
    """AngelOS as a server extension."""

    name = "jupyter_ext"
    app_name = "AngelOS"
    load_other_extensions = True

    _life: asyncio.Task[None] | None = None
    _stop: asyncio.Event

    def _link_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        super()._link_jupyter_server_extension(serverapp)
        self.angel_settings = load_settings()
        if serverapp.identity_provider_class is PasswordIdentityProvider:
            serverapp.identity_provider_class = AngelIdentityProvider
        if serverapp.authorizer_class is AllowAllAuthorizer:
            serverapp.authorizer_class = AngelAuthorizer
        if self.angel_settings.log.format == "json":
            logging_config = {"logging_config": jupyter_logging("server")}
            serverapp.update_config(Config({"Application": logging_config}))
        serverapp.update_config(jupyter_files(self.angel_settings, serverapp.config))
        serverapp.update_config(lab_extension(serverapp.config))
        try:
            use_boxes(serverapp)
        except Exception as error:  # Jupyter would go on, with kernels in no box
            raise SystemExit(f"AngelOS: kernels cannot be put into boxes: {error!r}") from error
        if token := take_jupyter_token():
            serverapp.update_config(server_token(token, serverapp.config))

    def initialize_settings(self) -> None:
        """Create the binding, where handlers find the system."""
        assert self.serverapp is not None  # noqa: S101 - linked before it is loaded
        self.binding = Binding(
            workspace=self.angel_settings.data.workspace, root_dir=Path(self.serverapp.root_dir)
        )
        self.settings["angelos_binding"] = self.binding
        contents = self.serverapp.contents_manager
        if isinstance(contents, ManagedContents):
            contents.binding = self.binding
        self.kernels = attach_boxes(self.serverapp, self.angel_settings, self.binding)
        if self.kernels is not None:
            self.settings["angelos_kernels"] = self.kernels
        present = self.serverapp.web_app.settings["log_function"]
        self.settings["log_function"] = recording(present, self.binding)
        # Extensions load in alphabetical order: JupyterLab comes later, and fills it.
        self.settings["page_config_data"] = PageConfig(self.settings.get("page_config_data", {}))

    def initialize_handlers(self) -> None:
        """Mount the handlers; the event loop does not run yet."""
        frame_loop.install()  # kernels and rooms answer malformed frames by their code, too
        self.handlers.extend(
            [
                (rf"{PREFIX}/events", EventsHandler),
                (rf"{PREFIX}((?:/.*)?)", ApiHandler),
                (r"/angelgit/([A-Za-z0-9._-]+)\.git/(.+)", GitHandler),
                (r"/(healthz)", HealthHandler),
                (r"/(readyz|metrics)", RootHandler),  # in the place of Jupyter's own metrics
                # Extensions load in alphabetical order: jupyter_server_ydoc comes later, so this
                # handler answers first.
                (r"/api/collaboration/room/(.*)", RoomHandler),
                (r"/api/kernels", OwnKernelsHandler),
                (r"/api/sessions", OwnSessionsHandler),
            ]
        )

    async def _start_jupyter_server_extension(self, serverapp: ServerApp) -> None:
        """Start the system; if that fails, Jupyter goes on without it."""
        self._stop, started = asyncio.Event(), asyncio.Event()
        if self.kernels is not None:
            self.kernels.start()
        self._life = asyncio.create_task(self._live(started), name="angelos")
        await started.wait()
        publish = getattr(self.binding.server, "publish", None)  # a fake has none
        if publish is not None:
            publish(serverapp.connection_url, serverapp.identity_provider.token)

    async def _live(self, started: asyncio.Event) -> None:
        """Run the system from start to stop: in one task, as task groups demand."""
        try:
            async with open_server(self.angel_settings, self.binding) as server:
                now = await server.journal.last()
                self.binding.bind(server)
                watching = asyncio.create_task(
                    self.binding.presence.watch(server.journal, now), name="presence"
                )
                spare_started()
                started.set()
                try:
                    await self._stop.wait()
                finally:
                    watching.cancel()
                    await asyncio.wait([watching])
        except Exception as error:
            self.binding.fail(str(error) if isinstance(error, AngelError) else repr(error))
            log.exception("AngelOS: %s", self.binding.state)
        finally:
            self.binding.unbind()
            started.set()

    async def stop_extension(self) -> None:
        """Store what the rooms hold, then leave the system."""
        if self._life is None:
            return
        await self._stop_kernels()
        rooms = [room for room in self.binding.live.rooms() if isinstance(room, ManagedRoom)]
        if rooms:
            await asyncio.wait([asyncio.create_task(room.stop()) for room in rooms])
        streams = set(self.binding.streams)
        for stream in streams:
            stream.cancel()
        if streams:
            await asyncio.wait(streams)
        self._stop.set()
        await asyncio.wait([self._life])

    async def _stop_kernels(self) -> None:
        if self.kernels is not None and self.serverapp is not None:
            manager: Any = self.serverapp.kernel_manager
            try:
                async with asyncio.timeout(_KERNELS_END_S):
                    await manager.shutdown_all(now=True)
            except Exception:  # whatever it is, the boxes end below
                log.exception("A kernel was not shut down in order")
                manager.forget_all()
            await self.kernels.stop()


def load_settings() -> Settings:
    """Return the settings of the environment."""
    return load()


def open_server(settings: Settings, binding: Binding) -> AbstractAsyncContextManager[Backend]:
    """Return the system as a context manager (`angelos/wiring/`)."""
    from angelos.wiring.build import build_server

    return build_server(settings, live=binding.live)


def lab_extension(present: Config) -> Config:
    """Return a configuration with which JupyterLab finds the extension in this package."""
    paths = list(present["LabServerApp"].get("extra_labextensions_path", []))
    return Config({"LabServerApp": {"extra_labextensions_path": [*paths, str(_LAB_EXTENSIONS)]}})


def server_token(token: str, present: Config) -> Config:
    """Return a configuration with the token that stood in the environment, if none is configured.

    Whatever the server starts inherits its environment, so the token does not stay there.
    """
    configured = "token" in present["IdentityProvider"] or "token" in present["ServerApp"]
    return Config({} if configured else {"IdentityProvider": {"token": token}})


def jupyter_files(settings: Settings, present: Config) -> Config:
    """Return a configuration that keeps Jupyter's own files in the data directory, if it exists.

    By default all servers of a user share them (file ids, cookie secret), or they lie in the
    current directory (updates of ordinary files). What is configured already stays as it is.
    """
    folder = settings.data.jupyter
    try:
        settings.data.check_format()
    except (AngelError, OSError):  # told when the system starts, which changes nothing there
        return Config()
    if not folder.is_dir():
        return Config()
    files = {
        "ServerApp": {"cookie_secret_file": str(folder / "cookie_secret")},
        "BaseFileIdManager": {"db_path": str(folder / "file_ids.db")},
        "SQLiteYStore": {"db_path": str(folder / "ystore.db")},
        "YDocExtension": {"session_store_path": str(folder / "sessions.json")},
    }
    return Config(
        {
            section: {key: value for key, value in traits.items() if key not in present[section]}
            for section, traits in files.items()
        }
    )
