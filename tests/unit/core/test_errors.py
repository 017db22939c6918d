"""Errors cross the wire as codes of a fixed table and come back as what they were."""

import json

import pytest

from angelos.core import errors


@pytest.mark.parametrize("cls", errors.BY_CODE.values())
def test_round_trip(cls: type[errors.AngelError]) -> None:
    body = json.loads(json.dumps(cls("what happened", hint="do this", line=3).problem()))
    back = errors.from_problem(body)
    assert type(back) is cls
    assert (back.detail, back.hint, back.extra) == ("what happened", "do this", {"line": 3})
    assert body["status"] == cls.status


def test_whatever_extra_a_problem_has_it_becomes_an_error() -> None:
    extra = {"self": 1, "detail": 2, "hint": 3, "code": 4, "problem": 5}
    error = errors.from_problem({"code": "stale", "detail": "x", "extra": extra})
    assert (str(error), error.extra) == ("x", {"code": 4, "problem": 5})


def test_a_docstring_is_the_default_message() -> None:
    assert errors.Stale().detail == errors.Stale.__doc__


@pytest.mark.parametrize(
    "body", [{}, {"code": "os.system"}, {"code": None, "extra": [1]}, {"extra": {"detail": "x"}}]
)
def test_a_strange_problem_is_still_an_error(body: dict) -> None:
    assert type(errors.from_problem(body)) is errors.AngelError


def test_codes_are_unique() -> None:
    assert all(code == cls.code for code, cls in errors.BY_CODE.items())
