"""A flag that tasks wait for."""

from __future__ import annotations

import asyncio

import pytest

from angelos.adapters.net.flag import Flag


async def test_what_waits_is_woken_even_if_it_is_cleared_at_once():
    flag = Flag()
    waiting = [asyncio.create_task(flag.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    flag.set()
    flag.clear()
    await asyncio.gather(*waiting)
    assert not flag.is_set()


async def test_a_flag_that_is_set_is_not_waited_for():
    flag = Flag()
    flag.set()
    flag.set()
    await flag.wait()
    assert flag.is_set()


async def test_one_who_gives_up_does_not_keep_others():
    flag = Flag()
    first, second = asyncio.create_task(flag.wait()), asyncio.create_task(flag.wait())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    flag.set()
    await second
