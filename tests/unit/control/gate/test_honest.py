"""Honest patches pass without a person: at most one in ten asks."""

from __future__ import annotations

from angelos.control.gate.inspect import inspect
from tests.unit.control.gate.honest import from_history, from_the_standard_library


def test_at_most_ten_in_a_hundred_honest_patches_ask_a_person():
    patches = [*from_history(), *from_the_standard_library()]
    asked = [findings for patch in patches if (findings := inspect(patch))]
    assert len(patches) == 120
    listed = "\n".join(str(findings[0]) for findings in asked)
    assert len(asked) <= len(patches) / 10, listed
