"""A safe path can only name a file below the root."""

import itertools
import os
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from angelos.core.errors import InvalidInput
from angelos.core.paths import MAX_PATH_BYTES, matches, safe_link, safe_path


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


LINKS_INSIDE = [
    ("a", "b"), ("a/b", "c"), ("a/b", "../c"), ("a/b/c", "../../d/e"), ("a/b", ".."),
    ("a/b", "../a"), ("a", "ö/x.py"),
]  # fmt: skip
LINKS_OUTSIDE = [
    ("a", ""), ("a", "."), ("a", ".."), ("a", "../b"), ("a/b", "../../c"), ("a", "/etc/passwd"),
    ("a", "b/../../c"), ("a/b", "../c/.."), ("a", "./b"), ("a", "b//c"), ("a", "b/"), ("a", "b\0"),
    ("a", ".git/config"), ("a/b", "../.GIT"), ("a", "b\\c"), ("../a", "b"), ("a", "b" * 600),
]  # fmt: skip


@pytest.mark.parametrize(("path", "target"), LINKS_INSIDE)
def test_a_link_inside_is_kept(path, target):
    assert safe_link(path, target) == target


@pytest.mark.parametrize(("path", "target"), LINKS_OUTSIDE)
def test_a_link_that_could_leave_is_refused(path, target):
    with pytest.raises(InvalidInput):
        safe_link(path, target)


@settings(deadline=None, max_examples=40)
@given(
    st.dictionaries(
        st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join),
        st.lists(st.sampled_from(["..", *"abc"]), min_size=1, max_size=4).map("/".join),
        max_size=6,
    )
)
def test_no_chain_of_links_that_are_kept_leaves_the_folder(tmp_path_factory, links):
    """The kernel's own word: make the links for real and resolve every way through them."""
    root = tmp_path_factory.mktemp("tree") / "root"
    root.mkdir()
    for path, target in links.items():
        try:
            safe_link(path, target)
        except InvalidInput:
            continue
        link = root / path
        above = [root / part for part in itertools.accumulate(path.split("/")[:-1], "{}/{}".format)]
        if any(part.is_symlink() for part in above) or os.path.lexists(link):
            continue  # a tree holds no file below a link
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for way in itertools.product("abc", repeat=3):
        real = os.path.realpath(root.joinpath(*way))
        assert Path(real).is_relative_to(root.resolve())
