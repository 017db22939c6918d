"""The `angelos.toml` that is offered for a folder that has none."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from angelos.cli.starter import MOST_NOTEBOOKS, PYTEST, starter, summary
from angelos.control.proposals import repo_config


def parsed(paths: list[str], *, solo: bool = False) -> repo_config.RepoConfig:
    return repo_config.parse(starter(paths, solo=solo).encode())


def test_every_notebook_is_run_again_and_pytest_where_there_are_tests():
    config = parsed(["b.ipynb", "sub/a.ipynb", "tests/test_a.py", "m.py"])
    assert [step.notebook for step in config.pipeline.steps] == ["b.ipynb", "sub/a.ipynb", ""]
    assert config.pipeline.steps[-1].run == tuple(PYTEST)


def test_without_tests_there_is_no_pytest_and_without_anything_no_step():
    assert [s.notebook for s in parsed(["a.ipynb", "m.py"]).pipeline.steps] == ["a.ipynb"]
    assert parsed(["latest.py"]).pipeline.steps == ()


def test_an_agents_proposals_wait_and_solo_is_only_said_by_who_works_alone():
    assert parsed(["a.py"]).review.hold_agents
    assert not parsed(["a.py"]).review.solo
    assert parsed(["a.py"], solo=True).review.solo


def test_notebooks_that_would_have_one_name_get_two():
    names = [
        s.name
        for s in parsed(["a b.ipynb", "a-b.ipynb", "tests.ipynb", "test_x.py"]).pipeline.steps
    ]
    assert len(set(names)) == 4


def test_more_notebooks_than_a_pipeline_has_steps():
    paths = [f"{n:03}.ipynb" for n in range(100)]
    assert len(parsed([*paths, "test_a.py"]).pipeline.steps) == MOST_NOTEBOOKS + 1
    assert "97 more" not in summary(paths)
    assert "28 more" in summary(paths)


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\\"), min_size=1)


@given(st.lists(NAMES.filter(lambda n: n.strip(". ") == n), unique=True, max_size=5))
def test_whatever_the_names_the_file_can_be_read(names):
    books = [f"{name}.ipynb" for name in names]
    steps = tomllib.loads(starter(books, solo=False))["pipeline"]["steps"]
    assert [step["notebook"] for step in steps] == sorted(books)
