"""Errors cross the wire as codes of a fixed table and come back as what they were."""

import ast
import asyncio
import json
from pathlib import Path

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


async def _raise(*raised: Exception) -> None:
    async def one(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as group:
        for error in raised:
            group.create_task(one(error))


@pytest.mark.parametrize(
    ("raised", "first"),
    [
        ([errors.Busy("a")], errors.Busy),
        ([errors.Busy("a"), errors.Stale("b")], errors.Busy),
        ([errors.Busy("a"), ValueError("b")], None),
        ([ValueError("b")], None),
    ],
)
async def test_the_first_of_a_group_is_ours_or_nothing(raised, first) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await _raise(*raised)
    nested = ExceptionGroup("around", [caught.value])
    for group in (caught.value, nested):
        found = errors.first_of(group)
        assert found is None if first is None else isinstance(found, first)


def test_nothing_is_raised_inside_except_star() -> None:
    """It would be one error or a group of one, as the release of Python has it."""
    root = Path(errors.__file__).parents[2]
    found = []
    for package in ("angelos", "jupyter_ext", "llm"):
        for file in sorted((root / package).rglob("*.py")):
            for star in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(star, ast.TryStar):
                    for handler in star.handlers:
                        raises = [n for n in ast.walk(handler) if isinstance(n, ast.Raise)]
                        found += [f"{file.relative_to(root)}:{n.lineno}" for n in raises if n.exc]
    assert found == []
