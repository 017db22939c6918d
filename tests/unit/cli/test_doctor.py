"""The doctor is a verdict: each check runs, and refused code is a failure."""

from __future__ import annotations

import json
from collections import namedtuple

import pytest
from click.testing import CliRunner

from angelos.adapters.host import aof
from angelos.cli import extras
from angelos.cli.commands import doctor
from angelos.cli.commands.doctor import Diagnosis
from angelos.core.messages import Tier

ALL = {"python", "packages", "isolation", "plain code", "data directory", "stores", "system"}


@pytest.fixture
def checks(monkeypatch):
    """Let every check of the machine pass without doing it."""

    async def fine(*_):
        return Diagnosis("a check", "ok", "")

    for name in ("_plain_code", "_stores", "_system"):
        monkeypatch.setattr(doctor, name, fine)
    return monkeypatch


def _run(*args):
    result = CliRunner().invoke(doctor.doctor, ["--json", *args])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("error", [OSError("read-only"), RuntimeError("odd"), KeyError("x")])
def test_a_check_that_raises_is_a_failure_and_the_others_run(monkeypatch, error, tmp_path):
    async def broken(*_):
        raise error

    def broken_at_once(*_):
        raise error

    monkeypatch.setattr("angelos.node.sandbox.probe.probe", broken)
    for name in ("_plain_code", "_stores", "_system"):
        monkeypatch.setattr(doctor, name, broken)
    for name in ("_python", "_packages", "_data_dir"):
        monkeypatch.setattr(doctor, name, broken_at_once)
    code, report = _run("--data-dir", str(tmp_path))
    assert code == 1
    assert not report["ok"]
    assert report["tier"] == "none"
    failed = {check["name"] for check in report["checks"] if check["state"] == "FAIL"}
    assert failed == ALL


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("unsandboxed", [False, True])
@pytest.mark.parametrize("server", [False, True])
def test_the_policy_is_asked_whether_plain_code_may_run(monkeypatch, tier, unsandboxed, server):
    if not server:
        monkeypatch.setattr(extras, "missing", lambda _: ["jupyterlab"])
    refused = doctor._refusal(tier, unsandboxed=unsandboxed)
    assert bool(refused) == (tier is Tier.none and not unsandboxed)


def test_a_data_directory_of_somebody_else_or_on_a_full_disk_is_named(checks, tmp_path):
    status = namedtuple("status", "st_uid")  # noqa: PYI024
    out = doctor.Out(str(tmp_path), as_json=True)
    assert doctor._data_dir(out).state == "ok"
    checks.setattr(aof, "free_bytes", lambda _: 1 << 20)
    assert "nearly full" in doctor._data_dir(out).detail
    checks.setattr("os.geteuid", lambda: status(4711).st_uid)
    assert "another user" in doctor._data_dir(out).detail
