"""Links of the documentation lead somewhere, and the commands in it exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from angelos.cli import cli

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "docs" / "_build"
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if BUILT not in page.parents]
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
INNER = re.compile(r"\$\(([^()]*)\)")
"""What the shell runs first and puts in its place."""
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def links(text: str) -> list[str]:
    return LINK.findall(FENCED.sub("", text))


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings as GitHub makes them (of one of each name)."""
    plain = (re.sub(r"[^\w\- ]", "", h.lower()) for h in HEADING.findall(FENCED.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in plain}


def missing(page: Path, text: str) -> list[str]:
    """Return the links of `page` that lead nowhere."""
    bad = []
    for link in links(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        outside = not target.is_relative_to(ROOT)
        lost = anchor and target.suffix == ".md" and target.exists()
        if outside or not target.exists() or (lost and anchor not in anchors(target.read_text())):
            bad.append(link)
    return bad


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    assert missing(page, page.read_text()) == []


def test_a_dead_link_is_seen():
    page = ROOT / "README.md"
    text = "[a](nosuch.md) ![b](docs/nosuch.png) [c](README.md#nosuch) [d](Makefile) [e](../x)"
    assert missing(page, text) == ["nosuch.md", "docs/nosuch.png", "README.md#nosuch", "../x"]


def commands(text: str) -> list[list[str]]:
    """Return the `angelos` command lines of the console blocks, also behind a pipe."""
    found = []
    for language, block in FENCED.findall(text):
        lines = block.splitlines() if language == "console" else []
        for line in lines:
            if line.startswith("$ "):
                inner = INNER.findall(line)
                for part in (INNER.sub("VALUE", line[2:]), *inner):
                    lexer = shlex.shlex(part, posix=True, punctuation_chars="|;&<>")
                    lexer.whitespace_split = True
                    found += split(list(lexer))
    return found


def split(words: list[str]) -> list[list[str]]:
    """Return the `angelos` commands of one line, without what belongs to the shell."""
    found: list[list[str]] = [[]]
    for word, after in zip(words, ["", *words], strict=False):
        if set(word) <= set("|;&<>"):
            if word not in {"<", ">", ">>"}:
                found.append([])
        elif after not in {"<", ">", ">>"}:
            found[-1].append(word)
    return [command[1:] for command in found if command[:1] == ["angelos"]]


def parse(args: list[str]) -> None:
    """Parse a command line as click would, running nothing; raise what click would."""
    command: click.Command = cli
    context = None
    while isinstance(command, click.Group):
        context = command.make_context("angelos", list(args), parent=context)
        rest = [*context._protected_args, *context.args]
        _, found, args = command.resolve_command(context, rest)
        assert found is not None
        command = found
    command.make_context("angelos", list(args), parent=context)


SHOWN = [
    pytest.param(command, id=f"{page.relative_to(ROOT).as_posix()}:{' '.join(command)[:60]}")
    for page in PAGES
    for command in commands(page.read_text())
]


def test_commands_are_shown_at_all():
    assert len(commands((ROOT / "README.md").read_text())) >= 5


@pytest.mark.parametrize("command", SHOWN)
def test_a_command_that_is_shown_exists_with_its_options(command):
    parse(command)


@pytest.mark.parametrize(
    "line", ["nosuch", "run --nosuch", "audit nosuch", "node add n --role king", "proposal approve"]
)
def test_a_command_that_does_not_exist_is_seen(line):
    with pytest.raises(click.UsageError):
        parse(line.split())


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
