"""Links of the documentation lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.docs.pages import FENCED, PAGES, ROOT, prose

LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\)")
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


INSIDE = re.compile(r"`((?:angelos|jupyter_ext|llm|tools|tests|notebooks|examples)/[\w./*-]*)`")


def absent(text: str) -> list[str]:
    """Return the files and folders of this repository that a page names and that do not exist."""
    return [path for path in INSIDE.findall(prose(text)) if not any(ROOT.glob(path.rstrip("/")))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(page):
    assert absent(page.read_text()) == []


def test_a_file_that_does_not_exist_is_seen():
    assert absent("`angelos/core/ids.py` `angelos/**/*.sql` `angelos/nosuch/`") == [
        "angelos/nosuch/"
    ]


ROADS = ROOT / "docs" / "explanation" / "roads.md"
VISIT = re.compile(r"^\| (`[^|]*?/`[^|]*) \| ([^|]*) \|", re.MULTILINE)


def visits() -> list[tuple[list[str], str]]:
    """Return (rooms, file) of each step of the walk."""
    return [
        (re.findall(r"`([^`]+)`", rooms), file)
        for rooms, files in VISIT.findall(ROADS.read_text())
        for file in re.findall(r"`([^`]+)`", files)
    ]


@pytest.mark.parametrize(("rooms", "file"), visits())
def test_the_rooms_of_both_roads_hold_the_files_of_the_walk(rooms, file):
    assert any((ROOT / room / file).is_file() for room in rooms)


def test_the_walk_is_read():
    assert len(visits()) > 40
