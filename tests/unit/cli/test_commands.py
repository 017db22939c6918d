"""What all commands share: help at once, imports on use, `--json`, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import angelos
from angelos.cli import cli
from angelos.node.sandbox.layout import Bind

HEAVY = {"tornado", "msgspec", "redis", "psycopg", "cryptography", "pycrdt", "jupyterlab"}
NOUNS = [n for n in cli.entries if isinstance(cli.get_command(click.Context(cli), n), click.Group)]


@pytest.mark.parametrize("args", [["--help"], ["--version"], *([n, "--help"] for n in NOUNS)])
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


@pytest.mark.parametrize("name", sorted(cli.entries))
def test_every_command_has_help(name):
    done = CliRunner().invoke(cli, [name, "--help"])
    assert done.exit_code == 0, done.output
    if name not in cli.sections["Short for"]:
        assert cli.entries[name].help.rstrip(".").split()[0] in done.output


@pytest.mark.parametrize(("short", "noun", "verb"), [
    ("run", "task", "run"), ("propose", "proposal", "create"),
])  # fmt: skip
def test_a_short_one_is_the_long_one(short, noun, verb):
    context = click.Context(cli)
    group = cli.get_command(context, noun)
    assert cli.get_command(context, short) is group.get_command(context, verb)
    assert cli.entries[short].help == f"angelos {noun} {verb}"


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


@pytest.mark.parametrize("command", ["status", "node list", "proposal list", "run -c 1"])
def test_without_a_system_one_says_how_to_start_it(command, tmp_path):
    done = CliRunner().invoke(cli, [*command.split(), "--data-dir", str(tmp_path)])
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
        ["agent", "quarantine", "agent/ada"],
        ["node", "release", "../x"],
        ["person", "add", "ada", "--role", "god"],
        ["agent", "add", "ada", "--ttl", "0"],
        ["node", "join", "/nonexistent/token", "d"],
        ["repo", "import", ".", "--config", "none", "--solo"],
        ["status", "--token-file", "/nonexistent/token"],
        ["status", "--token", "angel_secret"],
        ["up", "--port", "0"],
    ],
)
def test_bad_usage_is_exit_code_2(args, tmp_path):
    done = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output


def test_a_node_does_not_keep_its_key_where_tasks_read(tmp_path):
    token = tmp_path / "token"
    token.write_text("not looked at")
    folder = tmp_path / "in" / "python"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "angelos.node.sandbox.layout.system_binds", lambda: (Bind(str(tmp_path / "in"), "/x"),)
        )
        done = CliRunner().invoke(cli, ["node", "join", str(token), str(folder)])
    assert done.exit_code == 2
    assert "every task may read" in done.output
    assert "the token was not used" in done.output
    assert not folder.exists()
