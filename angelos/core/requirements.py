r"""Packages that a task names, as pip's requirements: names, versions, hashes, nothing else.

    >>> parse_requirements("numpy == 2.1.0  # arrays\n\npandas[excel]>=2 ; python_version>'3'")
    ('numpy == 2.1.0', "pandas[excel]>=2 ; python_version>'3'")

Options, URLs, paths and other files are refused: where packages come from is the node's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from angelos.core.errors import InvalidInput

MAX_PACKAGES = 1_000
MAX_TEXT = 400_000
_COMMENT = re.compile(r"(?:^|\s)#.*$")
_HASH = re.compile(r" --hash=sha(?:256|384|512):[0-9a-f]{64,128}(?= |\Z)")
_REQUIREMENT = re.compile(  # on one line: pip reads what follows as an option or a file
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"  # name
    r" *(?:\[[A-Za-z0-9._, -]*\])?"  # extras
    r" *(?:\(? *(?:===|==|~=|!=|<=|>=|<|>)[A-Za-z0-9.*+!_<>=~, -]*\)?)?"  # versions
    r" *(?:;[A-Za-z0-9._ '\"<>=!~()-]*)?"  # markers
)


def parse_requirements(text: str) -> tuple[str, ...]:
    """Return the requirements of a file, in its order, each once.

    Raises:
        InvalidInput: A line is no plain requirement, or there are too many.
    """
    if len(text) > MAX_TEXT:
        raise InvalidInput(f"Requirements have at most {MAX_TEXT} characters.")
    lines = text.replace("\r\n", "\n").replace("\\\n", " ").split("\n")
    return check_requirements(
        stripped for line in lines if (stripped := " ".join(_COMMENT.sub("", line).split()))
    )


def check_requirements(lines: Iterable[str]) -> tuple[str, ...]:
    """Return requirements, each once.

    Raises:
        InvalidInput: One is no plain requirement, or there are too many.
    """
    rows = tuple(dict.fromkeys(lines))
    if sum(map(len, rows)) > MAX_TEXT:
        raise InvalidInput(f"Requirements have at most {MAX_TEXT} characters.")
    if len(rows) > MAX_PACKAGES:
        raise InvalidInput(f"At most {MAX_PACKAGES} packages.")
    for row in rows:
        plain = _HASH.sub("", row)
        if _REQUIREMENT.fullmatch(plain) is None or " -" in plain:
            raise InvalidInput(
                f"{row[:200]!r} is no package by name and version.",
                hint="Write `numpy`, `numpy==2.1.0` or `numpy>=2`; options and URLs are not taken.",
            )
    return rows
