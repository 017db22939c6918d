"""How commands print: tables, errors, exit codes."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from angelos.cli.options import common
from angelos.cli.output import evidence, table
from angelos.core.errors import AngelError, Busy, InvalidInput, NotFound, Refused, Stale


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("x"), 2),
        (NotFound("x"), 2),
        (Refused("x"), 1),
        (Busy("x"), 1),
        (Stale("x"), 1),
    ],
)
def test_errors_are_one_line_and_an_exit_code(error: AngelError, code):
    @click.command()
    @common
    def fails(out) -> None:
        raise error

    plain = CliRunner().invoke(fails, [])
    assert (plain.exit_code, plain.stdout) == (code, "")
    assert plain.stderr == "angelos: x\n"
    as_json = CliRunner().invoke(fails, ["--json"])
    assert as_json.exit_code == code
    assert json.loads(as_json.stdout.splitlines()[-1])["code"] == error.code


def test_both_texts_of_a_conflict_are_shown():
    conflict = {"path": "a.py", "start": 2, "base": "x\n", "theirs": "y\x1b\n", "yours": "z\n"}
    assert evidence(Stale("x", conflicts=[conflict])) == [
        "a.py from line 2:",
        "  base   | x",
        "  theirs | y?",
        "  yours  | z",
    ]
    assert evidence(Stale("x", conflicts="odd")) == []


def test_a_table_is_plain_and_keeps_escape_codes_out():
    assert table(("a", "long head"), [("\x1b[31mred\nline", 1)]) == (
        "a              long head\n?[31mred line  1"
    )
