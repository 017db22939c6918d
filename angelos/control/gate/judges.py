"""Which files judge a proposal: tests, settings of runners and linters, files of CI services.

Paths are compared as a careless file system would: without case, in one Unicode form.

>>> is_test("study/Tests/test_mean.py"), is_setting("a/PyProject.toml"), is_test("study/latest.py")
(True, True, False)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

TEST_FOLDERS = frozenset({"test", "tests"})
SETTINGS = frozenset(
    {
        ".bandit",
        ".coveragerc",
        ".flake8",
        ".gitlab-ci.yml",
        ".mypy.ini",
        ".pre-commit-config.yaml",
        ".pytest.ini",
        ".ruff.toml",
        ".travis.yml",
        "angelos.toml",
        "azure-pipelines.yml",
        "bandit.yaml",
        "conftest.py",
        "constraints.txt",
        "jenkinsfile",
        "justfile",
        "makefile",
        "mypy.ini",
        "noxfile.py",
        "pixi.toml",
        "poetry.lock",
        "pylintrc",
        "pyproject.toml",
        "pyrightconfig.json",
        "pytest.ini",
        "requirements.txt",
        "ruff.toml",
        "setup.cfg",
        "setup.py",
        "tox.ini",
        "uv.lock",
    }
)
"""What test runners, linters, installers and CI services read, in any folder."""
SETTING_FOLDERS = frozenset({".angelos", ".circleci", ".ci", ".github", ".gitlab", ".buildkite"})


def folded(path: str) -> str:
    r"""Return what is the same for all spellings of a path.

    >>> folded("Tests/K.py") == folded("tests/\u212a.py")
    True
    """
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", path).casefold())


def is_setting(path: str) -> bool:
    """Return whether a path names settings of a tool that judges."""
    parts = folded(path).split("/")
    return parts[-1] in SETTINGS or any(part in SETTING_FOLDERS for part in parts[:-1])


def is_test(path: str) -> bool:
    """Return whether a path names a test, or lies in a folder of tests."""
    parts = folded(path).split("/")
    stem = parts[-1].partition(".")[0]
    return (
        any(part in TEST_FOLDERS for part in parts[:-1])
        or stem.startswith("test_")
        or stem.endswith("_test")
        or stem in {"test", "tests"}
    )


def look_alikes(path: str, present: Collection[str]) -> list[str]:
    """Return the paths that are there and differ from `path` only in how they are written.

    A folder that differs so is named too: on a disk without case it is the same folder.
    """
    parts = path.split("/")
    heads = {"/".join(parts[:end]) for end in range(1, len(parts) + 1)}
    by_fold: dict[str, set[str]] = {}
    for head in heads:
        by_fold.setdefault(skeleton(head), set()).add(head)
    alike: set[str] = set()
    for name in present:
        pieces = name.split("/")
        for end in range(1, len(pieces) + 1):
            head = "/".join(pieces[:end])
            if head not in heads and skeleton(head) in by_fold:
                alike.add(head)
    return sorted(alike)


_CONFUSABLE = str.maketrans(
    # Cyrillic and Greek letters that look like Latin ones (Unicode TR 39, the common part).
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0458\u0455\u04bb\u0501\u051b\u051d\u0432\u043a\u043c\u043d\u0442"
    "\u03b1\u03bf\u03bd\u03c1\u03b9\u03ba\u03c4",
    "aeopcyxijshdqwbkmhtaovpikt",
)


def skeleton(path: str) -> str:
    """Return a path with the letters that look like Latin ones replaced by these, without case."""
    return folded(folded(path).translate(_CONFUSABLE))
