"""A skip fails where `CI` is set, unless it is for want of a listed part."""

from __future__ import annotations

import pytest

from tests.absent import absent_parts, skip_absent

_TEST = """
import pytest
from tests.absent import skip_absent

def test_listed():
    skip_absent("gpu")

def test_free():
    pytest.skip("no time")

@pytest.mark.skipif(True, reason="a mark")
def test_marked():
    pass

@pytest.mark.xfail(strict=True)
def test_known():
    raise AssertionError
"""

_CONFTEST = "from tests.conftest import pytest_runtest_makereport"

pytest_plugins = ["pytester"]


def run(pytester: pytest.Pytester) -> dict[str, int]:
    pytester.makeconftest(_CONFTEST)
    pytester.makepyfile(_TEST)
    return pytester.runpytest_inprocess(
        "-p", "no:cacheprovider", "-p", "no:asyncio"
    ).parseoutcomes()


def test_a_free_skip_fails_in_ci(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")
    assert run(pytester) == {"skipped": 1, "failed": 1, "errors": 1, "xfailed": 1}


def test_at_home_every_skip_is_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert run(pytester) == {"skipped": 3, "xfailed": 1}


def test_only_listed_parts_may_be_absent() -> None:
    with pytest.raises(KeyError):
        skip_absent("time")
    assert all(len(reason) > 20 for reason in absent_parts().values())
