"""Takes secrets out of texts: those that are known by value, and what looks like one.

>>> scrub = Scrubber(["hunter2-hunter2"])
>>> scrub("password hunter2-hunter2 at postgresql://ada:pw@db/x?token=abc")
'password [removed] at postgresql://ada:[removed]@db/x?token=[removed]'

What looks like a secret is removed also where it is none: a support bundle that says less is no
harm, one that says more cannot be taken back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

REMOVED = "[removed]"
_NO_SECRETS = frozenset({"", "...", "null", "None", "true", "false"})
_SHORTEST = 6
"""Shorter texts are too common in logs to be replaced wherever they stand."""
NAMES_OF_SECRETS = (
    r"tokens?|passw(?:or)?d|passwd|pwd|secrets?|api[_-]?keys?|private[_-]?keys?|access[_-]?keys?"
    r"|credentials?|authorization|cookies?|headers"
)
_ASSIGNED = re.compile(
    rf"(?P<name>[\w.-]*(?:{NAMES_OF_SECRETS})[\w.-]*)(?P<sign>\\?[\"']?\s*[=:]\s*)"
    r"(?P<value>(?:bearer |token |basic )?(?:\\?\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'&,;})\]]+))",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"\b(bearer|basic|token) +[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE)
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s/:@]*):[^\s/@]+@", re.IGNORECASE)
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)
_SHAPES = re.compile(
    r"\bangel[a-z]_[A-Za-z0-9_-]{8,}|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)?"
    r"|\b(?:gh[opsu]|github_pat|glpat|xox[abp]|sk|pk|rk)[_-][A-Za-z0-9_-]{12,}|\bAKIA[A-Z0-9]{12,}"
)
"""Tokens of ours, JSON web tokens, those of well-known services."""
_WORD = re.compile(r"[A-Za-z0-9_-]{32,}")


class Scrubber:
    """Takes secrets out of texts.

    Args:
        secrets: Known ones.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        """Return a text without secrets."""
        if self._known is not None:
            text = self._known.sub(REMOVED, text)
        text = _PEM.sub(REMOVED, text)
        text = _USERINFO.sub(rf"\1:{REMOVED}@", text)
        text = _ASSIGNED.sub(_assigned, text)
        text = _SCHEME.sub(rf"\1 {REMOVED}", text)
        text = _SHAPES.sub(REMOVED, text)
        return _WORD.sub(_random, text)


def _assigned(match: re.Match[str]) -> str:
    value = match["value"]
    bare = value.strip("\\\"'")
    if bare in _NO_SECRETS or bare.startswith(REMOVED[:-1]) or bare.isdecimal():
        return match[0]
    before, after = value[: value.index(bare)], value[value.index(bare) + len(bare) :]
    return f"{match['name']}{match['sign']}{before}{REMOVED}{after}"


def _random(match: re.Match[str]) -> str:
    """Remove a long word in which capitals, small letters and digits are mixed: no hash of ours."""
    word = match[0]
    tests: tuple[Callable[[str], bool], ...] = (str.isupper, str.islower, str.isdigit)
    return REMOVED if all(any(map(test, word)) for test in tests) else word
