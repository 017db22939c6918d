"""Which changed code no test imports: read from the text, so no program's own word.

It is a figure of risk, not a measure of coverage: a test that imports a module may still not call
what changed there.

>>> imported(b"from study import stats") >= {"study", "study.stats"}
True
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence

from angelos.core.revision_v2 import TreeEntry

MAX_TESTS = 500
MAX_TEST_BYTES = 256_000
MAX_CACHE = 5_000
_LINE = re.compile(
    rb"^[ \t]*(?:>>>[ \t]*)?"
    rb"(?:from[ \t]+([\w.]+)[ \t]+import[ \t]*\(?([^#\n]*)|import[ \t]+([^#\n]+))",
    re.MULTILINE,
)
_ROOTS = ("src/", "lib/")

ReadTest = Callable[[TreeEntry], Awaitable[bytes]]


def imported(text: bytes) -> frozenset[str]:
    """Return the dotted names that a test may import, as they are written."""
    names: set[str] = set()
    for match in _LINE.finditer(text):
        module, parts, plain = (group.decode(errors="replace") for group in match.groups(b""))
        if module:
            names.add(module)
            words = re.findall(r"\w+", parts)
            names |= {f"{module.rstrip('.')}.{word}".lstrip(".") for word in words}
        names |= {name.split()[0] for name in plain.split(",") if name.split()}
    return frozenset(names)


def module_of(path: str) -> str:
    """Return the dotted name of a file's module.

    >>> module_of("src/study/stats.py"), module_of("study/__init__.py")
    ('study.stats', 'study')
    """
    for root in _ROOTS:
        path = path.removeprefix(root)
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


class CoverageReader:
    """Remembers what each test file imports, by its content."""

    def __init__(self) -> None:
        self._cache: dict[str, frozenset[str]] = {}

    async def uncovered(
        self, code: Sequence[str], tests: Sequence[TreeEntry], read: ReadTest
    ) -> tuple[str, ...] | None:
        """Return the changed files that no test imports; None where there are too many tests.

        Args:
            code: Paths of the changed files.
            tests: All test files.
            read: Reads one of them.
        """
        if len(tests) > MAX_TESTS:
            return None
        names: set[str] = set()
        for entry in tests:
            if entry.size > MAX_TEST_BYTES:
                return None
            if entry.sha256 not in self._cache:
                if len(self._cache) >= MAX_CACHE:
                    self._cache.clear()
                self._cache[entry.sha256] = imported(await read(entry))
            names |= self._cache[entry.sha256]
        return tuple(path for path in code if not _covered(module_of(path), names))


def _covered(module: str, names: set[str]) -> bool:
    """Return whether a module, or something in it, is imported."""
    return any(name == module or name.startswith(f"{module}.") for name in names)
