"""`angelos doctor` where something is missing: each machine made by namespaces and mounts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from angelos.testing import need

DOCTOR = """
import sys
from angelos.cli.commands import doctor

async def fine(*_):
    return doctor.Diagnosis("stores", "ok", "not tried")

doctor._stores = fine  # they are tested elsewhere and take seconds
sys.argv[0] = "angelos doctor"
doctor.doctor()
"""


def diagnosed(data_dir: Path, *machine: str) -> tuple[int, dict[str, dict[str, str]], str]:
    """Return the exit code, the checks by name and the tier, as doctor sees a machine."""
    where = ["--json", "--data-dir", str(data_dir)]
    done = subprocess.run(
        [*machine, sys.executable, "-c", DOCTOR, *where],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    return done.returncode, {check["name"]: check for check in report["checks"]}, report["tier"]


def mounted(script: str) -> tuple[str, ...]:
    """Return a command that runs another one where a script has mounted something."""
    return ("unshare", "--mount", "sh", "-c", f'{script} && exec "$@"', "sh")


@pytest.fixture(scope="module")
def outside():
    """A folder that is not below /tmp, which some of these machines lose."""
    need(os.geteuid() == 0, "root, to make such machines")
    folder = Path("/var/tmp") / f"angelos-doctor-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_without_user_namespaces(outside):
    machine = (
        "unshare", "--user", "--map-root-user", "sh", "-c",
        'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"', "sh",
    )  # fmt: skip
    code, checks, tier = diagnosed(outside / "data", *machine)
    assert (code, tier) == (1, "landlock")
    assert checks["user namespaces"]["detail"] == "switched off"
    assert "max_user_namespaces" in checks["user namespaces"]["hint"]
    assert checks["plain code"]["state"] == "FAIL"


def test_with_one_mapped_user(outside):
    code, checks, tier = diagnosed(outside / "data", "unshare", "--user", "--map-root-user")
    assert (code, tier) == (1, "landlock")
    assert checks["mapped users"]["state"] == "--"
    assert "ordinary user outside" in checks["mapped users"]["detail"]
    assert "range of users" in checks["mapped users"]["hint"]
    assert checks["plain code"]["state"] == "FAIL"
    assert checks["user namespaces"]["state"] == "ok"


def test_with_a_temporary_folder_that_cannot_be_written(outside):
    machine = mounted("mount --bind /tmp /tmp && mount -o remount,bind,ro /tmp")
    code, checks, _ = diagnosed(outside / "data", *machine)
    assert code == 1
    assert "Read-only file system" in checks["temporary folder"]["detail"]
    assert checks["plain code"]["state"] == "FAIL"
    assert not checks["sandbox"]["hint"]  # the reason is named: nothing is said of containers


def test_without_control_groups(outside):
    machine = mounted("mount -t tmpfs none /sys/fs/cgroup")
    code, checks, tier = diagnosed(outside / "data", *machine)
    assert (code, tier) == (0, "reduced")  # plain code runs: a sampler counts instead
    assert checks["control groups"]["state"] == "--"
    assert checks["plain code"]["state"] == "ok"


def test_with_a_foreign_owner(outside):
    foreign = outside / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    code, checks, _ = diagnosed(foreign)
    assert code == 1
    assert "belongs to another user" in checks["data directory"]["detail"]
    assert checks["plain code"]["state"] == "ok"  # and all else was checked


def test_with_a_disk_that_is_nearly_full(outside):
    full = outside / "full"
    full.mkdir()
    machine = mounted(f"mount -t tmpfs -o size=32m none {full}")
    code, checks, _ = diagnosed(full / "data", *machine)
    assert code == 1
    assert "nearly full" in checks["data directory"]["detail"]
