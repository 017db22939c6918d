"""angelos.toml: what it may say, and clear words when it is wrong."""

from __future__ import annotations

import json

import pytest

from angelos.control.proposals.repo_config import MAX_BYTES, RepoConfig, parse
from angelos.control.proposals.risk import change_factors, total, touched
from angelos.control.state.proposals import short_diffs
from angelos.core.errors import InvalidInput
from angelos.core.repository import Change
from angelos.demo.study import ANGELOS_TOML


def test_the_demos_configuration_is_understood():
    config = parse(ANGELOS_TOML.encode())
    assert [step.name for step in config.pipeline.steps] == [
        "unit", "notebook", "static", "security"
    ]  # fmt: skip
    assert config.pipeline.limits(config.pipeline.steps[0]).wall_s == 60
    assert config.health.run == ("python", "-m", "study.health")
    assert config.review.protected == ("study/constants.py",)


def test_an_empty_file_is_the_default():
    assert parse(b"") == RepoConfig()


def test_a_step_may_have_its_own_time():
    config = parse(b'[pipeline]\nsteps = [{name = "a", run = ["x"], timeout_s = 5}]')
    assert config.pipeline.limits(config.pipeline.steps[0]).wall_s == 5


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[pipeline", "cannot be read"),
        (b"\xff", "cannot be read"),
        (b"[unknown]\n", "unknown"),
        (b"[pipeline]\nsteps = 1", "steps"),
        (b'[pipeline]\nsteps = [{name = "a"}]', "needs either run or notebook"),
        (b'[pipeline]\nsteps = [{name = "a", run = ["x"], notebook = "n"}]', "either"),
        (b'[pipeline]\nsteps = [{name = "a", notebook = "../n"}]', "plain relative path"),
        (b'[pipeline]\nsteps = [{name = "a b", run = ["x"]}]', "name"),
        (b'[pipeline]\nsteps = [{name="a", run=["x"]}, {name="a", run=["y"]}]', "same name"),
        (b"[pipeline]\ntimeout_s = 1e9", "timeout_s"),
        (b"[pipeline]\nmemory_mb = 1", "memory_mb"),
        (b"[health]\nrun = [1]", "run"),
        (b"[review]\nprotected = ['']", "protected"),
        (b"#" * (MAX_BYTES + 1), "bytes"),
    ],
)
def test_mistakes_are_named(body, words):
    with pytest.raises(InvalidInput, match=words):
        parse(body)


@pytest.mark.parametrize("pattern", ["docs/", "/docs/**", "./a.py", "a//b", "..", "a\\b"])
def test_a_protection_that_protects_nothing_is_refused(pattern):
    with pytest.raises(InvalidInput, match="which no file can match"):
        parse(f"[review]\nprotected = [{json.dumps(pattern)}]".encode())


def test_what_tests_a_proposal_is_known():
    config = parse(ANGELOS_TOML.encode())
    paths = ("ruff.toml", "study/health.py", "ruff.py", "study/conftest.py",
             "study/statistics.py", "study/reference.json", "analysis.ipynb")  # fmt: skip
    assert touched(paths, config.judges) == paths[:4]
    assert config.doctested == ("study/statistics.py", "study/difflib.py")
    assert config.notebooks == ("analysis.ipynb",)
    step = '{ name = "x", run = ["ci/test.sh", "all"] }'
    assert "ci/test.sh" in parse(f"[pipeline]\nsteps = [{step}]".encode()).judges
    step = '{ name = "x", run = ["python", "-m", "doctest", "a/hello.py"] }'
    assert "a/hello.py" not in parse(f"[pipeline]\nsteps = [{step}]".encode()).judges


def test_paths_are_compared_whatever_their_case():
    patterns = ("angelos.toml", ".angelos/**")
    paths = ("Angelos.TOML", "a/angelos.toml", ".ANGELOS/x/y", "b.py")
    assert touched(paths, patterns) == ("Angelos.TOML", ".ANGELOS/x/y")


def change(path="a.py", diff="+x\n", after="1"):
    """Return a change."""
    return Change(path=path, before="0", after=after, diff=diff)


def risk(changes):
    """Return the risk of changes alone."""
    return total(change_factors(changes))


def test_risk_grows_with_what_is_odd():
    assert risk(()) == 0
    assert risk((change(),)) == 11
    assert risk((change(diff="--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n"),)) == 11
    assert risk((change(after=None, diff=""),)) == 110
    assert risk((change(diff="+" + "A" * 600),)) > 400
    assert risk((change(path="a.ipynb", diff="+" + "A" * 600),)) < 400
    assert risk(tuple(change(diff="+x\n" * 999) for _ in range(9))) == 1000


@pytest.mark.parametrize(
    "line",
    [
        "import os\r" * 300,
        "x = '" + "A" * 400 + "\x0c" + "A" * 400 + "'",
        "x = '" + "A" * 400 + "\u2028" + "A" * 400 + "'",
        "++eval('" + "A" * 600 + "')",
    ],
)
def test_a_long_line_does_not_hide_behind_what_is_no_line_end(line):
    assert risk((change(diff=f"--- a\n+++ b\n@@ -0,0 +1 @@\n+{line}\n"),)) > 400


def test_what_a_cut_diff_does_not_show_is_not_harmless():
    removed = "@@ -1 +1 @@\n" + "-gone\n" * 100
    whole = change(diff=removed + "+" + "A" * 600 + "\n")
    assert risk(short_diffs((whole,), 300)) > 400
    first, cut, late = short_diffs((change(), change(diff="-gone\n" * 100), whole), 300)
    assert (first.cut, cut.cut, late.cut, late.diff) == (False, True, True, "")
