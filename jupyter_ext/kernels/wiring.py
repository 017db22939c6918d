"""Puts our managers of kernels in the place of Jupyter's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_server.gateway.gateway_client import GatewayClient
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from traitlets.config import Config

from jupyter_ext.kernels.managed import ManagedContents
from jupyter_ext.kernels.manager import (
    BoxedKernelManager,
    BoxedKernelSpecManager,
    ExplainingConnection,
    OwnedSessionManager,
)
from jupyter_ext.kernels.service import KernelService

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from angelos.wiring.settings import Settings
    from jupyter_ext.binding import Binding


def use_boxes(serverapp: ServerApp) -> None:
    """Have the server make our managers; a gateway's kernels are not its children and stay."""
    # Terminals and language servers would be the server's children, in no box.
    serverapp.terminals_enabled = False
    serverapp.update_config(
        Config(
            {
                "LanguageServerManager": {"autodetect": False, "language_servers": {}},
                "LabApp": {"extension_manager": "readonly"},
            }
        )
    )
    if serverapp.contents_manager_class is AsyncLargeFileManager:
        serverapp.contents_manager_class = ManagedContents
    if GatewayClient.instance(parent=serverapp).gateway_enabled:
        return
    serverapp.allow_external_kernels = False  # others' connection files lead to kernels without box
    serverapp.kernel_spec_manager_class = BoxedKernelSpecManager
    serverapp.kernel_manager_class = BoxedKernelManager
    serverapp.session_manager_class = OwnedSessionManager
    serverapp.kernel_websocket_connection_class = ExplainingConnection


def attach_boxes(
    serverapp: ServerApp, settings: Settings, binding: Binding
) -> KernelService | None:
    """Return the service that the server's managers use, None where a gateway has the kernels."""
    manager = serverapp.kernel_manager
    if not isinstance(manager, BoxedKernelManager):
        return None
    service = KernelService(settings, binding, Path(serverapp.root_dir))
    manager.boxes = service
    if settings.nodes.kernel_idle_s:
        manager.cull_idle_timeout = settings.nodes.kernel_idle_s
        manager.cull_interval = min(manager.cull_interval, settings.nodes.kernel_idle_s)
    binding.presence.departed.append(lambda person: service.end_soon(manager, person))
    if isinstance(serverapp.kernel_spec_manager, BoxedKernelSpecManager):
        serverapp.kernel_spec_manager.boxes = service
    return service
