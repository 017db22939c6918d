"""The systemd units: valid, hardened, and with what their programs need."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from angelos.testing import need

UNITS = sorted((Path(__file__).parents[3] / "deploy" / "systemd").glob("*.service"))
MOST_EXPOSED = 3.0


def systemd_analyze(*args: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze, which needs no running systemd."""
    need(shutil.which("systemd-analyze"), "systemd-analyze (Debian's package systemd)")
    return subprocess.run(
        ["systemd-analyze", *args], capture_output=True, text=True, timeout=60, check=False
    )


def test_there_is_one_for_each_role():
    names = {unit.name.removesuffix(".service") for unit in UNITS}
    roles = {"postgres", "redis", "control", "gateway", "node@"}
    assert names == {f"angelos-{role}" for role in roles}


def test_each_is_valid(tmp_path):
    # Programs that are not installed here are no fault of the unit's.
    program = re.compile(r"^ExecStart=\S+", re.MULTILINE)
    for unit in UNITS:
        text = program.sub("ExecStart=/bin/true", unit.read_text())
        (tmp_path / unit.name.replace("@", "@one")).write_text(text)
    done = systemd_analyze("verify", "--man=no", *map(str, tmp_path.iterdir()))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_its_exposure_is_small(unit):
    done = systemd_analyze("security", "--offline=true", str(unit))
    level = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert float(level[1]) <= MOST_EXPOSED, done.stdout


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_those_with_boxes_leave_bubblewrap_what_it_needs(unit):
    text = unit.read_text()
    settings = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    boxes = unit.stem in {"angelos-node@", "angelos-control"}
    forbidding = {
        "RestrictNamespaces", "PrivateUsers", "ProtectKernelTunables", "ProtectKernelLogs",
        "ProtectProc", "ProtectHostname",
    }  # fmt: skip
    assert (not forbidding & settings.keys()) == boxes
    if boxes:
        assert "@mount" in text
        assert "AF_NETLINK" in settings["RestrictAddressFamilies"]
        assert "ProtectControlGroups" not in settings
        assert "Delegate" in settings
