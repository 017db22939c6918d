"""Jupyter's managers of kernels, sessions and kernel specs, with boxes and owners.

A kernel belongs to the person who started it. Whatever kernel spec is asked for, its kernel runs in
a box, except for the names that the operator has allowed (`ANGELOS_UNBOXED_KERNELS`), which only
admins may start.
"""

from __future__ import annotations

import copy
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_server.services.kernels.connection.base import deserialize_msg_from_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager
from tornado.web import HTTPError

from angelos.core.errors import AngelError
from angelos.core.permissions import Permission
from jupyter_ext.kernels.provisioner import PROVISIONER, BoxProvisioner
from jupyter_ext.kernels.service import caller

if TYPE_CHECKING:
    from angelos.core.permissions import Principal
    from jupyter_ext.kernels.service import KernelService

UNBOXED = "python-unboxed"
"""The name of a kernel spec that exists only where the operator has allowed it."""
_ID = re.compile(r"[0-9A-Za-z]+(?:-[0-9A-Za-z]+){4}")
_MAX_ID = 64
_HEADER = 4096
"""Bytes of a message in which its type stands; clients write the header first."""


class BoxedKernelSpecManager(KernelSpecManager):
    """Kernel specs whose kernels start in a box."""

    boxes: KernelService | None = None

    @property
    def _unboxed(self) -> frozenset[str]:
        return self.boxes.unboxed if self.boxes is not None else frozenset()

    def find_kernel_specs(self) -> dict[str, str]:
        """Return every kernel spec's folder, and that of Python without a box where allowed."""
        specs = super().find_kernel_specs()
        if UNBOXED in self._unboxed and "python3" in specs:
            specs[UNBOXED] = specs["python3"]
        return specs

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """Return a spec whose kernel starts in a box, unless the operator has allowed its name."""
        unboxed = kernel_name in self._unboxed
        builtin = kernel_name == UNBOXED and unboxed
        spec = copy.copy(super().get_kernel_spec("python3" if builtin else kernel_name))
        name = "local-provisioner" if unboxed else PROVISIONER
        spec.metadata = {**spec.metadata, "kernel_provisioner": {"provisioner_name": name}}
        badge = "unboxed" if unboxed else self.boxes.badge if self.boxes is not None else ""
        if badge:
            spec.display_name = f"{'Python' if builtin else spec.display_name} ({badge})"
        return spec


class BoxedKernelManager(AsyncMappingKernelManager):
    """The kernels of all persons."""

    boxes: KernelService | None = None

    async def _async_start_kernel(  # type: ignore[override]
        self,
        *,
        kernel_id: str | None = None,
        path: Any = None,
        start: Path | None = None,
        **kwargs: Any,
    ) -> str:
        """Start a kernel for whoever asks; `start` is its notebook's folder, if it is known.

        Raises:
            HTTPError: Nobody asks, the kernel is another's, or no box can be made.
        """
        service, person = self._service(), asking()
        _check_id(kernel_id)
        if kernel_id is not None and kernel_id in self:
            if service.owner(kernel_id) != person.id:
                raise HTTPError(404, f"There is no kernel {kernel_id} of yours.")
            return kernel_id
        kernel_id = kernel_id or self.new_kernel_id()
        if start is None and path:
            start = service.start_of(path)
        _check_unboxed(service, person, kwargs.get("kernel_name") or self.default_kernel_name)
        try:
            await service.open(kernel_id, person, start)
            return await super()._async_start_kernel(kernel_id=kernel_id, path=path, **kwargs)
        except BaseException as error:
            if kernel_id not in self:  # Jupyter keeps what failed, and cannot stop it at its end
                self._pending_kernels.pop(kernel_id, None)
            await service.close_kernel(kernel_id)
            if isinstance(error, AngelError):
                raise HTTPError(error.status, str(error)) from error
            raise

    start_kernel = _async_start_kernel  # type: ignore[assignment]

    def remove_kernel(self, kernel_id: str) -> Any:
        """Forget a kernel, and what it had outside of its box."""
        if self.boxes is not None:
            self.boxes.close_soon(kernel_id)
        return super().remove_kernel(kernel_id)

    def forget_all(self) -> None:
        """Forget kernels that do not end: Jupyter would wait for them once more."""
        self._pending_kernels.clear()
        for kernel_id in self.list_kernel_ids():
            self.remove_kernel(kernel_id)

    def _service(self) -> KernelService:
        if self.boxes is None:
            raise HTTPError(503, "AngelOS has not started yet, and kernels run in its boxes.")
        return self.boxes


class OwnedSessionManager(SessionManager):
    """Sessions by person: two people who open one notebook have a kernel each."""

    async def start_kernel_for_session(
        self,
        session_id: str,
        path: str | None,
        name: Any,
        type: str | None,  # noqa: A002 - the name of the parameter in Jupyter's class
        kernel_name: Any,
        kernel_id: str | None = None,
    ) -> str:
        """Start a kernel in its notebook's folder; that of a console has none."""
        del session_id
        manager: Any = self.kernel_manager
        console = type == "console" or not path
        start = None if console or manager.boxes is None else manager.boxes.start_of(path)
        return await manager.start_kernel(
            path=None if console else path,
            start=start,
            kernel_name=kernel_name,
            env=self.get_kernel_env(path or "", name),
            kernel_id=kernel_id,
        )

    async def session_exists(self, path: str) -> bool:
        """Return whether the caller has a session of this path."""
        return await self._own(path) is not None

    async def get_session(self, **kwargs: Any) -> Any:
        """Return a session; by path, the caller's own."""
        if set(kwargs) != {"path"}:
            return await super().get_session(**kwargs)
        model = await self._own(kwargs["path"])
        if model is None:
            raise HTTPError(404, f"You have no session of {kwargs['path']}.")
        return model

    async def _own(self, path: str) -> Any:
        manager: Any = self.kernel_manager
        person = asking()
        self.cursor.execute("SELECT * FROM session WHERE path=?", (path,))
        for row in self.cursor.fetchall():
            model = await self.row_to_model(row, tolerate_culled=True)
            if model is not None and manager.boxes.owner(model["kernel"]["id"]) == person.id:
                return model
        return None


class ExplainingConnection(ZMQChannelsWebsocketConnection):
    """A browser's connection to a kernel; it says in the cell why the kernel has died."""

    _cell: dict[str, Any] | None = None
    """The header of the last request to execute."""

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Remember which cell runs, and pass the message on."""
        head: Any = incoming_msg[:_HEADER]
        mark: Any = b"execute_request" if isinstance(head, bytes) else "execute_request"
        if mark in head:
            self._cell = _header(incoming_msg, self.subprotocol) or self._cell
        super().handle_incoming_message(incoming_msg)

    def on_kernel_restarted(self) -> None:
        """Say why the kernel before this one has ended, then that there is a new one."""
        self._explain()
        super().on_kernel_restarted()

    def on_restart_failed(self) -> None:
        """Say why the last kernel has ended, then that there will be no other."""
        self._explain()
        super().on_restart_failed()

    def _explain(self) -> None:
        provisioner = getattr(self.kernel_manager, "provisioner", None)
        ended = provisioner.ended if isinstance(provisioner, BoxProvisioner) else None
        if ended is not None:
            self.write_stderr(ended.words, self._cell or {})


def _header(message: str | bytes, protocol: str | None) -> dict[str, Any] | None:
    """Return the header of an execute request, None for what is none."""
    try:
        if protocol and isinstance(message, bytes):
            channel, parts = deserialize_msg_from_ws_v1(message)
            header = msgspec.json.decode(parts[0])
        else:
            decoded = msgspec.json.decode(message)
            channel, header = decoded.get("channel"), decoded.get("header")
    except (ValueError, LookupError, AttributeError, struct.error):
        return None
    execute = isinstance(header, dict) and header.get("msg_type") == "execute_request"
    return header if execute and channel == "shell" else None


def _check_id(kernel: str | None) -> None:
    if kernel is not None and (len(kernel) > _MAX_ID or not _ID.fullmatch(kernel)):
        raise HTTPError(400, "The id of a kernel is five words with dashes between.")


def _check_unboxed(service: KernelService, person: Principal, name: str) -> None:
    if name in service.unboxed and not person.may(Permission.people_manage):
        raise HTTPError(403, f"Only admins may start {name}, which runs without a box.")


def asking() -> Principal:
    """Return who makes the present request.

    Raises:
        HTTPError: Nobody does.
    """
    person = caller.get()
    if person is None:
        raise HTTPError(403, "A kernel is started by a person, and nobody is signed in.")
    return person
