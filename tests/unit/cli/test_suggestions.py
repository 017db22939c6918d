"""A mistyped word names the command that may be meant, at every level."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from angelos.cli import cli

MEANT = {
    "proposals": ["proposal list"],
    "nodes": ["node list"],
    "people": ["person list"],
    "people add": ["person add"],
    "propsal show": ["proposal show"],
    "tsk": ["task"],
    "approve": ["proposal approve"],
    "aprove": ["proposal approve"],
    "import": ["repo import"],
    "rollback": ["repo rollback"],
    "quarantine": ["node quarantine", "agent quarantine"],
    "statsu": ["status"],
    "task lst": ["task list"],
    "repo quarantine": ["node quarantine", "agent quarantine"],
    "proposal aprove": ["proposal approve"],
}


@pytest.mark.parametrize("words", MEANT)
def test_the_nearest_words_are_named(words):
    done = CliRunner().invoke(cli, words.split())
    assert done.exit_code == 2
    assert "No such command" in done.stderr
    for line in MEANT[words]:
        assert f"`angelos {line}`" in done.stderr


@pytest.mark.parametrize("words", ["fly", "task fly", "zzzzzzz"])
def test_nothing_is_guessed_where_nothing_comes_close(words):
    done = CliRunner().invoke(cli, words.split())
    assert done.exit_code == 2
    assert "No such command" in done.stderr
    assert "Did you mean" not in done.stderr


def test_every_suggestion_exists():
    for lines in MEANT.values():
        for line in lines:
            assert CliRunner().invoke(cli, [*line.split(), "--help"]).exit_code == 0
