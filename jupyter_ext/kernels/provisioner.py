"""Starts each kernel in a box: the entry point `angelos-box` of `jupyter_client`.

Only the server's own manager (`manager.py`) can use it: it knows whose kernel it is. Messages go
over Unix sockets in a folder that the box and the server alone can reach, so that a kernel needs
no network.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
from jupyter_client.provisioning.local_provisioner import LocalProvisioner

from angelos.core.errors import Unavailable
from angelos.node.kernels.models import KernelExit, KernelOrder
from jupyter_ext.kernels.service import packages, write

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jupyter_client.connect import KernelConnectionInfo

    from angelos.node.kernels.host import RunningKernel
    from jupyter_ext.kernels.service import KernelLease, KernelService

PROVISIONER = "angelos-box"
_SOCKET = "k"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_PASSED_ON = ("JPY_SESSION_NAME",)


class BoxProvisioner(LocalProvisioner):
    """One kernel in a box."""

    _kernel: RunningKernel | None = None
    _lease: KernelLease | None = None

    @property
    def has_process(self) -> bool:
        """Whether a kernel was started that nobody has waited for yet."""
        return self._kernel is not None

    @property
    def ended(self) -> KernelExit | None:
        """How the kernel ended, None while it runs."""
        return self._kernel.ended if self._kernel is not None else None

    @property
    def _service(self) -> KernelService:
        service = getattr(self.parent.parent, "boxes", None) if self.parent else None
        if service is None:
            raise Unavailable("This kernel runs in boxes of AngelOS's server only.")
        return service

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Have the sockets in the kernel's own folder."""
        manager: Any = self.parent
        self._lease = self._service.lease(self.kernel_id)
        manager.transport, manager.cache_ports = "ipc", False
        manager.ip = str(self._lease.dialed / _SOCKET)
        return await super().pre_launch(**kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel in a new box and return how to connect to it."""
        host = await self._service.ready()
        order = self._order(cmd, kwargs.get("env") or {})
        if self._kernel is not None:
            await self._kernel.wait()
        self._kernel = await host.start_kernel(order)
        self.pid = self._kernel.pid
        return self.connection_info

    def _order(self, cmd: list[str], given: Mapping[str, str]) -> KernelOrder:
        lease, manager = self._lease, cast("Any", self.parent)
        assert lease is not None  # noqa: S101 - `pre_launch` comes first
        file = os.path.realpath(manager.connection_file)
        inside = lease.private / "connection.json"
        write(inside, self._connection(Path(file).read_bytes()))
        return KernelOrder(
            argv=tuple(arg.replace(file, str(inside)) for arg in cmd),
            folder=lease.folder,
            sockets=lease.sockets,
            dialed=lease.dialed,
            names=tuple(f"{_SOCKET}-{port}" for port in manager.ports),
            private=lease.private,
            chdir=str(lease.chdir or ""),
            env={
                **{name: str(value) for name, value in self.kernel_spec.env.items()},
                **{name: str(given[name]) for name in _PASSED_ON if name in given},
                "PATH": f"{Path(sys.executable).parent}:{_PATH}",
                "JUPYTER_RUNTIME_DIR": "/tmp/.jupyter",  # noqa: S108 - the box's own
                "ANGELOS_URL": f"unix:{lease.private / 'api.sock'}",
                "ANGELOS_TOKEN_FILE": str(lease.private / "token"),
            },
            read_only=(*packages(), *self._resources()),
            limits=self._service.limits,
            network=self._service.network(lease),
        )

    def _connection(self, content: bytes) -> bytes:
        """Return a connection file with the folder of the sockets as the kernel has it."""
        assert self._lease is not None  # noqa: S101 - `pre_launch` comes first
        folder = self._service.host.socket_folder(self._lease.sockets)
        info = msgspec.json.decode(content)
        return msgspec.json.encode({**info, "ip": f"{folder}/{_SOCKET}"})

    def _resources(self) -> tuple[Path, ...]:
        folder = Path(os.path.realpath(self.kernel_spec.resource_dir or ""))
        outside = not any(str(folder).startswith(p + os.sep) for p in (sys.prefix, "/usr"))
        return (folder,) if self.kernel_spec.resource_dir and outside and folder.is_dir() else ()

    async def poll(self) -> int | None:
        """Return None while the kernel runs, then its exit code."""
        if self._kernel is None:
            return 0
        return self.ended.code if self.ended is not None else None

    async def wait(self) -> int | None:
        """Wait until nothing of the kernel is left."""
        if self._kernel is None:
            return 0
        code = (await self._kernel.wait()).code
        self._kernel = None
        return code

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel itself, not to its box."""
        if self._kernel is not None:
            self._kernel.signal(signum)

    async def kill(self, restart: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """End the box."""
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002
        """Ask the kernel to end."""
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:  # noqa: FBT001, FBT002
        """Remove what the kernel had, unless it starts again."""
        await super().cleanup(restart=restart)
        if not restart:
            await self._service.close_kernel(self.kernel_id)
