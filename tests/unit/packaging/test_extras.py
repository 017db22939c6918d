"""Plain `angelos` is the client and the command line; each extra adds what it says."""

from __future__ import annotations

import json
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

import angelos
from angelos.cli import extras
from angelos.core.errors import Unavailable

OURS = {"angelos", "jupyter_ext", "llm", "tools", "tests"}
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv.pop().split(","))
sys.meta_path.insert(0, Blocked())
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_dependencies(names: Iterable[str]) -> set[str]:
    """Return distributions and all that they need without extras, by normal names."""
    waiting, result = [normal(name) for name in names], set()
    while waiting:
        name = waiting.pop()
        if name in result:
            continue
        result.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:  # for another system or Python
            continue
        needs = [line for line in lines if "extra ==" not in line]
        waiting += [normal(re.split(r"[^\w.-]", line)[0]) for line in needs]
    return result


PLAIN = with_dependencies(
    re.split(r"[^\w.-]", line)[0] for line in requires("angelos") if "extra ==" not in line
)


WITH_SERVER = frozenset({"angelos.client.rooms"})
"""Needs pycrdt, as its docstring says; nothing else of the client imports it."""


def blocked(allowed: set[str]) -> str:
    """Return the installed top-level modules that only other distributions have."""
    modules = packages_distributions().items()
    names = [m for m, dists in modules if not {normal(d) for d in dists} & allowed]
    return ",".join(name for name in names if name not in OURS)


def run(program: str, *args: str, allowed: set[str] = PLAIN) -> subprocess.CompletedProcess[str]:
    """Run a program that finds nothing but `allowed` installed."""
    return subprocess.run(
        [sys.executable, "-c", BLOCK + program, *args, blocked(allowed)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def modules(*packages: str) -> list[str]:
    """Return the names of the modules in some packages of angelos."""
    names = []
    for package in packages:
        root = Path(angelos.__path__[0], *package.split(".")[1:])
        names.append(package)
        names += [m.name for m in pkgutil.walk_packages([str(root)], f"{package}.")]
    return [name for name in names if not name.endswith("__main__") and name not in WITH_SERVER]


def test_the_block_blocks_and_lets_plain_dependencies_pass():
    assert {"click", "cryptography", "msgspec", "tornado"} <= PLAIN
    assert run("import redis").returncode == 1
    assert run("import click, tornado.httpclient").returncode == 0


@pytest.mark.parametrize(
    ("packages", "allowed"),
    [
        (("angelos.core", "angelos.client", "angelos.cli.commands"), PLAIN),
        (("angelos.adapters.net", "angelos.adapters.identity", "angelos.adapters.host"), PLAIN),
        (("angelos.node", "angelos.wiring.node", "angelos.governance.log.verify"), PLAIN),
    ],
    ids=["client", "adapters", "node"],
)
def test_modules_need_no_more_than_plain_angelos(packages, allowed):
    result = run(f"for name in {modules(*packages)!r}: __import__(name)", allowed=allowed)
    assert result.returncode == 0, result.stderr


def test_a_node_imports_nothing_of_jupyter_or_postgres():
    program = """
import runpy
sys.argv = ["angelos.wiring.node", "--help"]
try:
    runpy.run_module("angelos.wiring.node", run_name="__main__")
except SystemExit:
    names = {name.partition(".")[0] for name in sys.modules}
    print(sorted(names & set("jupyter_server jupyterlab jupyter_ext psycopg redis pycrdt".split())))
"""
    allowed = PLAIN | with_dependencies(extras.distributions("node"))
    result = run(program, allowed=allowed)
    assert result.returncode == 0, result.stderr
    assert "--name" in result.stdout
    assert result.stdout.endswith("[]\n")


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return run("from angelos.cli import main; main(sys.argv[1:])", *args)


def test_the_command_line_answers_without_extras(tmp_path):
    assert "proposal" in cli("--help").stdout
    status = cli("status", "--data-dir", str(tmp_path))
    assert status.returncode == 1
    assert "No system runs on" in status.stderr
    problem = cli("run", "-c", "1", "--json", "--data-dir", str(tmp_path))
    assert json.loads(problem.stdout)["code"] == "unavailable"


def test_an_extra_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(extras, "_installed", lambda name: name != "redis")
    extras.require("node")
    with pytest.raises(Unavailable) as caught:
        extras.require("server")
    assert caught.value.detail == "This needs angelos[server]; not installed: redis."
    assert caught.value.hint == "Run: pip install 'angelos[server]'"


@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_command_that_starts_a_server_asks_for_it_first(command, tmp_path, monkeypatch):
    monkeypatch.setenv("ANGELOS_DATA_DIR", str(tmp_path / "data"))
    program = f"""
from angelos.cli import extras, main
extras._installed = lambda name: False
main([{command!r}, "--json"])
"""
    result = run(program)
    assert result.returncode == 1, result.stderr
    assert json.loads(result.stdout)["hint"] == "Run: pip install 'angelos[server]'"
    assert "pip install 'angelos[server]'" in result.stderr
    assert not (tmp_path / "data").exists()


def test_everything_that_is_imported_is_declared():
    """What the sources import is a dependency, or comes with one."""
    for packages, extra in ((["angelos/node"], "node"), (["angelos", "jupyter_ext"], "server")):
        allowed = PLAIN | with_dependencies(extras.distributions(extra))
        imported = {
            match
            for package in packages
            for path in Path(angelos.__path__[0]).parent.joinpath(package).rglob("*.py")
            for match in re.findall(r"^\s*(?:from|import) (\w+)", path.read_text(), re.MULTILINE)
        }
        missing = imported & set(blocked(allowed).split(","))
        # Testing, a generator, and what extras of their own have: without `otel` there are no
        # traces, without `memory` no embedding model, without `ml` no role model.
        optional = {
            "opentelemetry",
            "sentence_transformers",
            "numpy",
            "torch",
            "peft",
            "safetensors",
        }
        assert missing <= {"pytest", "pytest_asyncio", "pyseccomp"} | optional
