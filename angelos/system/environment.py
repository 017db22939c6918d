"""The environments of the child processes of `angelos up`.

A child inherits this process's environment, without what would lead it to another system or give
it a right that it does not need.

    env = server_environment(data, token, config)
    child = Child("server", jupyter.argv(port), env, data.logs / "server.log")
"""

from __future__ import annotations

from pathlib import Path

from angelos.adapters.host.children import IDENTITY
from angelos.adapters.host.datadir import DataDir
from angelos.wiring.settings import HubSettings, inherited

_SERVER_WITHOUT = ("JPY_", "JUPYTER", "IPYTHON", "ANGELOS_TOKEN", "ANGELOS_URL")
"""The user's own Jupyter, and the system and person that their own client is set to."""
_NODE_WITHOUT = (
    "ANGELOS_NODE_METRICS",
    "ANGELOS_POSTGRES_DSN",
    "ANGELOS_VALKEY_URL",
    "ANGELOS_TOKEN",
    "ANGELOS_URL",
    "JUPYTER_TOKEN",
    "PYTHONPATH",
)
"""Addresses of stores and tokens of people: a node has its certificate and nothing else.

Nor a port for metrics, which is one node's: the server shows those of the nodes of `angelos up`.
"""


def server_environment(
    data: DataDir,
    token: str,
    config: Path,
    identity: str = "",
    hub: HubSettings | None = None,
    log_format: str = "text",
) -> dict[str, str]:
    """Return the server's whole environment; its kernels inherit it (less the token).

    Args:
        data: the data directory.
        token: the owner's.
        config: the folder of Jupyter's configuration.
        identity: the id of the data directory.
        hub: where the hub listens.
        log_format: how it logs.
    """
    hub = hub or HubSettings()
    return _without(_SERVER_WITHOUT) | {
        IDENTITY: identity,
        "ANGELOS_DATA_DIR": str(data.root),
        "ANGELOS_HUB_HOST": hub.host,
        "ANGELOS_HUB_GATEWAY": hub.gateway,
        "ANGELOS_HUB_NAMES": ",".join(hub.names),
        "ANGELOS_HUB_PORT": str(hub.port),
        "ANGELOS_LOG_FORMAT": log_format,
        "ANGELOS_SUPERVISED": "1",
        "IPYTHONDIR": str(data.jupyter / "ipython"),
        "JUPYTER_CONFIG_DIR": str(config),
        "JUPYTER_DATA_DIR": str(data.jupyter / "data"),
        "JUPYTER_RUNTIME_DIR": str(data.jupyter / "runtime"),
        "JUPYTER_TOKEN": token,
        "PYTHONUNBUFFERED": "1",
    }


def node_environment(
    identity: str = "", notify: str = "", log_format: str = "text"
) -> dict[str, str]:
    """Return the whole environment of a node on this machine.

    Args:
        identity: the id of the data directory.
        notify: where it gives its signs of life.
        log_format: how it logs.
    """
    return _without(_NODE_WITHOUT) | {
        IDENTITY: identity,
        "ANGELOS_LOG_FORMAT": log_format,
        "NOTIFY_SOCKET": notify,
    }


def _without(prefixes: tuple[str, ...]) -> dict[str, str]:
    return {key: value for key, value in inherited().items() if not key.startswith(prefixes)}
