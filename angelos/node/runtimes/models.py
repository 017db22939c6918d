"""What a language needs: the definition in data, and the tools that were found for it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from angelos.core.messages import Limits

Words = tuple[str, ...]


class Install(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where its tools come from: requirements of pip or packages of apt."""

    pip: Words = ()
    apt: Words = ()


class ToolchainDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One way to run a language. Words in braces are put in; see `commands.py`."""

    name: str
    tools: dict[str, Words]
    """Name -> where it may lie: an absolute path, a pattern, or a name on PATH."""
    version: Words
    prepare: Words = ()
    """Stands before `compile` and `test`."""
    check: Words = ()
    compile: Words = ()
    """Empty: the language is interpreted."""
    compile_project: Words = ()
    run: Words
    test: Words = ()
    test_project: Words = ()
    checked: bool = False
    """`check` comes before a run, as a compiler would."""
    warm: Words = ()
    """Compiles `warm_source` once, at installation; its cache is kept."""
    warm_source: str = ""
    diagnostic: str = ""
    """A regular expression with the groups file, line, column and message."""
    env: dict[str, str] = {}


class RuntimeDefinition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One language, as its file in `data/` says it."""

    language: str
    extensions: Words
    main: str
    """The name of a program that came as code alone."""
    project: str = ""
    """The file by which a folder is a project of the language's own build tool."""
    install: Install = Install()
    toolchain: Annotated[tuple[ToolchainDefinition, ...], msgspec.Meta(min_length=1)]


class Toolchain(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain whose tools are on this machine."""

    definition: ToolchainDefinition
    tools: dict[str, str]
    """Name -> path in the box."""
    read_only: dict[str, str]
    """Folders to bind: path in the box -> path here."""
    sources: dict[str, str]
    """Name -> path here."""
    identity: str
    """Differs when a tool is another one."""
    seeded: str = ""
    """A folder here with a filled build cache."""


class Action(StrEnum):
    """What is done with a program."""

    run = "run"
    check = "check"
    test = "test"


class Diagnostic(msgspec.Struct, frozen=True, kw_only=True):
    """One complaint of a compiler."""

    file: str
    line: int
    column: int
    message: str
    severity: str = "error"
    code: str = ""


BUILD_LIMITS = Limits(
    wall_s=300, cpu_s=600, memory_mb=3072, pids=256, output_bytes=1_000_000, disk_mb=2048
)
"""Of a compiler's box when a runtime is installed; a task's compiler has the task's own."""
