"""The pages that people read."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
BUILT = ROOT / "docs" / "_build"
DOCS = [page for page in sorted((ROOT / "docs").rglob("*.md")) if BUILT not in page.parents]
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]
FENCED = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [block for name, block in FENCED.findall(text) if name == language]


def prose(text: str) -> str:
    """Return a page without its fenced blocks."""
    return FENCED.sub("", text)
