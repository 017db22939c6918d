"""Which rules the broker of a node can serve."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from angelos.core.ids import PrincipalId
from angelos.core.network import parse_rule
from angelos.core.permissions import Principal, Role
from angelos.node.broker.models import Credential, NetworkConfig
from angelos.node.broker.service import Brokers
from jupyter_ext.kernels import service as kernels

KEY = Credential(name="key", host="a.test", value="Bearer 01234567")


def test_a_rule_is_served_where_its_credential_is(tmp_path: Path) -> None:
    brokers = Brokers(tmp_path, NetworkConfig(credentials=(KEY,)))
    rules = ["https://a.test/", "https://a.test/ as key", "https://a.test/ as other"]
    rules += ["https://b.test/ as key", "https://a.test:8443/ as key"]
    assert [brokers.serves(parse_rule(rule)) for rule in rules] == [True, True, False, False, False]
    brokers.close()


async def test_a_kernel_starts_without_the_credential_of_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers = Brokers(tmp_path, NetworkConfig())
    ada = PrincipalId("person/ada")
    listed = tuple(map(parse_rule, ("https://a.test/ as key", "https://b.test/")))
    policy = SimpleNamespace(ask=lambda _: SimpleNamespace(allowed=True))
    monkeypatch.setattr(kernels, "policy_in_force", lambda: policy)
    binding = SimpleNamespace(require=lambda: None)
    parts = {"_index": None, "_listed": listed, "_brokers": brokers, "_binding": binding}
    lease = SimpleNamespace(
        principal=Principal(id=ada, role=Role.researcher), kernel="1", person=ada
    )
    service = cast("Any", SimpleNamespace(**parts))
    network = kernels.KernelService.network(service, cast("Any", lease))
    assert network is not None
    assert network.rules == listed[1:]
    async with brokers.opened(network.rules, ada, "kernel/1", network.report):
        pass
    brokers.close()
