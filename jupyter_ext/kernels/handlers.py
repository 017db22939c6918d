"""Lists of kernels and sessions, without those of others; and who may touch one.

read, write (look, interrupt, restart, end)   its owner, and who may manage people
execute (attach: run code as its owner)       its owner
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from jupyter_client.jsonutil import json_default
from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from jupyter_server.services.kernels.handlers import MainKernelHandler
from jupyter_server.services.sessions.handlers import SessionRootHandler
from tornado import web

from angelos.core.permissions import Permission
from jupyter_ext.kernels.manager import asking

if TYPE_CHECKING:
    from jupyter_server.base.handlers import JupyterHandler

    from angelos.core.permissions import Principal
    from jupyter_ext.kernels.service import KernelService


class OwnKernelsHandler(MainKernelHandler):
    """The kernels of the caller."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List them."""
        kernels = await ensure_async(self.kernel_manager.list_kernels())
        shown = [model for model in kernels if _visible(self, model["id"])]
        self.finish(json.dumps(shown, default=json_default))


class OwnSessionsHandler(SessionRootHandler):
    """The sessions of the caller."""

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """List them."""
        sessions = await ensure_async(self.session_manager.list_sessions())
        shown = [model for model in sessions if _visible(self, model["kernel"]["id"])]
        self.finish(json.dumps(shown, default=json_default))


def _visible(handler: JupyterHandler, kernel: str) -> bool:
    service: KernelService | None = handler.settings.get("angelos_kernels")
    return service is None or permits(service, asking(), kernel, "read")


def permits(service: KernelService, principal: Principal, kernel: str, action: str) -> bool:
    """Return whether a person may do something to a kernel."""
    if service.owner(kernel) == principal.id:
        return True
    return action != "execute" and principal.may(Permission.people_manage)


async def refuse_foreign(handler: JupyterHandler, principal: Principal, action: str) -> None:
    """Raise 404 for a request to a kernel that is another's."""
    service: KernelService | None = handler.settings.get("angelos_kernels")
    if service is None:
        return
    for kernel, needed in await _kernels_of(handler, action):
        if not permits(service, principal, kernel, needed):
            raise web.HTTPError(404, f"There is no kernel {kernel[:64]} of yours.")
        service.signed_in(kernel, principal)


async def _kernels_of(handler: JupyterHandler, action: str) -> list[tuple[str, str]]:
    """Return the kernels that a request names, each with what it would do to it."""
    found: list[tuple[str, str]] = []
    if kernel := handler.path_kwargs.get("kernel_id"):
        found.append((_text(kernel), action))
    if session := handler.path_kwargs.get("session_id"):
        manager: Any = handler.session_manager
        model = await manager.get_session(session_id=_text(session))
        found.append((model["kernel"]["id"], action))
    if handler.request.method in {"POST", "PATCH"} and _has_sessions(handler):
        body = handler.get_json_body()
        named = body.get("kernel") if isinstance(body, dict) else None
        kernel = named.get("id") if isinstance(named, dict) else None
        if isinstance(kernel, str) and kernel in handler.kernel_manager:
            found.append((kernel, "execute"))  # its session is a way to attach
    return found


def _has_sessions(handler: Any) -> bool:
    return getattr(handler, "auth_resource", "") == "sessions"


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode(errors="replace")
