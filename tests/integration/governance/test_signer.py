"""The signer: only it has the keys, and it signs only what continues its last tree."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.errors import Tampered, Unavailable
from angelos.governance.log.checkpoint import Checkpoint, LogKeys, open_checkpoint
from angelos.governance.log.merkle import EMPTY_ROOT, Frontier
from angelos.governance.signer.client import SIGNER_UID, LocalSigner, SignerProcess
from angelos.governance.signer.state import SignRefusal, refusal
from angelos.testing import eventually, need
from tests.unit.governance.merkle_oracle import consistency_proof

ORIGIN = "angelos/audit/test"
LEAVES = [bytes([n]) * 32 for n in range(40)]


PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable


def status_of(pid):
    return Path(f"/proc/{pid}/status").read_text()


def tree(size, leaves=LEAVES, origin=ORIGIN):
    return Checkpoint(origin, size, Frontier().extend(leaves[:size]).root())


def proof(old, size):
    return consistency_proof(LEAVES[:size], old) if 0 < old < size else []


@given(st.integers(0, 40), st.integers(0, 40))
def test_only_a_tree_that_continues_the_last_is_signed(old, size):
    refused = refusal(ORIGIN, tree(old), tree(size), proof(old, size))
    assert (refused is None) == (size >= old)
    if refused is not None:
        assert refused is SignRefusal.shrunk
    other = tree(size, LEAVES[::-1])
    if 0 < old <= size < 40:
        assert refusal(ORIGIN, tree(old), other, proof(old, size)) is SignRefusal.inconsistent
    assert refusal(ORIGIN, None, tree(size, origin="else"), []) is SignRefusal.origin


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory(prefix="angelos-") as name:
        yield Path(name) / "closed" / "signer"


async def test_keys_that_last_and_a_memory_of_the_last_tree(folder):
    need(os.geteuid() == 0, "root, who can be somebody else")
    folder.parent.mkdir(mode=0o700)
    async with SignerProcess(ORIGIN, folder) as signer:
        assert signer.lasting
        first = signer.epoch
        note = await signer.sign(tree(5), [])
        assert open_checkpoint(note, [first]) == tree(5)
        status = status_of(signer.pid)
        assert f"Uid:\t{SIGNER_UID}\t{SIGNER_UID}" in status
    assert {p.stat().st_uid for p in folder.iterdir()} == {SIGNER_UID}
    assert {oct(p.stat().st_mode & 0o777) for p in folder.iterdir()} == {"0o600"}
    async with SignerProcess(ORIGIN, folder) as signer:
        assert signer.epoch == first
        with pytest.raises(Tampered, match="shrunk"):
            await signer.sign(tree(4), [])
        with pytest.raises(Tampered, match="inconsistent"):
            await signer.sign(tree(9, LEAVES[::-1]), proof(5, 9))
        assert open_checkpoint(await signer.sign(tree(9), proof(5, 9)), [first]) == tree(9)


async def test_keys_in_memory_are_others_in_each_life():
    async with SignerProcess(ORIGIN, None) as signer:
        first = signer.epoch
        assert not signer.lasting
        assert open_checkpoint(await signer.sign(tree(1), []), [first]) == tree(1)
    async with SignerProcess(ORIGIN, None) as signer:
        assert signer.epoch != first
        with pytest.raises(Tampered, match="not signed"):
            open_checkpoint(await signer.sign(tree(1), []), [first])


async def test_a_signer_that_was_killed_is_started_again():
    async with SignerProcess(ORIGIN, None) as signer:
        await signer.sign(tree(1), [])
        os.kill(signer.pid, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await signer.sign(tree(2), proof(1, 2))
        note = await signer.sign(tree(2), proof(1, 2))
        assert open_checkpoint(note, [signer.epoch]) == tree(2)


async def test_a_signer_that_hangs_is_not_waited_for(monkeypatch):
    async with SignerProcess(ORIGIN, None) as signer:
        monkeypatch.setattr("angelos.governance.signer.client.ANSWER_S", 0.2)
        monkeypatch.setattr("angelos.governance.signer.client.END_S", 0.2)
        stopped = signer.pid
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await signer.sign(tree(1), [])
        await eventually(lambda: not Path(f"/proc/{stopped}").exists(), "its end")


_LOOK = """
import ctypes, os, sys
pid = int(sys.argv[1])
for name in ("mem", "environ", "fd", "maps"):
    try:
        path = f"/proc/{pid}/{name}"
        os.listdir(path) if name == "fd" else open(path, "rb").read(1)
        sys.exit(f"{name} can be read")
    except PermissionError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
if libc.ptrace(16, pid, 0, 0) == 0:
    sys.exit("it can be traced")
"""


async def test_not_even_the_same_user_can_look_into_it(folder):
    """As a user who is not root: neither memory nor descriptors nor a debugger."""
    need(os.geteuid() == 0, "root, to become two processes of one ordinary user")
    uid = SIGNER_UID
    async with SignerProcess(ORIGIN, folder) as signer:
        look = await asyncio.create_subprocess_exec(
            "/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups",
            PYTHON,
            "-I", "-S", "-c", _LOOK, str(signer.pid), stderr=subprocess.PIPE,
        )  # fmt: skip
        _, said = await look.communicate()
    assert (look.returncode, said) == (0, b"")


async def test_a_local_signer_keeps_the_same_rule():
    keys = LogKeys(ORIGIN, bytes(32), bytes(32))
    signer = LocalSigner(keys, ORIGIN)
    await signer.sign(tree(5), [])
    with pytest.raises(Tampered, match="shrunk"):
        await signer.sign(Checkpoint(ORIGIN, 0, EMPTY_ROOT), [])
