"""A real Chromium, headless. Without one these tests are skipped, with `CI` set they fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from angelos.testing import need

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
]  # fmt: skip


@pytest.fixture
def chromium():
    need(CHROMIUM.exists(), f"there is no browser at {CHROMIUM}")
    return CHROMIUM


@pytest.fixture
async def browser(chromium, tmp_path):
    from playwright.async_api import async_playwright

    env = {**os.environ, "HOME": str(tmp_path)}
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=chromium, args=FLAGS, env=env)
        yield running
        await running.close()
