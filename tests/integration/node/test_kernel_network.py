"""A kernel installs packages for itself and reaches what its person may; without rules, nothing."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from angelos.core.facts import NetworkRequested
from angelos.core.messages import Tier
from angelos.core.network import NetworkVerdict, parse_rules
from angelos.node.broker.service import Brokers
from angelos.node.config import SandboxConfig
from angelos.node.kernels.host import KernelHost
from angelos.node.kernels.models import KernelNetwork, KernelOrder
from angelos.testing import need
from tests.integration.node.test_environments import offer
from tests.integration.node.web import ADA, config_for, web_host

PROGRAM = """
import subprocess, sys, urllib.request
pip = [sys.executable, "-m", "pip", "install", "-q", "greeting"]
done = subprocess.run(pip, capture_output=True, text=True)
try:
    import greeting
    text = greeting.TEXT
except ImportError as error:
    text = f"none: {error} {done.stderr}"
try:
    urllib.request.urlopen("https://index.test/secret", timeout=50)
except OSError as error:
    text += f" {error}"
open("out.txt", "w").write(text)
"""


async def test_a_kernel_has_the_network_of_its_order(tmp_path: Path) -> None:
    facts: list[tuple[NetworkRequested, NetworkVerdict]] = []

    async def report(fact: NetworkRequested, verdict: NetworkVerdict) -> None:
        facts.append((fact, verdict))

    for name in ("folder", "s", "c", "a"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "folder"
    async with web_host() as host:
        offer(host, "greeting", "TEXT = 'hello'\n")
        brokers = Brokers(tmp_path, config_for(tmp_path, host))
        rules = parse_rules(["https://index.test/simple/", "https://index.test/files/"])
        url = "https://index.test/simple/"
        order = KernelOrder(
            argv=(sys.executable, "-c", PROGRAM),
            folder=folder,
            sockets=tmp_path / "s",
            dialed=tmp_path / "c",
            names=(),
            private=tmp_path / "a",
            network=KernelNetwork(rules, ADA, "kernel/1", report, url),
        )
        async with KernelHost(SandboxConfig(ready_boxes=0), brokers) as kernels:
            need(kernels.tier in {Tier.full, Tier.reduced}, f"no boxes here: {kernels.reasons}")
            await (await kernels.start_kernel(order)).wait()
            assert (folder / "out.txt").read_text() == (
                "hello HTTP Error 403: no rule opens GET https://index.test:443/secret"
            )
            assert [verdict.value for _, verdict in facts] == ["allowed", "allowed", "no-rule"]
            assert {fact.by for fact, _ in facts} == {ADA}
            (folder / "out.txt").unlink()
            await (await kernels.start_kernel(replace(order, network=None))).wait()
            assert (folder / "out.txt").read_text().startswith("none: ")
            assert len(facts) == 3
        brokers.close()
    assert not list((tmp_path / "network").iterdir())
