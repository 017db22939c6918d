"""The settings of a system. Only this module and `angelos.client.settings` read the environment.

ANGELOS_POSTGRES_DSN       use this PostgreSQL (>= 15) instead of the embedded one
ANGELOS_VALKEY_URL         use this Valkey or Redis (>= 7, appendonly yes), likewise
ANGELOS_ALLOW_UNSANDBOXED  1: run code without a sandbox where none can be made (a banner says so)
ANGELOS_KERNEL_MEMORY_MB   memory of each of the server's kernels [4096]
ANGELOS_UNBOXED_KERNELS    names of kernel specs, with commas, that admins may run without a box;
                           python-unboxed is Python
XDG_RUNTIME_DIR            where the sockets of the embedded stores lie, if it is private
NOTIFY_SOCKET              where a node gives signs of life, as systemd's services do
ANGELOS_SUPERVISED         1: set by `angelos up` for its server; it waits for up's stores

>>> load({"ANGELOS_DATA_DIR": "/srv/a"}).data.root
PosixPath('/srv/a')
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from angelos.adapters.host.datadir import DataDir, absolute
from angelos.client.settings import find_data_dir
from angelos.core.errors import InvalidInput


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Servers to use; empty means the embedded one."""

    postgres_dsn: str = ""
    valkey_url: str = ""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The server process."""

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    supervised: bool = False
    """Started by `angelos up`, which runs the stores."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Execution nodes."""

    allow_unsandboxed: bool = False
    unboxed_kernels: tuple[str, ...] = ()
    """Kernel specs that admins may run without a box."""
    kernel_memory_mb: int = 4096
    """Memory of each of the server's kernels."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a system."""

    data_dir: Path
    runtime_base: str = ""
    """The user's directory for sockets; the embedded stores have theirs below it."""
    stores: StoreSettings = StoreSettings()
    server: ServerSettings = ServerSettings()
    nodes: NodeSettings = NodeSettings()

    @property
    def data(self) -> DataDir:
        """The data directory's layout."""
        return DataDir(self.data_dir, self.runtime_base)


def load(
    environ: Mapping[str, str] | None = None,
    *,
    data_dir: Path | str | None = None,
    port: int = 0,
) -> Settings:
    """Return the settings of the environment.

    Args:
        environ: Read instead of `os.environ`.
        data_dir: Used instead of that of the environment.
        port: The server's port; 0 for any free one.

    Raises:
        InvalidInput: A variable has an invalid value.
    """
    env = os.environ if environ is None else environ
    root = absolute(data_dir) if data_dir else find_data_dir(env)
    return Settings(
        data_dir=root,
        runtime_base=env.get("XDG_RUNTIME_DIR", ""),
        stores=StoreSettings(
            postgres_dsn=env.get("ANGELOS_POSTGRES_DSN", ""),
            valkey_url=env.get("ANGELOS_VALKEY_URL", ""),
        ),
        server=ServerSettings(port=port, supervised=_flag(env, "ANGELOS_SUPERVISED")),
        nodes=load_nodes(env),
    )


def load_nodes(environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Return the settings of a node that runs on its own.

    Args:
        environ: Read instead of `os.environ`.
    """
    env = os.environ if environ is None else environ
    names = env.get("ANGELOS_UNBOXED_KERNELS", "").split(",")
    return NodeSettings(
        allow_unsandboxed=_flag(env, "ANGELOS_ALLOW_UNSANDBOXED"),
        unboxed_kernels=tuple(name.strip() for name in names if name.strip()),
        kernel_memory_mb=_number(env, "ANGELOS_KERNEL_MEMORY_MB", 4096),
    )


def take_jupyter_token() -> str:
    """Return the token of this process's Jupyter server, and take it out of the environment."""
    return os.environ.pop("JUPYTER_TOKEN", "")


def notify_socket(environ: Mapping[str, str] | None = None) -> str:
    """Return where this process gives signs of life (`sd_notify(3)`); empty if nowhere."""
    env = os.environ if environ is None else environ
    return env.get("NOTIFY_SOCKET", "")


def inherited() -> dict[str, str]:
    """Return the environment of this process, to be passed on to a child process."""
    return dict(os.environ)


def _number(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not 64 <= int(text[:9]) <= 10**6:  # noqa: PLR2004
        raise InvalidInput(f"{name} must be a number from 64 to 1000000, not {text[:80]!r}.")
    return int(text[:9])


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in {"", "0", "false", "no"}:
        return False
    if value in {"1", "true", "yes"}:
        return True
    raise InvalidInput(f"{name} must be 0 or 1, not {value!r}.")
