"""What people are told to type exists: commands, options, targets, extras, imports."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from angelos.cli import cli
from tests.unit.docs.pages import PAGES, ROOT, blocks, prose

PACKAGES = ("angelos", "jupyter_ext", "llm", "tools")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
INLINE = re.compile(r"(?<!`)`angelos ([a-z][^`\n]*)`(?!`)")
INNER = re.compile(r"\$\(([^()]*)\)")
"""What the shell runs first and puts in its place."""
REDIRECTIONS = {"<", ">", ">>", "2>"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def lines(text: str) -> list[list[str]]:
    """Return the programs that the console blocks run, word by word, also behind a pipe."""
    result = []
    for block in blocks(text, "console"):
        for line in block.splitlines():
            if line.startswith("$ "):
                for part in (INNER.sub("VALUE", line[2:]), *INNER.findall(line)):
                    lexer = shlex.shlex(part, posix=True, punctuation_chars="|;&<>")
                    lexer.whitespace_split = True
                    result += split(list(lexer))
    return result


def split(words: list[str]) -> list[list[str]]:
    """Return the programs of one line, without what belongs to the shell."""
    programs: list[list[str]] = [[]]
    for word, previous in zip(words, ["", *words], strict=False):
        if set(word) <= set("|;&<>"):
            if word not in REDIRECTIONS:
                programs.append([])
        elif previous not in REDIRECTIONS:
            programs[-1].append(word)
    return [program for program in programs if program]


def commands(text: str) -> list[list[str]]:
    """Return the arguments of the `angelos` commands in the console blocks."""
    return [words[1:] for words in lines(text) if words[0] == "angelos"]


def parse(args: list[str]) -> None:
    """Parse a command line as click would, running nothing; raise what click would."""
    command: click.Command = cli
    context = None
    while isinstance(command, click.Group):
        context = command.make_context("angelos", list(args), parent=context)
        rest = [*context._protected_args, *context.args]
        _, command, args = command.resolve_command(context, rest)
    command.make_context("angelos", list(args), parent=context)


def mention(text: str) -> None:
    """Check words such as `repo import DIR --name`: commands and options, not arguments."""
    command: click.Command = cli
    words = text.split()
    while isinstance(command, click.Group) and words and words[0].islower():
        child = command.get_command(click.Context(command), words[0])
        if child is None:
            raise click.UsageError(f"no command {words[0]!r} in {text!r}")
        command, words = child, words[1:]
    options = {opt for p in command.params for opt in (*p.opts, *p.secondary_opts)} | {"--help"}
    for word in words:
        if word.startswith("--") and word.rstrip(",.").partition("=")[0] not in options:
            raise click.UsageError(f"no option {word} in {text!r}")


def every(of, paths=PAGES):
    """Return what a function finds in all pages, each with a readable id."""
    return [
        pytest.param(item, id=f"{name(path)}:{str(item)[:60]}")
        for path in paths
        for item in of(path.read_text())
    ]


def test_commands_are_shown_at_all():
    assert len(commands((ROOT / "README.md").read_text())) >= 5


@pytest.mark.parametrize("command", every(commands))
def test_a_command_that_is_shown_exists_with_its_options(command):
    parse(command)


@pytest.mark.parametrize("text", every(lambda page: INLINE.findall(prose(page))))
def test_a_command_that_is_mentioned_exists_with_its_options(text):
    mention(text)


@pytest.mark.parametrize("text", every(INLINE.findall, SOURCES))
def test_a_command_that_the_code_names_exists_with_its_options(text):
    mention(text)


@pytest.mark.parametrize(
    "target",
    every(
        lambda page: (
            [words[1] for words in lines(page) if words[0] == "make"]
            + re.findall(r"`make ([a-z-]+)`", prose(page))
        )
    ),
)
def test_a_make_target_exists(target):
    assert target in TARGETS


@pytest.mark.parametrize("extra", every(lambda page: re.findall(r"angelos\[([a-z,]+)\]", page)))
def test_an_extra_exists(extra):
    assert set(extra.split(",")) <= EXTRAS.keys()


@pytest.mark.parametrize(
    "module",
    every(lambda page: re.findall(r"python3? -m ((?:angelos|jupyter_ext|llm|tools)[\w.]*)", page)),
)
def test_a_module_that_is_run_exists(module):
    path = ROOT.joinpath(*module.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("block", every(lambda page: blocks(page, "python")))
def test_python_compiles_and_imports_what_exists(block):
    tree = compile(block, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES:
            if str(node.module).startswith("llm"):
                pytest.importorskip("torch", reason="the ml extra")
            module = importlib.import_module(str(node.module))
            assert [a.name for a in node.names if not hasattr(module, a.name)] == []


@pytest.mark.parametrize(
    "line", ["nosuch", "run --nosuch", "audit nosuch", "node add n --role king", "proposal approve"]
)
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises(click.UsageError):
        parse(line.split())


@pytest.mark.parametrize("text", ["nosuch", "audit nosuch", "audit verify --nosuch"])
def test_a_mention_of_what_does_not_exist_is_seen(text):
    with pytest.raises(click.UsageError):
        mention(text)


def test_a_mention_may_leave_arguments_open():
    mention("audit verify --export FILE")
    mention("audit ...")


def test_command_lines_are_read_as_a_shell_reads_them():
    text = (
        "```console\n"
        "$ angelos run -c 'print(\"<|>\")'   # a comment\n"
        "$ angelos agent add ada | angelos agent join - ada > out.txt\n"
        "$ angelos task show $(angelos task list -q | head -1)\n"
        "not a command\n"
        "```\n"
        "```python\n$ angelos nosuch\n```\n"
    )
    assert commands(text) == [
        ["run", "-c", 'print("<|>")'],
        ["agent", "add", "ada"],
        ["agent", "join", "-", "ada"],
        ["task", "show", "VALUE"],
        ["task", "list", "-q"],
    ]
