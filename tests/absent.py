"""What a machine may lack: the one way to skip a test that also holds where `CI` is set.

>>> from tests.absent import skip_absent
>>> if not cgroup2_limits_work():  # doctest: +SKIP
...     skip_absent("cgroup2")
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

_LIST = Path(__file__).with_name("absent.toml")


class AbsentError(pytest.skip.Exception):
    """A test is skipped for want of a part that `absent.toml` lists."""


@cache
def absent_parts() -> dict[str, str]:
    """Return the reason of every part that may be absent, by its name."""
    return {name: entry["reason"] for name, entry in tomllib.loads(_LIST.read_text()).items()}


def skip_absent(name: str) -> NoReturn:
    """Skip the running test.

    Args:
        name: A part of `absent.toml`.

    Raises:
        KeyError: The list has no such part.
        AbsentError: Always.
    """
    raise AbsentError(f"absent: {name} ({absent_parts()[name]})")


def must_fail(
    report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException] | None
) -> bool:
    """Return whether a skip counts as a failure: where `CI` is set, unless its part is listed."""
    if not os.environ.get("CI") or not report.skipped or hasattr(report, "wasxfail"):
        return False
    return excinfo is None or not isinstance(excinfo.value, AbsentError)
