"""A safe path can only name a file below the root."""

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from angelos.core.errors import InvalidInput
from angelos.core.paths import MAX_PATH_BYTES, matches, safe_path


@pytest.mark.parametrize("path", ["a", "study/statistics.py", "ä/ü.txt", ".angelos/x", "a/..b"])
def test_good_paths_come_back(path: str) -> None:
    assert safe_path(path) == path


@pytest.mark.parametrize(
    "path",
    ["", "/", "/etc/passwd", "..", "a/../b", "./a", "a//b", "a/", "a\\b", "a\0b", "a\nb", ".git/x",
     "a\u202egpj.py", "a\u200bb", "a\u00adb",
     "x/.GIT/hooks", "e\u0301", "\ud800", "a" * (MAX_PATH_BYTES + 1), "x/" + "\u00e4" * 101],
)  # fmt: skip
def test_bad_paths_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        safe_path(path)


@given(st.text(max_size=64))
def test_whatever_passes_stays_below_the_root(path: str) -> None:
    try:
        safe_path(path)
    except InvalidInput:
        return
    pure = PurePosixPath("/root") / path
    assert pure.parts[:2] == ("/", "root")
    assert ".." not in pure.parts
    assert str(pure) == f"/root/{path}"


def test_patterns() -> None:
    patterns = ("angelos.toml", ".angelos/**", "data/*.csv")
    assert matches("angelos.toml", patterns)
    assert matches(".angelos/deep/er/policy.cedar", patterns)
    assert matches(".angelos", patterns)
    assert matches("data/a.csv", patterns)
    assert not matches("data/sub/a.csv", patterns)
    assert not matches("x/angelos.toml", patterns)
    assert not matches(".angelos2/x", patterns)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("**/a.py", ["a.py", "x/a.py", "x/y/a.py"], ["xa.py", "a.py/x"]),
        ("x/**/a.py", ["x/a.py", "x/y/z/a.py"], ["a.py", "y/x/a.py"]),
        ("**", ["a", "a/b"], []),
        ("x/*/a.py", ["x/y/a.py"], ["x/a.py", "x/y/z/a.py"]),
        ("/".join(["**", "a"] * 60), ["/".join("a" * 60)], ["/".join("a" * 59)]),
    ],
)
def test_two_stars_are_any_number_of_folders(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [path for path in [*yes, *no] if matches(path, (pattern,))] == yes
