"""One run of the demo for all tests of what it left behind."""

from __future__ import annotations

import pytest

from tests.acceptance.demo_process import Demo, run_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The demo, run once a session."""
    return run_demo(tmp_path_factory.mktemp("demo") / "data")
