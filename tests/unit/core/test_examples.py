"""The examples in the docstrings of pure modules are true."""

import doctest
import importlib
import pkgutil

import pytest

import angelos.core

MODULES = [f"angelos.core.{module.name}" for module in pkgutil.iter_modules(angelos.core.__path__)]


@pytest.mark.parametrize("name", [*MODULES, "angelos.demo.patches", "angelos.demo.study"])
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
