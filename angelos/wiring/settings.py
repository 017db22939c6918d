"""The settings of a system. Only this module and `angelos.client.settings` read the environment.

ANGELOS_POSTGRES_DSN       use this PostgreSQL (>= 15) instead of the embedded one
ANGELOS_VALKEY_URL         use this Valkey or Redis (>= 7, appendonly yes), likewise
ANGELOS_HUB_HOST           address on which the hub listens for nodes and agents [127.0.0.1]
ANGELOS_HUB_PORT           its port, and the next one for enrolment [free ones, kept]
ANGELOS_HUB_NAMES          names and addresses by which other machines reach it, with commas;
                           the first is written into tokens
ANGELOS_HUB_GATEWAY        host:port of the gateway to which tokens send new nodes and agents
ANGELOS_ALLOW_UNSANDBOXED  1: run code without a sandbox where none can be made (a banner says so)
ANGELOS_KERNEL_MEMORY_MB   memory of each of the server's kernels [4096]
ANGELOS_KERNELS_PER_PERSON how many kernels one person may have at once [16]
ANGELOS_KERNEL_IDLE_S      a kernel that nobody looks at ends after being idle for so long [never]
ANGELOS_UNBOXED_KERNELS    names of kernel specs, with commas, that admins may run without a box;
                           python-unboxed is Python
ANGELOS_LOG_FORMAT         text or json: how server and nodes write their logs [text]
OTEL_EXPORTER_OTLP_ENDPOINT
                           send traces to this OpenTelemetry collector (needs angelos[otel])
ANGELOS_NODE_METRICS       HOST:PORT at which `angelos node run` serves its metrics [nowhere]
ANGELOS_NODE_HOSTS         hosts that boxes may reach though their addresses are private, with
                           commas: HOST[:PORT]=ADDRESS[:PORT]
ANGELOS_NODE_AUTHORITIES   a file of certificates that the broker trusts beside the system's
ANGELOS_NODE_INDEX         the index from which environments get packages, as a rule:
                           https://pypi.org/simple/ [none]
ANGELOS_NODE_INDEX_FILES   rules of the hosts that have its files, with commas:
                           https://files.pythonhosted.org/
ANGELOS_NODE_CREDENTIALS   a file (TOML, 0600) of what the broker puts into requests
ANGELOS_RUNTIMES           where `angelos runtime install` puts compilers and interpreters
                           [~/.local/share/angelos/runtimes]
XDG_RUNTIME_DIR            where the sockets of the embedded stores lie, if it is private
NOTIFY_SOCKET              where a node gives signs of life, as systemd's services do
ANGELOS_SUPERVISED         1: set by `angelos up` for its server; it waits for up's stores

The hub's settings may also stand in `angelos.toml` in the data directory (the environment wins),
and those of detection, retention and budgets stand there only:

    [hub]
    host = "0.0.0.0"
    port = 7443
    names = ["angelos.example.org"]

    [hub.limits]               # of each node and agent, in a second
    items = 200000             # facts, messages, settlements, frames
    bytes = 134217728
    cpu = 0.5                  # seconds of the hub for reading what it sends
    requests = 1000            # of the control API

    [network]
    allow = ["https://pypi.org/simple/", "https://files.pythonhosted.org/"]

    [detection]
    certain = "enforce"
    statistical = "observe"

    [retention]                # what grows is kept for so long (decision 52)
    journal_days = 30          # facts in Valkey; what lasts stays in the audit log
    journal_mb = 256
    outputs_days = 90          # of ended tasks that tested no proposal; 0: for ever
    files_days = 7             # of tasks, after their last use

    [budgets.every]
    tasks = 2000

    [budgets.agents.ada]
    cpu_s = 600

>>> load({"ANGELOS_DATA_DIR": "/srv/a"}).data.root
PosixPath('/srv/a')
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from angelos.adapters.host.datadir import DataDir, absolute
from angelos.adapters.host.logs import LogFormat
from angelos.client.settings import find_data_dir
from angelos.control.state.pauses import BudgetConfig
from angelos.core.errors import InvalidInput
from angelos.core.network import NetworkRule, parse_rule
from angelos.core.retention import RetentionConfig
from angelos.governance.detection.models import DetectionConfig
from angelos.hub.fairness import IdentityLimits
from angelos.node.broker.models import Credential, NetworkConfig

CONFIG_FILE = "angelos.toml"
_LAST_PORT = 65_534
_LONGEST_NAME = 253
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
"""RFC 1123, section 2.1."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Servers to use; empty means the embedded one."""

    postgres_dsn: str = ""
    valkey_url: str = ""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The server process."""

    port: int = 0
    """0: any free one."""
    supervised: bool = False
    """Started by `angelos up`, which runs the stores."""


class HubSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the hub listens, and how other machines reach it."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_534)] = 0
    """0: free ones, which are kept from start to start."""
    names: tuple[str, ...] = ()
    """Host names and addresses; they stand in the hub's certificate."""
    gateway: str = ""
    """`host:port` of the gateway that tokens send new nodes and agents to, if not this hub."""
    limits: IdentityLimits = IdentityLimits()
    """What one node or agent may spend in a second; whoever spends more is read from later."""


class AllowedNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tasks may be given of the network, where the policy gives it to them."""

    allow: tuple[str, ...] = ()
    """Rules, as `core.network.parse_rule` reads them."""


class _Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    credential: tuple[Credential, ...] = ()


class _ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: AllowedNetwork = AllowedNetwork()
    hub: HubSettings = HubSettings()
    detection: DetectionConfig = DetectionConfig()
    budgets: BudgetConfig = BudgetConfig()
    retention: RetentionConfig = RetentionConfig()


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Execution nodes."""

    allow_unsandboxed: bool = False
    unboxed_kernels: tuple[str, ...] = ()
    """Kernel specs that admins may run without a box."""
    kernel_memory_mb: int = 4096
    """Memory of each of the server's kernels."""
    kernels_per_person: int = 16
    """How many kernels one person may have at once."""
    kernel_idle_s: int = 0
    """After how long an idle kernel ends that no page is connected to; 0: never."""
    metrics: str = ""
    """Where a node that runs on its own serves its metrics."""
    runtimes: Path = Path("runtimes")
    """Where `angelos runtime install` puts compilers and interpreters."""
    network: NetworkConfig = NetworkConfig()
    """What boxes reach by the broker, where their grants open something."""
    local: int = 1
    """How many execution nodes `angelos up` runs, and a labs node with them; 0: none at all."""


class LogSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What processes say of their work."""

    format: LogFormat = "text"
    traces: bool = False
    """Whether spans go to an OpenTelemetry collector."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a system."""

    data_dir: Path
    runtime_base: str = ""
    """The user's directory for sockets; the embedded stores have theirs below it."""
    stores: StoreSettings = StoreSettings()
    server: ServerSettings = ServerSettings()
    nodes: NodeSettings = NodeSettings()
    hub: HubSettings = HubSettings()
    log: LogSettings = LogSettings()
    network: tuple[NetworkRule, ...] = ()
    """What tasks may be given of the network."""
    detection: DetectionConfig = DetectionConfig()
    """When agents are suspected, and what follows."""
    budgets: BudgetConfig = BudgetConfig()
    """What agents may use within an hour."""
    retention: RetentionConfig = RetentionConfig()
    """How long what grows is kept."""

    @property
    def data(self) -> DataDir:
        """The data directory's layout."""
        return DataDir(self.data_dir, self.runtime_base)


def load(
    environ: Mapping[str, str] | None = None,
    *,
    data_dir: Path | str | None = None,
    port: int = 0,
    local_nodes: int = 1,
    hub: Mapping[str, Any] | None = None,
    log_format: str = "",
) -> Settings:
    """Return the settings of the environment.

    Args:
        environ: Read instead of `os.environ`.
        data_dir: Used instead of that of the environment.
        port: The server's port; 0 for any free one.
        local_nodes: How many execution nodes `angelos up` runs.
        hub: Settings of the hub that go before all others; empty ones do not.
        log_format: Used instead of that of the environment.

    Raises:
        InvalidInput: A variable or the configuration file has an invalid value.
    """
    env = os.environ if environ is None else environ
    root = absolute(data_dir) if data_dir else find_data_dir(env)
    file = _read_file(root)
    return Settings(
        data_dir=root,
        runtime_base=env.get("XDG_RUNTIME_DIR", ""),
        stores=StoreSettings(
            postgres_dsn=env.get("ANGELOS_POSTGRES_DSN", ""),
            valkey_url=env.get("ANGELOS_VALKEY_URL", ""),
        ),
        server=ServerSettings(port=port, supervised=_flag(env, "ANGELOS_SUPERVISED")),
        nodes=msgspec.structs.replace(load_nodes(env), local=local_nodes),
        hub=_load_hub(env, file.hub, {key: value for key, value in (hub or {}).items() if value}),
        network=_allowed(root, file.network),
        detection=file.detection,
        budgets=file.budgets,
        retention=file.retention,
        log=load_log(env, log_format),
    )


def load_log(environ: Mapping[str, str] | None = None, log_format: str = "") -> LogSettings:
    """Return how a process logs, and whether it sends traces.

    Args:
        environ: Read instead of `os.environ`.
        log_format: Used instead of that of the environment.

    Raises:
        InvalidInput: The format is neither `text` nor `json`.
    """
    env = os.environ if environ is None else environ
    form = (log_format or env.get("ANGELOS_LOG_FORMAT", "")).strip().lower() or "text"
    if form not in ("text", "json"):
        raise InvalidInput(f"ANGELOS_LOG_FORMAT must be text or json, not {form[:80]!r}.")
    endpoint = env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "") or env.get(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""
    )
    disabled = env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return LogSettings(format=form, traces=bool(endpoint) and not disabled)


def _read_file(root: Path) -> _ConfigFile:
    path = root / CONFIG_FILE
    try:
        return msgspec.toml.decode(path.read_bytes(), type=_ConfigFile)
    except (FileNotFoundError, NotADirectoryError):
        return _ConfigFile()
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def _load_hub(env: Mapping[str, str], hub: HubSettings, options: dict[str, Any]) -> HubSettings:
    """Return the hub's settings: options before the environment before the file."""
    changes: dict[str, Any] = {}
    if host := env.get("ANGELOS_HUB_HOST", "").strip():
        changes["host"] = host
    if port := env.get("ANGELOS_HUB_PORT", "").strip():
        changes["port"] = int(port) if port.isascii() and port.isdecimal() else -1
    if gateway := env.get("ANGELOS_HUB_GATEWAY", "").strip():
        changes["gateway"] = gateway
    if names := env.get("ANGELOS_HUB_NAMES", ""):
        changes["names"] = tuple(name.strip() for name in names.split(",") if name.strip())
    return check_hub(msgspec.structs.replace(hub, **(changes | options)))


def check_hub(hub: HubSettings) -> HubSettings:
    """Return the hub's settings if they are possible; raise `InvalidInput`."""
    if not 0 <= hub.port <= _LAST_PORT:
        raise InvalidInput(
            f"The hub's port must be a number from 1 to {_LAST_PORT}.",
            hint="Set ANGELOS_HUB_PORT; the next port is for enrolment.",
        )
    for name in (hub.host, *hub.names):
        if not _is_host(name):
            raise InvalidInput(
                f"{name!r} is neither a host name nor an address.",
                hint="See ANGELOS_HUB_HOST and ANGELOS_HUB_NAMES.",
            )
    if hub.gateway:
        enrol_address(hub.gateway)
    if is_wildcard(hub.host) and not hub.names:
        raise InvalidInput(
            f"The hub listens on {hub.host}, but no name is set by which others reach it.",
            hint="Set ANGELOS_HUB_NAMES to this machine's name or address.",
        )
    return hub


def enrol_address(gateway: str) -> str:
    """Return where a gateway enrols: on the port after its own; raise `InvalidInput`.

    >>> enrol_address("gw.example.org:7443")
    'https://gw.example.org:7444'
    """
    host, _, port = gateway.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not _is_host(bare) or not port.isascii() or not port.isdecimal():
        port = ""
    if not port or not 1 <= int(port[:6]) <= _LAST_PORT:
        raise InvalidInput(
            f"{gateway[:100]!r} is not host:port of a gateway.", hint="See ANGELOS_HUB_GATEWAY."
        )
    return f"https://{host}:{int(port) + 1}"


def is_wildcard(host: str) -> bool:
    """Return whether a host means every address of the machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _is_host(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return len(name) <= _LONGEST_NAME and _HOST.fullmatch(name) is not None
    return True


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
        kernel_memory_mb=_number(env, "ANGELOS_KERNEL_MEMORY_MB", 4096, least=64),
        kernels_per_person=_number(env, "ANGELOS_KERNELS_PER_PERSON", 16, least=1),
        kernel_idle_s=_number(env, "ANGELOS_KERNEL_IDLE_S", 0, least=60),
        metrics=env.get("ANGELOS_NODE_METRICS", "").strip(),
        runtimes=runtimes_folder(env),
        network=_load_network(env),
    )


def _allowed(root: Path, network: AllowedNetwork) -> tuple[NetworkRule, ...]:
    """Return what the operator lists of the network; hosts may stand there in both ways."""
    try:
        return tuple(parse_rule(text) for text in network.allow)
    except InvalidInput as error:
        raise InvalidInput(f"{root / CONFIG_FILE}: {error.detail}", hint=error.hint) from error


def _load_network(env: Mapping[str, str]) -> NetworkConfig:
    entries = [entry.strip() for entry in env.get("ANGELOS_NODE_HOSTS", "").split(",")]
    authorities = env.get("ANGELOS_NODE_AUTHORITIES", "").strip()
    credentials = env.get("ANGELOS_NODE_CREDENTIALS", "").strip()
    return NetworkConfig(
        hosts={
            name.strip(): place.strip()
            for name, _, place in (entry.partition("=") for entry in entries if entry)
        },
        index=env.get("ANGELOS_NODE_INDEX", "").strip(),
        index_files=tuple(
            rule.strip() for rule in env.get("ANGELOS_NODE_INDEX_FILES", "").split(",") if rule
        ),
        authorities=Path(authorities) if authorities else None,
        credentials=_read_credentials(Path(credentials)) if credentials else (),
    )


def _read_credentials(path: Path) -> tuple[Credential, ...]:
    try:
        if path.stat().st_mode & 0o077:
            raise InvalidInput(f"Other users may read {path}.", hint=f"chmod 600 {path}")
        return msgspec.toml.decode(path.read_bytes(), type=_Credentials).credential
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}") from error


def runtimes_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder of what `angelos runtime install` brings: one for all nodes of a user."""
    env = os.environ if environ is None else environ
    if folder := env.get("ANGELOS_RUNTIMES", "").strip():
        return Path(folder).absolute()
    base = env.get("XDG_DATA_HOME", "").strip() or f"{Path.home()}/.local/share"
    return Path(base) / "angelos" / "runtimes"


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


def _number(env: Mapping[str, str], name: str, default: int, *, least: int) -> int:
    text = env.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not least <= int(text[:9]) <= 10**6:
        raise InvalidInput(f"{name} must be a number from {least} to 1000000, not {text[:80]!r}.")
    return int(text[:9])


def _flag(env: Mapping[str, str], name: str) -> bool:
    value = env.get(name, "").strip().lower()
    if value in {"", "0", "false", "no"}:
        return False
    if value in {"1", "true", "yes"}:
        return True
    raise InvalidInput(f"{name} must be 0 or 1, not {value!r}.")
