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
async def browser(tmp_path):
    need(CHROMIUM.exists(), f"there is no browser at {CHROMIUM}")
    from playwright.async_api import async_playwright

    env = {**os.environ, "HOME": str(tmp_path)}
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, env=env)
        yield chromium
        await chromium.close()
