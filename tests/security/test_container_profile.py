"""The seccomp and AppArmor profiles that ship for containers: narrow, and enough to make boxes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

from tests.absent import skip_absent
from tools import container_profile

UNDER = """
import errno, json, sys
import pyseccomp as seccomp

profile = json.load(open(sys.argv[1]))
rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
for group in profile["syscalls"]:
    allow = group["action"] == "SCMP_ACT_ALLOW"
    action = seccomp.ALLOW if allow else seccomp.ERRNO(group["errnoRet"])
    for name in group["names"]:
        try:
            rules.add_rule(action, name)
        except (OSError, ValueError, RuntimeError):
            continue  # of another architecture
rules.load()
import asyncio, os
from angelos.node.sandbox.probe import probe

try:
    os.open("/proc/self/mem", os.O_RDONLY)
    import ctypes
    print(ctypes.CDLL(None, use_errno=True).syscall(321, 0, 0, 0), ctypes.get_errno())
finally:
    print(asyncio.run(probe()).tier)
"""


def test_the_file_is_the_one_that_is_written():
    assert container_profile.FILE.read_text() == container_profile.rendered()


def test_it_allows_what_makes_boxes_and_nothing_else_that_a_box_refuses():
    profile = container_profile.profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    allowed = set(profile["syscalls"][0]["names"])
    table = json.loads((container_profile.DATA / "seccomp.json").read_text())
    refused_in_boxes = {*table["x86_64"]["refuse"], *table["aarch64"]["refuse"]}
    assert allowed & refused_in_boxes <= container_profile.MAKES_BOXES
    assert {"unshare", "mount", "pivot_root", "seccomp"} <= allowed
    assert not allowed & {
        "bpf", "kexec_load", "init_module", "ptrace", "keyctl", "perf_event_open", "io_uring_setup",
        "userfaultfd", "open_by_handle_at", "reboot", "swapon",
    }  # fmt: skip


def test_a_box_is_made_under_it():
    done = subprocess.run(
        [sys.executable, "-c", UNDER, str(container_profile.FILE)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    bpf, tier = done.stdout.split("\n")[:2]
    assert bpf == "-1 1"  # EPERM: the filter is in force
    assert tier in {"full", "reduced"}, done.stderr


def test_the_apparmor_profile_confines_what_a_box_runs():
    text = (container_profile.DATA / "angelos.apparmor").read_text()
    profiles = re.split(r"^profile (\w+)", text, flags=re.MULTILINE)[1:]
    bodies = dict(zip(profiles[::2], profiles[1::2], strict=True))
    assert set(bodies) == {"angelos_bwrap", "angelos_box", "angelos_container"}
    assert "unconfined" not in bodies["angelos_bwrap"] + bodies["angelos_box"]
    for rule in ("capability", "userns", "mount", "ptrace"):
        assert f"deny {rule}," in bodies["angelos_box"]
    assert "&angelos_bwrap//&angelos_box" in bodies["angelos_bwrap"]
    assert text.count("{\n") == text.count("\n}\n")
    if shutil.which("apparmor_parser") is None:
        skip_absent("apparmor")
    subprocess.run(
        ["apparmor_parser", "-Q", "-K", container_profile.DATA / "angelos.apparmor"],
        check=True, timeout=60,
    )  # fmt: skip
