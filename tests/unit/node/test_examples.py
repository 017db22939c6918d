"""The examples in the docstrings of the node's pure modules are true."""

import doctest
import importlib

import pytest

MODULES = (
    "commands.facts",
    "commands.output",
    "commands.run",
    "runtimes.python.guard",
    "sandbox.layout",
    "sandbox.seccomp",
    "sandbox.verdict",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"angelos.node.{name}"))
    assert (result.failed, result.attempted > 0) == (0, True)
