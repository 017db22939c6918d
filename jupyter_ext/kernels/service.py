"""The kernels of this server: whose they are, in which boxes, with which door to the API.

service = KernelService(settings, binding, places)
service.start()                                       # makes the first box in the background
lease = await service.open(kernel_id, person, start)  # folders, socket, token
await service.close_kernel(kernel_id)
await service.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import angelos
from angelos.control.tasks.network import allowed_network
from angelos.core.errors import AngelError, Busy, Unavailable
from angelos.core.facts import Fact, NetworkRequested
from angelos.core.ids import PrincipalId
from angelos.core.messages import Tier
from angelos.core.policy.access import policy_in_force
from angelos.core.principals import SessionKind
from angelos.node.broker.service import Brokers
from angelos.node.config import SandboxConfig
from angelos.node.environments.store import package_index
from angelos.node.kernels.folder import Placeholders
from angelos.node.kernels.host import KernelHost
from angelos.node.kernels.models import KernelLimits, KernelNetwork
from angelos.node.sandbox.launch import NOBODY
from angelos.node.sandbox.scratch import ScratchFolders
from jupyter_ext.kernels.api_socket import ApiSocket
from jupyter_ext.kernels.folders import Places, folder_for

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from angelos.core.network import NetworkVerdict
    from angelos.core.permissions import Principal
    from angelos.wiring.settings import Settings
    from jupyter_ext.binding import Binding

log = logging.getLogger(__name__)
caller: ContextVar[Principal | None] = ContextVar("caller", default=None)
"""Who makes the request that is being carried out; the authorizer sets it."""
_KERNELS = PrincipalId("system/kernels")
_LIFE_S = 3600.0
_RENEW_S = 1200.0
"""A kernel gets a new token this often; the one before lives on until its own end."""


@dataclass(eq=False)
class KernelLease:
    """What one kernel has outside of its box, from its start to its end, restarts included."""

    kernel: str
    principal: Principal
    """Who started it, as they signed in last."""
    folder: Path | None
    chdir: Path | None
    base: Path
    """Holds the three folders below; the server alone can enter it."""
    api: ApiSocket
    renewal: asyncio.Task[None] | None = None
    tokens: dict[str, float] = field(default_factory=dict)
    """Id of each of its tokens, and when it ends."""

    @property
    def person(self) -> PrincipalId:
        """Whose kernel it is."""
        return self.principal.id

    @property
    def sockets(self) -> Path:
        """Where the kernel makes its sockets."""
        return self.base / "s"

    @property
    def dialed(self) -> Path:
        """Where the server connects to its sockets; the kernel does not see it."""
        return self.base / "c"

    @property
    def private(self) -> Path:
        """What it may read: its connection file, its token, the socket of the API."""
        return self.base / "a"


class KernelService:
    """Owns what kernels have outside of their boxes."""

    def __init__(self, settings: Settings, binding: Binding, root: Path) -> None:
        records = settings.data.jupyter / "boxes"
        self._folders = ScratchFolders(records)
        self._binding = binding
        self._places = Places(
            root=Path(os.path.realpath(root)),
            workspace=Path(binding.workspace),
            data=Path(os.path.realpath(settings.data.root)),
            home=Path(os.path.realpath(Path.home())),
        )
        self._brokers = Brokers(settings.data.jupyter, settings.nodes.network)
        self._index = package_index(settings.nodes.network)
        self._listed = settings.network
        self.host = KernelHost(
            SandboxConfig(
                allow_unsandboxed=settings.nodes.allow_unsandboxed, ready_boxes=0, scratch=records
            ),
            self._brokers,
        )
        self.unboxed = frozenset(settings.nodes.unboxed_kernels)
        """Names of kernel specs that the operator has allowed to run without a box."""
        self._most = settings.nodes.kernels_per_person
        self.limits = KernelLimits(memory_mb=settings.nodes.kernel_memory_mb)
        self._leases: dict[str, KernelLease] = {}
        self._opening: Counter[PrincipalId] = Counter()
        self._placeholders = Placeholders()
        self._entering: asyncio.Task[KernelHost] | None = None
        self._closing: set[asyncio.Task[object]] = set()

    # -- life ----------------------------------------------------------------------------

    def start(self) -> None:
        """Find out in the background which boxes can be made here."""
        if self._entering is None:
            self._entering = asyncio.create_task(self._enter(), name="kernel boxes")

    async def _enter(self) -> KernelHost:
        await asyncio.to_thread(self._folders.sweep)
        await asyncio.to_thread(self._brokers.sweep)
        return await self.host.__aenter__()

    async def ready(self) -> KernelHost:
        """Return the host of kernels, once its boxes were tried."""
        self.start()
        assert self._entering is not None  # noqa: S101 - just started
        return await asyncio.shield(self._entering)

    async def stop(self) -> None:
        """End every kernel and remove what they had."""
        for kernel in [*self._leases]:
            await self.close_kernel(kernel)
        if self._closing:
            await asyncio.wait(self._closing)
        if self._entering is not None:
            with contextlib.suppress(Exception):
                await self._entering
            await self.host.__aexit__(None, None, None)
        self._brokers.close()

    @property
    def badge(self) -> str:
        """What the names of boxed kernels say in brackets; empty where every layer is in force."""
        ready = self._entering is not None and self._entering.done()
        return self.host.tier if ready and self.host.tier not in {Tier.full, Tier.reduced} else ""

    # -- kernels -------------------------------------------------------------------------

    async def open(self, kernel: str, principal: Principal, start: Path | None) -> KernelLease:
        """Return what a kernel has outside of its box; the same at a restart.

        Args:
            kernel: Its id.
            principal: Who starts it.
            start: The folder of its notebook, None for a console.

        Raises:
            Busy: The person has as many kernels as they may.
            Unavailable: There is no room for its files.
        """
        if kernel in self._leases:
            return self._leases[kernel]
        if len(self.of(principal.id)) + self._opening[principal.id] >= self._most:
            raise Busy(
                f"You have {self._most} kernels, which is the most that one person may have. "
                "Shut one down first."
            )
        folder = folder_for(start, self._places) if start is not None else None
        self._opening[principal.id] += 1
        try:
            base = await asyncio.to_thread(self._folders.make)
            for name in ("s", "c", "a"):
                (base / name).mkdir(mode=0o700)
        except OSError as error:
            raise Unavailable(f"There is no room for the kernel's files: {error}") from error
        finally:
            self._opening[principal.id] -= 1

        async def caller_of(token: str) -> Principal | None:
            return await self._caller_of(kernel, token)

        api = ApiSocket(self._binding, caller_of, base / "a" / "api.sock")
        lease = KernelLease(kernel, principal, folder, start if folder else None, base, api)
        api.open()
        self._leases[kernel] = lease
        if folder is not None:
            managed = self._places.workspace in folder.parents
            self._placeholders.enter(folder, managed=managed)
        await self._write_token(lease)
        for path in (base / "s", base / "a", base / "a" / "api.sock"):
            give(path)
        lease.renewal = asyncio.create_task(self._renew(lease), name="kernel token")
        return lease

    async def close_kernel(self, kernel: str) -> None:
        """Make a kernel's tokens void and remove what it had; the box has ended before."""
        lease = self._leases.pop(kernel, None)
        if lease is None:
            return
        if lease.folder is not None:
            self._placeholders.leave(lease.folder)
        if lease.renewal is not None:
            lease.renewal.cancel()
        await lease.api.close()
        await self._revoke(lease)
        await asyncio.to_thread(self._folders.remove, lease.base)

    def close_soon(self, kernel: str) -> None:
        """Do what `close_kernel` does, from where nothing can be awaited."""
        if kernel in self._leases:
            self._spawn(self.close_kernel(kernel))

    def end_soon(self, manager: Any, person: PrincipalId) -> None:
        """End every kernel of a person who was removed."""
        for kernel in self.of(person):
            if kernel in manager:
                self._spawn(manager.shutdown_kernel(kernel, now=True))

    def _spawn(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def network(self, lease: KernelLease) -> KernelNetwork | None:
        """Return what a kernel may reach: what of the operator's list its person may, if any."""
        index = self._index
        entries = (*self._listed, *(index.rules if index is not None else ()))
        # A credential may be another node's: tasks have it there, and kernels start without it.
        listed = tuple(dict.fromkeys(rule for rule in entries if self._brokers.serves(rule)))
        rules = allowed_network(policy_in_force(), lease.principal, listed)
        if not rules:
            return None
        server, subject = self._binding.require(), f"kernel/{lease.kernel}"

        async def report(payload: NetworkRequested, verdict: NetworkVerdict) -> None:
            fact = Fact.of(
                payload, at=time.time(), actor=_KERNELS, subject=subject, outcome=verdict
            )
            await server.journal.append([fact])

        url = index.url if index is not None and set(index.rules) <= set(rules) else ""
        return KernelNetwork(rules, lease.person, subject, report, url)

    def lease(self, kernel: str) -> KernelLease:
        """Return what an open kernel has.

        Raises:
            Unavailable: It was not opened, or is closed.
        """
        if kernel not in self._leases:
            raise Unavailable(f"The kernel {kernel} was closed.")
        return self._leases[kernel]

    def start_of(self, path: str) -> Path:
        """Return the folder, on disk, of a file or folder of the Contents API."""
        root = self._places.root
        start = Path(os.path.normpath(root / path.strip("/")))
        while not start.is_dir() and start != root and root in start.parents:
            start = start.parent
        return start

    def owner(self, kernel: str) -> PrincipalId | None:
        """Return whose kernel it is, None if it is nobody's in a box."""
        lease = self._leases.get(kernel)
        return lease.person if lease is not None else None

    def of(self, person: PrincipalId) -> list[str]:
        """Return the kernels of a person."""
        return [kernel for kernel, lease in self._leases.items() if lease.person == person]

    # -- who -----------------------------------------------------------------------------

    def signed_in(self, kernel: str, principal: Principal) -> None:
        """Note that a kernel's person uses it; after they signed in anew it gets a token again."""
        lease = self._leases.get(kernel)
        if lease is None or lease.person != principal.id or principal.session:
            return
        if lease.principal.generation != principal.generation:
            lease.principal = principal
            self._spawn(self._write_token(lease))

    async def _caller_of(self, kernel: str, token: str) -> Principal | None:
        """Return the person that a kernel acts as by a token, None for any but its own."""
        principal = await self._binding.require().people.authenticate(token)
        lease = self._leases.get(kernel)
        if principal is None or lease is None or principal.session not in lease.tokens:
            return None
        return principal

    async def _renew(self, lease: KernelLease) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            await self._write_token(lease)

    async def _write_token(self, lease: KernelLease) -> None:
        """Give a kernel a token for its person; without one it cannot call the API."""
        try:
            view = await self._binding.require().people.tokens.create(
                lease.principal,
                label=f"kernel {lease.kernel}",
                kind=SessionKind.kernel,
                ttl_s=_LIFE_S,
            )
            write(lease.private / "token", view.token.encode())
        except (AngelError, OSError) as error:
            log.warning("Kernel %s has no token for the API: %s", lease.kernel, error)
            return
        now = time.time()
        lease.tokens = {k: end for k, end in lease.tokens.items() if end > now}
        lease.tokens[view.id] = view.expires_at

    async def _revoke(self, lease: KernelLease) -> None:
        for token in lease.tokens:
            try:
                await self._binding.require().people.tokens.revoke(lease.person, token)
            except AngelError as error:  # it expires within the hour, and its socket is closed
                log.info("A token of kernel %s was not revoked: %s", lease.kernel, error)


def write(path: Path, content: bytes) -> None:
    """Write a file that its kernel may read, in one step."""
    draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    give(draft)
    draft.rename(path)


def give(path: Path) -> None:
    """Give a path to the user of the boxes; only root has to."""
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def packages() -> tuple[Path, ...]:
    """Return our own packages and the folders of others outside of the interpreter's prefixes."""
    root = Path(angelos.__file__).resolve().parent.parent
    own = [root / name for name in ("angelos", "jupyter_ext", "llm") if (root / name).is_dir()]
    extra = [
        Path(os.path.realpath(entry))
        for entry in sys.path
        if Path(entry).name in {"site-packages", "dist-packages"} and Path(entry).is_dir()
    ]
    prefixes = [Path(os.path.realpath(prefix)) for prefix in (sys.prefix, sys.base_prefix, "/usr")]
    paths = [*own, *extra]
    return tuple(p for p in paths if not any(p == q or q in p.parents for q in prefixes))
