"""Applies all rules to a patch. As a program it reads a patch on its input, within limits.

findings = inspect(Patch(agent=True, files=(PatchedFile(path="a.py", after=b"x = 1"),)))
"""

from __future__ import annotations

import functools
import resource
import sys
from pathlib import Path

import msgspec

from angelos.control.gate import notebooks
from angelos.control.gate.judges import is_setting, is_test, look_alikes
from angelos.control.gate.modules import ROOTS, module_names, runs_by_itself, shadowed
from angelos.control.gate.notebooks import NotANotebook
from angelos.control.gate.syntax import SourceContext, unknown
from angelos.control.gate.tests import examples_changed, weakened
from angelos.control.gate.vocabulary import FRAMEWORKS, LIBRARIES
from angelos.core.findings import GateFinding, GateRule
from angelos.core.messages import Message

MAX_CPU_S = 20
MAX_MEMORY = 2 * 1024**3
MAX_FINDINGS = 100
_PLAIN = (
    ".bib",
    ".csv",
    ".css",
    ".geojson",
    ".html",
    ".json",
    ".jsonl",
    ".log",
    ".md",
    ".po",
    ".pot",
    ".rst",
    ".svg",
    ".tex",
    ".tsv",
    ".txt",
    ".xml",
    ".yaml",
    ".yml",
)
"""Kinds of text that nothing runs by itself."""
_PLAIN_NAMES = frozenset({"license", "notice", "authors", "readme", "changelog", ".gitignore"})
_COMMON = frozenset({"docs", "examples", "scripts", "src", "test", "tests", "tools", "benchmarks"})
"""Folders that sloppy packages install too; a repository may have its own."""


class PatchedFile(Message, frozen=True, kw_only=True):
    """A path that the patch changes, with both contents; None where there is none."""

    path: str
    before: bytes | None = None
    after: bytes | None = None
    plain: bool = True
    """It is neither a link nor newly executable."""


class Patch(Message, frozen=True, kw_only=True):
    """All that the rules look at."""

    files: tuple[PatchedFile, ...]
    present: tuple[str, ...] = ()
    """All paths of `main`."""
    agent: bool
    """An agent made it, so its code has to be understood."""
    programs: tuple[str, ...] = ()
    """Paths that the pipeline's commands run."""
    notebooks: tuple[str, ...] = ()
    """Notebooks that the pipeline re-runs."""
    judges: tuple[str, ...] = ()
    """Of these, those that are marked as judges: any change of them is a change of a test."""
    doctested: tuple[str, ...] = ()
    """Files whose examples the pipeline runs."""


def inspect(patch: Patch) -> tuple[GateFinding, ...]:
    """Return what a person has to look at, in the order of paths, at most `MAX_FINDINGS`."""
    reader = _PatchReader(patch)
    findings = [finding for file in patch.files for finding in reader.file(file)]
    if len(findings) > MAX_FINDINGS:
        more = f"and {len(findings) - MAX_FINDINGS + 1} findings more"
        last = GateFinding(rule=findings[MAX_FINDINGS].rule, reason=more)
        findings = [*findings[: MAX_FINDINGS - 1], last]
    return tuple(findings)


class _PatchReader:
    """Reads the files of one patch."""

    def __init__(self, patch: Patch) -> None:
        self.patch = patch
        self.installed = installed_modules()
        self.present = frozenset(patch.present)
        added = {file.path for file in patch.files if file.after is not None}
        self.paths = self.present | added
        self.main_modules = {name for path in patch.present for name in module_names(path)}
        self.own = frozenset(
            name
            for path in self.paths
            for name in module_names(path)
            if name in self.main_modules
            or (name not in self.installed and name not in sys.stdlib_module_names)
        )
        self.used = frozenset(self._used())

    def _used(self) -> set[str]:
        """Return the installed modules that the changed files import on `main` already."""
        names: set[str] = set()
        for file in self.patch.files:
            if file.before is not None and file.path.endswith(".py"):
                for line in file.before.decode(errors="replace").splitlines():
                    words = line.split()
                    if words[:1] in (["import"], ["from"]) and len(words) > 1:
                        names.add(words[1].partition(".")[0].rstrip(","))
        return names - FRAMEWORKS - sys.stdlib_module_names

    def file(self, file: PatchedFile) -> list[GateFinding]:
        """Return the findings of one path."""
        findings = self._judging(file)
        if file.after is not None:
            findings += self._names(file)
            if not findings or file.path.endswith((".py", ".ipynb")):
                findings += self._content(file, file.after)
        return findings

    # -- what judges -------------------------------------------------------------------------

    def _judging(self, file: PatchedFile) -> list[GateFinding]:
        """Return what the patch changes of what judges it."""
        path = file.path
        decides = is_setting(path) or path in self.patch.programs or path in self.patch.judges
        if decides and file.after is not None:
            return [_found(GateRule.judge_changed, path, "it decides how proposals are tested")]
        if file.before is None:
            return []
        if file.after is None:
            return self._removed(path, file.before)
        if path in self.patch.notebooks:
            return notebooks.hollowed(path, file.before, file.after)
        if is_test(path):
            return _test_changed(path, file.before, file.after)
        doctested = path in self.patch.doctested
        return examples_changed(path, file.before, file.after) if doctested else []

    def _removed(self, path: str, before: bytes) -> list[GateFinding]:
        judges = (*self.patch.programs, *self.patch.judges, *self.patch.notebooks)
        if is_setting(path) or is_test(path) or path in judges:
            return [_found(GateRule.judge_removed, path, "it judges, and is removed or moved")]
        return examples_changed(path, before, None) if path in self.patch.doctested else []

    # -- names -------------------------------------------------------------------------------

    def _names(self, file: PatchedFile) -> list[GateFinding]:
        path = file.path
        findings: list[GateFinding] = []
        if runs_by_itself(path):
            findings.append(_found(GateRule.shadows_module, path, "Python may run it by itself"))
        if not file.plain:
            findings.append(_found(GateRule.file_kind, path, "it is a link, or newly executable"))
        if file.before is None:
            if alike := look_alikes(path, self.present):
                reason = f"it looks like {', '.join(alike[:3])}"
                findings.append(_found(GateRule.looks_alike, path, reason))
            if name := self._shadowed(path):
                reason = f"it would stand before the module {name}"
                findings.append(_found(GateRule.shadows_module, path, reason))
        return findings

    def _shadowed(self, path: str) -> str:
        """Return the module before which a new file stands, from any folder that is no package."""
        parts = path.split("/")
        for start in range(len(parts)):
            folder = "/".join(parts[:start])
            if start and f"{folder}/__init__.py" in self.paths and folder not in ROOTS:
                continue
            name = shadowed("/".join(parts[start:]), self.installed)
            if name and not (start == 0 and name in self.main_modules):
                return name
        return ""

    # -- code --------------------------------------------------------------------------------

    def _content(self, file: PatchedFile, after: bytes) -> list[GateFinding]:
        if not self.patch.agent:
            return []
        path = file.path
        context = SourceContext(path=path, test=is_test(path), own=self.own, used=self.used)
        if path.endswith((".py", ".pyi")):
            return unknown(file.before, after, context)
        if path.endswith(".ipynb"):
            return _notebook_code(file, after, context)
        name = path.rpartition("/")[2].lower()
        if not name.endswith(_PLAIN) and name.partition(".")[0] not in _PLAIN_NAMES:
            return [_found(GateRule.file_kind, path, "no rule understands files of this kind")]
        try:
            after.decode()
        except UnicodeDecodeError:
            return [_found(GateRule.file_kind, path, "it is not text")]
        return []


def _test_changed(path: str, before: bytes, after: bytes) -> list[GateFinding]:
    if path.endswith(".py"):
        return weakened(path, before, after)
    return [_found(GateRule.judge_changed, path, "tests may read it")]


def _notebook_code(file: PatchedFile, after: bytes, context: SourceContext) -> list[GateFinding]:
    try:
        code, magics = notebooks.code_of(after)
    except NotANotebook as error:
        return [_found(GateRule.syntax, file.path, f"no notebook: {error}")]
    old, old_magics = None, type(magics)()
    if file.before is not None:
        try:
            old, old_magics = notebooks.code_of(file.before)
        except NotANotebook:
            old = None
    findings = notebooks.unknown_magics(file.path, old_magics, magics)
    return findings + unknown(old, code, context)


def _found(rule: GateRule, path: str, reason: str) -> GateFinding:
    return GateFinding(rule=rule, path=path, reason=reason)


@functools.cache
def installed_modules() -> frozenset[str]:
    """Return the top-level modules that are installed beside this interpreter."""
    names = set(FRAMEWORKS | LIBRARIES)
    for folder in sys.path:
        if folder.endswith("-packages"):
            try:
                entries = [entry.name for entry in Path(folder).iterdir()]
            except OSError:
                continue
            names |= {entry.partition(".")[0] for entry in entries if "-" not in entry}
    return frozenset(names - _COMMON - {"__pycache__", ""})


def main() -> None:
    """Inspect the patch on standard input and print the findings, within limits."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_S, MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    patch = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Patch)
    sys.stdout.buffer.write(msgspec.msgpack.encode(inspect(patch)))


if __name__ == "__main__":
    main()
