"""Opens brokers for the boxes of a node: rules, an authority of the box's own, its environment.

async with brokers.opened(rules, by, "task-1", report) as order:
order.read_only, order.env         # what the box needs
...                                # session.listener() -> order.broker.serving(...)
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from angelos.adapters.host.trees import remove_tree
from angelos.core.errors import InvalidInput
from angelos.core.ids import PrincipalId
from angelos.core.network import NetworkRule
from angelos.node.broker.authority import BoxAuthority
from angelos.node.broker.models import NetworkConfig
from angelos.node.broker.proxy import BoxBroker, Outside, Report
from angelos.node.broker.resolver import HostResolver
from angelos.node.broker.upstream import client_context
from angelos.node.sandbox.layout import RUN
from angelos.node.sandbox.shim import PROXY_PORT

INSIDE = f"{RUN}/network"
_BUNDLE = f"{INSIDE}/ca.pem"
_PROXY = f"http://127.0.0.1:{PROXY_PORT}"
_LOCAL = "localhost,127.0.0.1,::1"
_READS_BUNDLE = (
    "PIP_CERT",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "GIT_SSL_CAINFO",
    "DENO_CERT",
    "npm_config_cafile",
)
ENVIRONMENT = {
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _PROXY),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), _LOCAL),
    **dict.fromkeys(_READS_BUNDLE, _BUNDLE),
    "NODE_USE_ENV_PROXY": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
"""By which pip, npm, cargo, git, curl and most libraries find the broker and trust it."""


@dataclass(frozen=True, slots=True)
class OpenBroker:
    """A broker that is ready for its box, and what the box needs."""

    broker: BoxBroker
    read_only: dict[str, str]
    """Path inside -> path here."""
    env: dict[str, str]


class Brokers:
    """Makes the brokers of a node; `sweep` before the first, `close` after the last."""

    def __init__(self, directory: Path, config: NetworkConfig) -> None:
        """Keep what boxes read in `directory`.

        Raises:
            InvalidInput: The configuration cannot be used.
        """
        self._root = directory / "network"
        self._outside = Outside(
            resolver=HostResolver(config.hosts),
            context=client_context(config.authorities),
            credentials={credential.name: credential for credential in config.credentials},
            limits=config.limits,
        )

    def sweep(self) -> None:
        """Remove what a killed node has left."""
        if self._root.is_dir():
            remove_tree(self._root)

    def close(self) -> None:
        """Look up no name any more."""
        self._outside.resolver.close()

    @contextlib.asynccontextmanager
    async def opened(
        self, rules: Sequence[NetworkRule], by: PrincipalId, name: str, report: Report
    ) -> AsyncIterator[OpenBroker]:
        """Make the broker of a box.

        Args:
            rules: What it opens.
            by: For whom the box runs.
            name: What the authority of the box is called.
            report: Takes each request.

        Raises:
            InvalidInput: A rule names a credential that is not there, or is another host's.
        """
        for rule in rules:
            self._check(rule)
        authority = BoxAuthority(name)
        bundle = authority.pem
        if any(rule.scheme == "tls" for rule in rules):
            bundle += await asyncio.to_thread(_of_system)
        folder = await asyncio.to_thread(self._write, bundle)
        try:
            broker = BoxBroker(rules, by, authority, self._outside, report)
            yield OpenBroker(broker, {INSIDE: str(folder)}, dict(ENVIRONMENT))
        finally:
            await asyncio.to_thread(remove_tree, folder)

    def serves(self, rule: NetworkRule) -> bool:
        """Return whether the credential of a rule is here, if it names one."""
        if not rule.credential:
            return True
        credential = self._outside.credentials.get(rule.credential)
        return credential is not None and (credential.host, credential.port) == (
            rule.host,
            rule.port,
        )

    def _check(self, rule: NetworkRule) -> None:
        if not self.serves(rule):
            raise InvalidInput(
                f"This node has no credential {rule.credential!r} for {rule.host}:{rule.port}.",
                hint="Its operator names credentials in ANGELOS_NODE_CREDENTIALS.",
            )

    def _write(self, bundle: bytes) -> Path:
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=self._root))
        folder.chmod(0o755)
        (folder / "ca.pem").write_bytes(bundle)
        (folder / "ca.pem").chmod(0o644)
        return folder


def _of_system() -> bytes:
    """Return the certificates that the system trusts."""
    paths = ssl.get_default_verify_paths()
    with contextlib.suppress(OSError):
        return b"\n" + Path(paths.cafile or paths.openssl_cafile).read_bytes()
    return b""
