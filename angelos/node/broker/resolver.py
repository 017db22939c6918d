"""Finds the address of a host, and refuses what no box may reach.

    resolver = HostResolver({"index.test:443": "127.0.0.1:8443"})
    await resolver.places("index.test", 443)        # (Place("127.0.0.1", 8443),)

Whoever connects does so to a place that was returned, and never looks the name up again: what a
name server answers later changes nothing. A name that leads to one address of the public internet
and to another that is not is refused as a whole.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from angelos.core.errors import InvalidInput
from angelos.core.network import NetworkVerdict, normal_host
from angelos.node.broker.addresses import public
from angelos.node.broker.models import RequestRefused

_THREADS = 4
_MAX_PLACES = 4
Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""Returns the addresses of a name; raises `OSError` if it has none."""


class Place(NamedTuple):
    """Where to connect."""

    address: str
    port: int


class HostResolver:
    """Looks names up: those that the operator lists first, then by the system's resolver."""

    def __init__(self, hosts: Mapping[str, str], lookup: Lookup | None = None) -> None:
        """Take the operator's list, `host[:port]` -> `address[:port]`.

        Raises:
            InvalidInput: An entry is not of this form.
        """
        self._listed = dict(_entry(name, place) for name, place in hosts.items())
        self._lookup = lookup or self._ask_system
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="names")

    def close(self) -> None:
        """Look up nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def places(self, host: str, port: int) -> tuple[Place, ...]:
        """Return where a host is, one place at least.

        Raises:
            RequestRefused: It is nowhere, or where no box may go.
        """
        listed = self._listed.get((host, port)) or self._listed.get((host, 0))
        if listed is not None:
            return (Place(listed.address, listed.port or port),)
        try:
            addresses = await self._lookup(host)
        except OSError as error:
            reason = error.strerror or "no answer"
            raise RequestRefused(
                NetworkVerdict.unresolved, f"{host} cannot be found: {reason}"
            ) from error
        if not addresses:
            raise RequestRefused(NetworkVerdict.unresolved, f"{host} has no address")
        for address in addresses:
            if not public(address) or _own(address):
                raise RequestRefused(
                    NetworkVerdict.address,
                    f"{host} leads to {address}, which is not on the public internet;"
                    " the operator of the node can list it",
                )
        return tuple(Place(address, port) for address in addresses[:_MAX_PLACES])

    async def _ask_system(self, host: str) -> Sequence[str]:
        loop = asyncio.get_running_loop()
        rows = await loop.run_in_executor(self._threads, _addresses, host)
        return list(dict.fromkeys(rows))


def _addresses(host: str) -> list[str]:
    rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(row[4][0]) for row in rows]


def _own(address: str) -> bool:
    """Return whether an address is one of this machine: then it is where packets to it start."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing
            return probe.getsockname()[0] == address
        except OSError:
            return False  # there is no way to it


def _entry(name: str, place: str) -> tuple[tuple[str, int], Place]:
    host, _, port = name.partition(":")
    address, colon, to = place.rpartition(":") if _has_port(place) else (place, "", "")
    try:
        literal = str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))
        ports = [int(port or 0), int(to or 0)]
    except ValueError as error:
        raise InvalidInput(
            f"{name[:100]}={place[:100]} lists no host: write HOST[:PORT]=ADDRESS[:PORT]."
        ) from error
    if not all(0 <= number <= 65_535 for number in ports) or (colon and not to):  # noqa: PLR2004
        raise InvalidInput(f"{name[:100]}={place[:100]} has no port that there is.")
    return (normal_host(host, unicode=True), ports[0]), Place(literal, ports[1])


def _has_port(place: str) -> bool:
    return "]:" in place or place.count(":") == 1
