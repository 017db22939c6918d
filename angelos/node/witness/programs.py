"""The programs of both boxes as one text each, which a box runs without AngelOS being in it."""

from __future__ import annotations

import functools
from importlib.resources import files

from angelos.core.plans import CaseRunner

_PACKAGE = "angelos.node.witness"
_JOIN = """\
import sys
sys.path[:] = [folder for folder in sys.path if folder not in ("", "/work")]
import types
for name, text in {sources!r}:
    module = types.ModuleType(name)
    sys.modules[name] = module
    exec(compile(text, name, "exec"), module.__dict__)
sys.modules[{last!r}].main()
"""


@functools.cache
def runner_program() -> str:
    """Return the program that asks."""
    return _joined("pictures", "outputs", "runner")


@functools.cache
def harness_for(runner: CaseRunner) -> str:
    """Return the program that answers."""
    return _joined("kernel" if runner is CaseRunner.notebook else "harness")


def _joined(*names: str) -> str:
    folder = files(_PACKAGE)
    sources = [(f"{_PACKAGE}.{n}", folder.joinpath(f"{n}.py").read_text("utf-8")) for n in names]
    return _JOIN.format(sources=sources, last=sources[-1][0])
