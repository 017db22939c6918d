"""The nodes that `angelos up` runs on its own machine: one executes, one tests changes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

from angelos.core.errors import AngelError
from angelos.system.child import Child
from angelos.system.environment import node_environment

if TYPE_CHECKING:
    from angelos.adapters.host.datadir import ServerFile
    from angelos.client import Angelos
    from angelos.wiring.settings import Settings

_MARGIN_S = 300
_TOKEN_S = 120


class Local(NamedTuple):
    """A node's name and role."""

    name: str
    role: Literal["execution", "labs"]


def local_nodes(count: int) -> tuple[Local, ...]:
    """Return `count` nodes that execute and, unless that is 0, one that tests changes.

    >>> [node.name for node in local_nodes(2)], local_nodes(0)
    (['exec1', 'exec2', 'labs1'], ())
    """
    names = [Local(f"exec{number}", "execution") for number in range(1, count + 1)]
    return (*names, Local("labs1", "labs")) if names else ()


class LocalNode:
    """One of these nodes: its directory, its certificate and its process."""

    def __init__(self, local: Local, settings: Settings) -> None:
        self.local = local
        self.settings = settings
        self.folder = settings.data.node(local.name)

    def enrolled(self, hub_url: str) -> bool:
        """Return whether it has a certificate of this hub that stays valid for some minutes."""
        from angelos.adapters.identity.enrolment import Identity

        try:
            identity = Identity.load(self.folder)
        except AngelError:
            return False
        ours = (self.settings.data.keys / "ca.pem").read_text()
        return (
            identity.hub_url == hub_url
            and identity.enrolled.ca.strip() in ours
            and identity.not_after > time.time() + _MARGIN_S
        )

    async def enrol(self, angelos: Angelos, hub: ServerFile) -> None:
        """Enrol it with a single-use token, unless it has a valid certificate.

        The token stays in this process: on a command line every user of the machine could read
        it, and use it first.
        """
        from angelos.adapters.identity.enrolment import enrol

        if not self.enrolled(hub.hub_url):
            name, role = self.local
            view = await angelos.nodes.add(name, role, ttl_s=_TOKEN_S)
            await enrol(view.token, self.folder, enrol_url=hub.enrol_url, hub_url=hub.hub_url)

    def child(self, identity: str, notify: str) -> Child:
        """Return its process, which gives its signs of life to `notify`."""
        name, role = self.local
        argv = [
            sys.executable,
            "-m",
            "angelos.wiring.node",
            *("--name", name),
            *("--role", role),
            *("--dir", str(self.folder)),
        ]
        env = node_environment(identity, notify, self.settings.log.format)
        return Child(name, argv, env, self.settings.data.logs / f"{name}.log")
