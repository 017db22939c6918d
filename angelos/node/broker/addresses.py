"""Which addresses a box may be led to: those of the public internet. Pure.

    >>> public("93.184.216.34"), public("127.0.0.1"), public("::ffff:10.0.0.1")
    (True, False, False)

The list is our own, since what `ipaddress` calls global changes with the version of Python. An
address of version 6 that carries one of version 4 is refused whatever it carries, as translators
and tunnels are none of the public internet's servers.
"""

from __future__ import annotations

import ipaddress

_NOT_PUBLIC_4 = tuple(
    map(
        ipaddress.IPv4Network,
        (
            "0.0.0.0/8",  # this network
            "10.0.0.0/8",
            "100.64.0.0/10",  # shared by a provider's customers; metadata of Alibaba
            "127.0.0.0/8",
            "168.63.129.16/32",  # Azure's host
            "169.254.0.0/16",  # link-local; metadata of AWS, Azure, Google
            "172.16.0.0/12",
            "192.0.0.0/24",  # protocols; metadata of Oracle
            "192.0.2.0/24",
            "192.88.99.0/24",  # 6to4 relays
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",  # multicast, reserved, broadcast
        ),
    )
)
_PUBLIC_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        ipaddress.IPv6Network,
        (
            "2001::/23",  # protocols, Teredo
            "2001:db8::/32",
            "2002::/16",  # 6to4
            "3fff::/20",
        ),
    )
)


def public(address: str) -> bool:
    """Return whether an address, as the resolver writes it, is one of the public internet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _NOT_PUBLIC_4)
    zoned = parsed.scope_id is not None
    return not zoned and parsed in _PUBLIC_6 and not any(parsed in n for n in _NOT_PUBLIC_6)
