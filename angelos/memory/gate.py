"""What is worth remembering: a gate against junk. Pure.

A text is refused for one of the causes in `JunkCause`; what it is about plays no part. The rules
are deliberately few. `benchmarks/memory.py` prints their rates on labelled texts.

>>> junk("ok, thanks!")
<JunkCause.chatter: 'chatter'>
>>> junk("The reactor's sensor 4 reads 2 K too high since the move in May.") is None
True
"""

from __future__ import annotations

import math
import re
from collections import Counter

from angelos.core.memories import JunkCause


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_PLEASANTRIES = _words(
    "hi hello hey thanks thank you ok okay sure great good nice perfect please sorry yes no bye "
    "welcome cool fine awesome understood got it will do done happy to help let me know if "
    "anything else is there a i am the that was this so much very well sounds your my and of "
    "course glad could can may"
)
_STOP = _words(
    "a an the is are was were be been it its this that these those of in on at to for from by "
    "with and or as i we you he she they do does did so if then than there here"
)
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_[A-Za-z0-9_]{30,}|\bglpat-[\w-]{20,}"
    r"|\bsk-[A-Za-z0-9_-]{20,}|\bxox[abprs]-[\w-]{10,}|\bangelt_[\w-]{20,}|\bhf_[A-Za-z0-9]{30,}"
    r"|\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{10,}"
    r"|(?i:\b(?:password|passwd|secret|api[_ -]?key|access[_ -]?token|auth[_ -]?token)\b"
    r"\s*(?:is|=|:)\s*[\"']?(?=[^\s\"']*[0-9!-/:-@])[^\s\"']{8,})"
    r"|://[^/\s:@]+:[^/\s:@]+@"
)
_LOG_LINE = re.compile(
    r"^\s*(?:\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\[?\d\d:\d\d:\d\d|(?:DEBUG|INFO|WARN(?:ING)?|ERROR)\b"
    r"|File \"[^\"]+\", line \d+|Traceback \(most recent call last\)|at [\w.$]+\([\w.]+:\d+\))"
)
_LONG_TOKEN = 48
_MIN_WORDS = 3
_MIN_LINES = 3
_MIN_REPEATED = 12


def junk(text: str) -> JunkCause | None:
    """Return why a text is not worth remembering, or None."""
    if _SECRET.search(text):
        return JunkCause.secret
    words = [word.casefold() for word in _WORD.findall(text)]
    if words and all(word in _PLEASANTRIES for word in words):
        return JunkCause.chatter
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) >= _MIN_LINES and sum(map(bool, map(_LOG_LINE.match, lines))) * 2 >= len(lines):
        return JunkCause.log
    if _is_blob(text):
        return JunkCause.blob
    return _says_little(words)


def _says_little(words: list[str]) -> JunkCause | None:
    """Return whether words are too few, or too often the same."""
    long = len(words) >= _MIN_REPEATED
    if long and len(set(words)) * 4 <= len(words):
        return JunkCause.repetition
    few = len({word for word in words if word not in _STOP}) < _MIN_WORDS
    return JunkCause.short if few else None


def _is_blob(text: str) -> bool:
    """Return whether most of a text is long tokens without the shape of an address or a path."""
    tokens = text.split()
    long = [t for t in tokens if len(t) >= _LONG_TOKEN and not re.match(r"https?://|[./~]", t)]
    if not long:
        return False
    return sum(map(len, long)) * 2 >= sum(map(len, tokens)) and any(map(_is_dense, long))


def _is_dense(token: str) -> bool:
    """Return whether characters are spread as in encoded bytes: over 3.2 bits each."""
    counts = Counter(token).values()
    bits = -sum(n / len(token) * math.log2(n / len(token)) for n in counts)
    return bits > 3.2  # noqa: PLR2004 - hex has up to 4, base64 up to 6, a word below 3


def figures(text: str) -> tuple[str, ...]:
    """Return the numbers, names with digits and negations of a text, sorted.

    Texts that differ in them do not say the same, however near their meanings.

    >>> figures("The port is not 8080.")
    ('8080', 'not')
    """
    words = [word.casefold() for word in _WORD.findall(text)]
    negations = {"not", "no", "never", "without", "none", "neither", "nor", "cannot", "nicht"}
    marks = [w for w in words if w in negations or w.endswith("n't") or any(map(str.isdigit, w))]
    return tuple(sorted(marks))


def normal(text: str) -> str:
    """Return a text in which case, spaces and punctuation do not count.

    >>> normal("Use  TLS, always.") == normal("use tls always")
    True
    """
    return " ".join(word.casefold() for word in _WORD.findall(text))
