"""settings.md: the environment, each plane's settings, and a repository's own configuration."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import msgspec

from angelos.client import settings as client_settings
from angelos.control.config import ControlConfig
from angelos.control.proposals import repo_config
from angelos.governance.config import GovernanceConfig
from angelos.hub.config import HubConfig
from angelos.node.config import NodeConfig, SandboxConfig
from angelos.wiring import settings
from tools.reference.source import code, described, doc, first, head, table

_VARIABLE = re.compile(r"^([A-Z][A-Z_]+)  +(\S.*)$", re.MULTILINE)
_ENVIRONMENTS = frozenset({"env", "environ", "os.environ"})
_NOT_OURS = {
    "CI": "set: what a test needs and this machine lacks fails it instead of skipping it",
    "HOME": "where the data directory lies if nothing else says so",
    "XDG_DATA_HOME": "the same; the data directory is `angelos` in it",
}
_PACKAGES = ("angelos", "jupyter_ext", "llm")


def page() -> str:
    """Return the page."""
    said = _NOT_OURS | _variables(client_settings) | _variables(settings)
    read = _reads()
    rows = [
        (code(name), said.get(name, ""), ", ".join(code(place) for place in sorted(read[name])))
        for name in sorted(read)
    ]
    parts = [
        head("Settings", "A setting comes from an option of the command line, else from the "
             "environment, else it is the default given here."),
        "## Environment", table(("variable", "", "read in"), rows),
        "## The system", *_structs(
            settings.Settings, settings.StoreSettings, settings.ServerSettings,
            settings.NodeSettings,
        ),
        "## The client", *_structs(client_settings.ClientSettings),
        "## Planes",
        "What a plane is built with, in code; few of these have an option.",
        *_structs(ControlConfig, HubConfig, GovernanceConfig, NodeConfig, SandboxConfig),
        "## A repository's own: `angelos.toml`", doc(repo_config).split("\n\n>>>")[0],
        *_structs(
            repo_config.RepoConfig,
            repo_config.PipelineConfig,
            repo_config.Step,
            repo_config.HealthConfig,
            repo_config.ReviewRules,
        ),
    ]  # fmt: skip
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _variables(module: ModuleType) -> dict[str, str]:
    """Return what a module's docstring says of each variable."""
    return dict(_VARIABLE.findall(module.__doc__ or ""))


def _structs(*structs: type[msgspec.Struct]) -> Iterator[str]:
    for struct in structs:
        yield f"### {struct.__name__}"
        yield first(struct)
        yield described(struct)


def _reads() -> dict[str, set[str]]:
    """Return each environment variable that our code reads, with the files that do."""
    found: dict[str, set[str]] = {}
    for package in _PACKAGES:
        root = _folder(package)
        for path in sorted(root.rglob("*.py")):
            for name in _names(ast.parse(path.read_text(encoding="utf-8"))):
                place = (Path(package) / path.relative_to(root)).as_posix()
                found.setdefault(name, set()).add(place)
    return found


def _folder(package: str) -> Path:
    # Found, not imported: `llm` needs more than is installed everywhere.
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError(f"There is no package {package}.")
    return Path(found.submodule_search_locations[0])


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        key: ast.expr | None = None
        if isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func)
            env, _, method = called.rpartition(".")
            if (method in {"get", "getenv"} and env in {*_ENVIRONMENTS, "os"}) or (
                called == "_flag" and len(node.args) > 1
            ):
                key = node.args[-1] if called == "_flag" else node.args[0]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            key = node.slice if ast.unparse(node.value) in _ENVIRONMENTS else None
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            yield key.value
