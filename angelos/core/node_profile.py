"""What a node says of its machine when it connects, and how the hub reads it.

It is the node's own word: shown to people, never the ground of a decision about trust.

    >>> profile = NodeProfile(version="0.1.0", cores=4, languages=("python",))
    >>> read_profile(profile.texts()) == profile
    True
    >>> read_profile({"cores": "many", "labels": "a," * 1000}) == NodeProfile(labels=("a",) * 16)
    True
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

MAX_LABELS = 16
_LONGEST = 2_048
_MAX_NUMBER = 2**53
_LABEL = re.compile(r"[a-z][a-z0-9_.-]{0,31}(=[A-Za-z0-9_.+-]{1,63})?")
"""A name, or a name and a value: `rack=7`; the hub routes by them."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/()+-]{0,63}")


class NodeProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A node's machine."""

    version: str = ""
    """Of AngelOS."""
    cores: int = 0
    memory_bytes: int = 0
    gpus: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def texts(self) -> dict[str, str]:
        """Return it as the texts of a hello."""
        return {
            "version": self.version,
            "cores": str(self.cores),
            "memory": str(self.memory_bytes),
            "gpus": ",".join(self.gpus),
            "languages": ",".join(self.languages),
            "labels": ",".join(self.labels),
        }


TEXTS: frozenset[str] = frozenset(NodeProfile().texts())
"""The names of these texts."""


def read_profile(texts: Mapping[str, str]) -> NodeProfile:
    """Return what a hello says; what is no proper word or number is left out."""
    return NodeProfile(
        version=next(iter(_words(texts.get("version", ""))), ""),
        cores=_number(texts.get("cores", "")),
        memory_bytes=_number(texts.get("memory", "")),
        gpus=_words(texts.get("gpus", "")),
        languages=_words(texts.get("languages", "")),
        labels=tuple(filter(is_label, texts.get("labels", "")[:_LONGEST].split(",")[:MAX_LABELS])),
    )


def is_label(text: str) -> bool:
    """Return whether a text can be a label."""
    return _LABEL.fullmatch(text) is not None


def _words(text: str) -> tuple[str, ...]:
    parts = text[:_LONGEST].split(",")[:MAX_LABELS]
    return tuple(part for part in parts if _WORD.fullmatch(part))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 17):  # noqa: PLR2004 - 2**53 has 16
        return 0
    return min(int(text), _MAX_NUMBER)
