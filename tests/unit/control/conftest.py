"""A world of fakes for each test."""

from __future__ import annotations

import pytest

from tests.unit.control.fakes import World


@pytest.fixture
def world(clock):
    return World(clock)
