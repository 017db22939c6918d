"""Which parts of AngelOS are installed.

Plain `angelos` is the client and the command line. `angelos[node]` adds what a node runs,
`angelos[server]` that and the rest. A command that needs an extra asks for it first, so that its
user reads what to install and not where an import failed:

    require("server")
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import Literal

from angelos.core.errors import Unavailable

Extra = Literal["node", "server"]
EXTRAS: tuple[Extra, ...] = ("node", "server")


def require(extra: Extra) -> None:
    """Check that an extra is installed.

    Raises:
        Unavailable: One of its distributions is missing; the hint says what to install.
    """
    absent = missing(extra)
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise Unavailable(
            f"This needs angelos[{extra}]; not installed: {absent[0]}{more}.", hint=hint(extra)
        )


def missing(extra: Extra) -> list[str]:
    """Return the distributions of an extra that are not installed."""
    return sorted(name for name in distributions(extra) if not _installed(name))


def hint(extra: Extra) -> str:
    """Return how to install an extra."""
    return f"Run: pip install 'angelos[{extra}]'"


def distributions(extra: Extra) -> Iterator[str]:
    """Yield the names of the distributions that an extra adds, as our metadata lists them."""
    try:
        lines = requires("angelos") or []
    except PackageNotFoundError:  # run from a folder of sources: nothing is known, nothing refused
        return
    for line in lines:
        requirement, _, marker = line.partition(";")
        if re.search(rf"extra == ['\"]{extra}['\"]", marker):
            yield re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
