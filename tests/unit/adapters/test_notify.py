"""Signs of life: the kernel names who gives them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from angelos.adapters.host.notify import SignsOfLife, give_signs, notify
from angelos.core.errors import Unavailable
from angelos.testing import eventually


async def _sign_of(signs, pid):
    async def given() -> bool:
        return signs.last(pid) is not None

    await eventually(given, f"a sign of {pid}")


async def test_a_process_whose_loop_runs_gives_signs(tmp_path):
    async with SignsOfLife(tmp_path / "notify") as signs:
        giving = asyncio.create_task(give_signs(str(tmp_path / "notify")))
        await _sign_of(signs, os.getpid())
        giving.cancel()
        signs.forget(os.getpid())
        assert signs.last(os.getpid()) is None


async def test_nobody_vouches_for_another(tmp_path):
    code = (
        "import os, sys\nfrom angelos.adapters.host.notify import notify\n"
        "notify(sys.argv[1], 'WATCHDOG=1\\nMAINPID=' + sys.argv[2])\nprint(os.getpid())\n"
    )
    async with SignsOfLife(tmp_path / "notify") as signs:
        argv = [sys.executable, "-c", code, str(tmp_path / "notify"), str(os.getpid())]
        other = int((await asyncio.to_thread(subprocess.check_output, argv)).strip())
        await _sign_of(signs, other)
        assert signs.last(os.getpid()) is None


async def test_other_words_are_no_sign_and_garbage_does_no_harm(tmp_path):
    async with SignsOfLife(tmp_path / "notify") as signs:
        for text in ("", "READY=1", "XWATCHDOG=1", "WATCHDOG=12", "x" * 10_000):
            notify(str(tmp_path / "notify"), text)
        notify(str(tmp_path / "notify"), "STATUS=well\nWATCHDOG=1")
        await _sign_of(signs, os.getpid())


async def test_a_removed_socket_is_opened_again_and_a_missing_one_harms_nobody(tmp_path):
    notify("", "WATCHDOG=1")
    notify(str(tmp_path / "none"), "WATCHDOG=1")
    async with SignsOfLife(tmp_path / "notify") as signs:
        (tmp_path / "notify").unlink()
        signs.open()
        notify(str(tmp_path / "notify"), "WATCHDOG=1")
        await _sign_of(signs, os.getpid())


async def test_a_place_that_does_not_exist_is_named(tmp_path):
    signs = SignsOfLife(tmp_path / "no" / "notify")
    with pytest.raises(Unavailable, match="notify"):
        signs.open()
