"""What commands share: imports on use, tables, ids by their beginning, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import angelos
from angelos.cli import COMMANDS, cli
from angelos.cli.commands import review
from angelos.cli.common import common, evidence, pick, table
from angelos.core.errors import AngelError, Busy, InvalidInput, NotFound, Refused, Stale
from angelos.core.ids import new_proposal_id

HEAVY = {
    "asyncio",
    "tornado",
    "msgspec",
    "redis",
    "psycopg",
    "cryptography",
    "pycrdt",
    "jupyterlab",
}


@pytest.mark.parametrize("args", [["--help"], ["--version"]])
def test_help_and_version_import_nothing_heavy(args):
    code = (
        "import sys\nfrom angelos.cli import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted(m for m in sys.modules if '.' not in m), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))
    assert not loaded & HEAVY
    assert done.stdout


def test_version():
    assert angelos.__version__ in CliRunner().invoke(cli, ["--version"]).output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(name):
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    assert COMMANDS[name][1].rstrip(".").split()[0] in done.output


def _leaves(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(command, click.Group):
        return [path]
    context = click.Context(command)
    return [
        leaf
        for name in command.list_commands(context)
        for leaf in _leaves(command.get_command(context, name), (*path, name))
    ]


@pytest.mark.parametrize("path", _leaves(cli), ids=" ".join)
def test_every_command_knows_json_and_data_dir(path):
    done = CliRunner().invoke(cli, [*path, "--help"])
    assert "--json" in done.output
    assert "--data-dir" in done.output or path == ("demo",)


def test_an_unknown_command_is_a_usage_error():
    assert CliRunner().invoke(cli, ["fly"]).exit_code == 2


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


@pytest.mark.parametrize("command", [["status"], ["nodes"], ["proposals"], ["run", "-c", "1"]])
def test_without_a_system_one_says_how_to_start_it(command, tmp_path):
    done = CliRunner().invoke(cli, [*command, "--data-dir", str(tmp_path)])
    assert done.exit_code == 1
    assert "angelos up" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "args",
    [
        ["run"],
        ["run", "x.py", "-c", "1"],
        ["run", "-c", "  "],
        ["run", "/nonexistent/x.py"],
        ["run", "-c", "1", "--timeout", "-1"],
        ["run", "-c", "1", "--memory", "1"],
        ["run", "-c", "1", "--language", "cobol"],
        ["propose", "x.py"],
        ["propose", "/nonexistent", "--base", "main"],
        ["quarantine", "ada"],
        ["quarantine", "person/ada"],
        ["people", "add", "ada", "--role", "god"],
        ["enrol", "agent", "ada", "--ttl", "0"],
        ["up", "--port", "0"],
    ],
)
def test_bad_usage_is_exit_code_2(args, tmp_path):
    done = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


def test_a_table_is_plain_and_keeps_escape_codes_out():
    assert table(("a", "long head"), [("\x1b[31mred\nline", 1)]) == (
        "a              long head\n?[31mred line  1"
    )


def test_an_id_may_be_given_by_its_beginning():
    ids = ["prop-012345", "prop-012367", "prop-200000"]
    assert pick("prop-012345", ids, "proposal") == "prop-012345"
    assert pick("01234", ids, "proposal") == "prop-012345"
    assert pick("prop-2000", ids, "proposal") == "prop-200000"
    with pytest.raises(InvalidInput, match="stands for 2"):
        pick("0123", ids, "proposal")
    for unknown in ("9999", "prop-012345x"):
        with pytest.raises(NotFound):
            pick(unknown, ids, "proposal")


@pytest.mark.parametrize("short", ["", "-", "prop", "prop-", "prop-200", "200"])
def test_a_beginning_that_could_name_something_by_chance_names_nothing(short):
    with pytest.raises(InvalidInput, match="too short"):
        pick(short, ["prop-200000"], "proposal")


@given(st.sets(st.text("0123", min_size=3, max_size=5), min_size=1), st.data())
def test_a_whole_id_always_names_itself(ids, data):
    one = data.draw(st.sampled_from(sorted(ids)))
    assert pick(one, ids, "thing") == one


async def test_a_whole_id_is_asked_for_even_if_it_is_too_old_to_be_listed():
    identifier = new_proposal_id()

    class Client:
        async def proposal(self, proposal):
            return f"the view of {proposal}"

    assert await review._find(Client(), identifier) == f"the view of {identifier}"
